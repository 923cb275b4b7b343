"""A home whose sensor ticks on an instance in memory, and a source that may be read again at once."""

from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.automation import backlog
from tgn_assets.state.home import Home
from tgn_assets_tests.automation.ticks import Ticks
from tgn_assets_tests.support.event_logs import home_on_log


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_on_log(tmp_path)


@pytest.fixture
def tick(home: Home, instance: dg.DagsterInstance) -> Ticks:
    return Ticks(home, instance)


@pytest.fixture
def no_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)
