from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.connectors.duckdb_session import connect


def test_no_extension_is_downloaded_or_loaded_by_itself(tmp_path: Path) -> None:
    with connect(tmp_path / "some.duckdb") as con:
        query = "SELECT current_setting('autoinstall_known_extensions'), current_setting('autoload_known_extensions')"
        assert con.execute(query).fetchall() == [(False, False)]
        with pytest.raises(duckdb.Error, match="extension"):
            con.execute("SELECT ST_Point(1, 2)")
