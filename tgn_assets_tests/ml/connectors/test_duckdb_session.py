import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.connectors.duckdb_session import confine, connect


def test_no_extension_is_downloaded_or_loaded_by_itself(tmp_path: Path) -> None:
    with connect(tmp_path / "some.duckdb") as con:
        query = "SELECT current_setting('autoinstall_known_extensions'), current_setting('autoload_known_extensions')"
        assert con.execute(query).fetchall() == [(False, False)]
        with pytest.raises(duckdb.Error, match="extension"):
            con.execute("SELECT ST_Point(1, 2)")


def test_a_database_of_sqlite_is_not_opened_by_an_extension(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "some.duckdb")) as con:
        con.execute("CREATE TABLE one (a)")
    with pytest.raises(duckdb.IOException, match=r"some\.duckdb is a database of SQLite"):
        connect(tmp_path / "some.duckdb")


def test_another_connection_of_the_process_leaves_the_lock_in_place(tmp_path: Path) -> None:
    """To close a file of which a process has a lock ends that lock, whichever way the file was opened."""
    other_process = "import sys, duckdb; duckdb.connect(sys.argv[1])"
    command = [sys.executable, "-c", other_process, str(tmp_path / "some.duckdb")]
    with connect(tmp_path / "some.duckdb"):
        connect(tmp_path / "some.duckdb").close()
        refused = subprocess.run(command, capture_output=True, text=True)
    assert "Could not set lock" in refused.stderr
    subprocess.run(command, check=True)


@pytest.mark.parametrize(
    "statement",
    [
        "FROM read_csv('{other}')",
        "FROM '{other}'",
        "FROM read_text('/etc/passwd')",
        "FROM glob('/etc/*')",
        "FROM read_csv('https://example.org/log.csv')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/other.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SELECT getenv('HOME')",
    ],
)
def test_confined_connection_touches_nothing_else(statement: str, tmp_path: Path) -> None:
    own, other, folder = tmp_path / "own.csv", tmp_path / "other.csv", tmp_path / "folder"
    folder.mkdir()
    for file in (own, other, folder / "copy.csv"):
        file.write_text("a\n1\n")
    with connect(tmp_path / "some.duckdb") as con:
        confine(con, [str(own)], folder)
        confine(con, [str(other)])  # too late
        assert con.execute(f"FROM read_csv(['{own}', '{folder}/copy.csv'])").fetchall() == [(1,), (1,)]
        with pytest.raises(duckdb.Error, match=r"disabled|Cannot|does not exist"):
            con.execute(statement.format(other=other, folder=tmp_path))
        con.execute("CREATE TABLE kept AS SELECT 1 AS a; CHECKPOINT")
    with connect(tmp_path / "some.duckdb") as con:
        assert con.execute(f"FROM kept, read_csv('{other}')").fetchall() == [(1, 1)]
