"""A short version of `make chaos`, in a process of its own: it forks, and threads do not survive that."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos import ERRORS

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import pytest
from benchmarks.chaos import main
from tgn_assets_tests.support.deployment import quick_training, without_pictures

quick_training(pytest.MonkeyPatch())
without_pictures(pytest.MonkeyPatch())
sys.exit(main())
"""
"""What is written, and when, does not depend on how well a model is trained."""


@pytest.mark.e2e
def test_a_week_survives_a_kill_and_an_error() -> None:
    command = [sys.executable, "-c", PROGRAM, "--every", "115"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TGN_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (error, _, _), (kill, struck, survived) = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|$", done.stdout, re.MULTILINE)
    assert (error in ERRORS, kill) == (True, "kill")
    assert int(struck) >= 1 and survived == struck
