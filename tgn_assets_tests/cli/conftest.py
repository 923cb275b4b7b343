"""An environment without settings."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, in an empty folder without `.env`."""
    for name in [name for name in os.environ if name.startswith("TGN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
