"""An empty warehouse."""

from pathlib import Path

import pytest

from tgn_assets.state.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(tmp_path / "home" / "warehouse.duckdb", lock_timeout=30)
    with warehouse.writer():
        pass
    return warehouse
