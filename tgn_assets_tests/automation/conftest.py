"""A Dagster instance in memory, and a source that may be read again at once."""

from collections.abc import Iterator

import dagster as dg
import pytest

from tgn_assets.automation import backlog


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def no_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)
