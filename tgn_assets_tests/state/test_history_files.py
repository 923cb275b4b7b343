"""SQLite's files as Dagster writes them: each event with a connection of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

from tgn_assets.state.history_files import KEPT_OPEN, eased

FULL, NORMAL = 2, 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return with_log(tmp_path / "history" / "runs.db")


def with_log(path: Path) -> Path:
    """A database at `path` that keeps a write-ahead log."""
    path.parent.mkdir(exist_ok=True)
    execute(path, "PRAGMA journal_mode=WAL")
    execute(path, "CREATE TABLE events (name TEXT)")
    return path


def execute(path: Path, *statements: str) -> list[tuple]:
    """Rows of the last of the statements, each with a connection that is closed again."""
    for statement in statements:
        engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=NullPool)
        with engine.begin() as connection:
            result = connection.execute(sqlalchemy.text(statement))
            rows = result.fetchall() if result.returns_rows else []
    return [tuple(row) for row in rows]


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def test_a_log_is_carried_over_at_the_end_and_not_after_each_event(file: Path) -> None:
    execute(file, "INSERT INTO events VALUES ('before')")
    assert not log_of(file).exists()
    with eased(file.parent):
        execute(file, "INSERT INTO events VALUES ('first')", "INSERT INTO events VALUES ('second')")
        assert log_of(file).stat().st_size > 0
        assert execute(file, "PRAGMA synchronous") == [(NORMAL,)]
    assert not log_of(file).exists()
    assert execute(file, "PRAGMA synchronous") == [(FULL,)]
    assert execute(file, "SELECT name FROM events") == [("before",), ("first",), ("second",)]


def test_files_elsewhere_and_files_without_a_log_are_left_alone(file: Path, tmp_path: Path) -> None:
    elsewhere, plain = with_log(tmp_path / "elsewhere" / "runs.db"), file.with_name("plain.db")
    with eased(file.parent):
        assert execute(elsewhere, "INSERT INTO events VALUES ('one')", "PRAGMA synchronous") == [(FULL,)]
        assert not log_of(elsewhere).exists()
        assert execute(plain, "CREATE TABLE events (name TEXT)", "PRAGMA synchronous") == [(FULL,)]


def test_a_file_that_gets_its_log_meanwhile_is_eased_from_then_on(tmp_path: Path) -> None:
    with eased(tmp_path):
        path = with_log(tmp_path / "history" / "new.db")
        assert execute(path, "PRAGMA synchronous") == [(NORMAL,)]
        assert log_of(path).exists()


def test_a_folder_may_be_named_by_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    with eased(link):
        assert execute(file, "PRAGMA synchronous") == [(NORMAL,)]
    with eased(file.parent):
        assert execute(link / file.name, "PRAGMA synchronous") == [(NORMAL,)]


def test_only_so_many_files_are_kept_open(tmp_path: Path) -> None:
    paths = [with_log(tmp_path / "history" / f"{number}.db") for number in range(KEPT_OPEN + 3)]
    with eased(tmp_path):
        for path in paths:
            execute(path, "INSERT INTO events VALUES ('one')")
        assert [log_of(path).exists() for path in paths] == [False] * 3 + [True] * KEPT_OPEN


WRITER = """
import os, sys
from pathlib import Path
from tgn_assets.state.history_files import eased
from tgn_assets_tests.state.test_history_files import execute
with eased(Path(sys.argv[1]).parent):
    execute(Path(sys.argv[1]), "INSERT INTO events VALUES ('last')")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_had_committed_is_there(file: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", WRITER, str(file)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -9 and log_of(file).exists()
    assert execute(file, "SELECT name FROM events") == [("last",)]
    assert not log_of(file).exists() and os.listdir(file.parent) == [file.name]
