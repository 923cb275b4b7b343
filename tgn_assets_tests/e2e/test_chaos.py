"""A short version of `make chaos`, in a process of its own: it forks, and threads do not survive that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_a_week_survives_kills_and_errors() -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--every", "90"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TGN_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| kill | " in done.stdout
