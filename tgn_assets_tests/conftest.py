"""Tests see no setting of the person who runs them, and the quick ones come first."""

import os
from collections.abc import Iterator

import pytest

from tgn_assets_tests.postgres import Postgres, postgres_server

for setting in [name for name in os.environ if name.startswith("TGN_")]:
    del os.environ[setting]

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads on top would stall each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOW = ("test_flow", "test_time", "test_cli", "test_docs", "test_dagster_dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Plain functions first, then what runs weeks through Dagster, then what starts servers."""
    items.sort(key=lambda item: SLOW.index(item.path.stem) + 1 if item.path.stem in SLOW else 0)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, one for each worker that has a test for it."""
    with postgres_server() as server:
        yield server
