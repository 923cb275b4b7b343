import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tgn_assets.state.process import ENVIRONMENT, prepare_process
from tgn_assets_tests.test_architecture import MODULES

IMPORT_TWICE = f"""
import importlib, os, sys, warnings

def import_all():
    for name in {sorted(MODULES)!r}:
        importlib.import_module("tgn_assets." + name if name != "__init__" else "tgn_assets")

environment, filters = dict(os.environ), list(warnings.filters)
import_all()  # loads other packages as well, which set what they like
for name in [name for name in sys.modules if name.split(".")[0] == "tgn_assets"]:
    del sys.modules[name]
os.environ.clear()
os.environ.update(environment)
warnings.filters[:] = filters
import_all()
assert dict(os.environ) == environment, set(os.environ.items()) ^ set(environment.items())
assert warnings.filters == filters, warnings.filters
"""

BUILD = """
import sys
from pathlib import Path
from tgn_assets.state.process import prepare_process
prepare_process()
from tgn_assets.definitions import build_definitions
from tgn_assets.settings import Settings
build_definitions(Settings(home=Path(sys.argv[1]), future_blind=True)).resolve_job_def("weekly_refresh")
"""


def run(code: str, *arguments: str) -> str:
    """What a fresh process, which inherits nothing of `prepare_process`, prints to stderr."""
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_an_import_changes_neither_environment_nor_warnings() -> None:
    run(IMPORT_TWICE)


def test_definitions_are_built_and_resolved_without_a_warning(tmp_path: Path) -> None:
    assert run(BUILD, str(tmp_path)) == ""


def test_prepare_process_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, unset, *_ = ENVIRONMENT
    monkeypatch.setenv(mine, "mine")
    monkeypatch.setenv(unset, "so that monkeypatch restores it")
    del os.environ[unset]
    with warnings.catch_warnings():
        prepare_process()
    assert (os.environ[mine], os.environ[unset]) == ("mine", ENVIRONMENT[unset])
