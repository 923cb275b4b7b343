"""Takes ids out of Dagster's history: SQLite files with events, metadata, ticks and tags, and the logs of processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tgn_assets.forget.spelling import STRUCTURE, Ids
from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.state.dagster_history import HISTORY_REMEDY
from tgn_assets.state.warehouse import StateError

BUSY_SECONDS = 60.0
"""How long to wait for a web server or a daemon that writes."""
CONFIGURATION = ("dagster.yaml", "workspace.yaml", "pyproject.toml")
"""Files of the user's own."""
OF_SQLITE = (".db", ".db-wal", ".db-shm", ".db-journal")


def clean_history(dagster_home: Path, ids: Ids) -> int:
    """Replaces the `ids` in all that Dagster keeps in the folder `dagster_home`; returns in how many texts.

    Deleted bytes go, too: files of SQLite are written anew, each in one transaction, and their logs are emptied.
    StateError for a file that cannot be read, or is locked for too long.
    """
    changed = 0
    for path in sorted(dagster_home.rglob("*")):
        if path.suffix == ".db":
            changed += _clean_database(path, ids)
        elif path.is_file() and path.name not in CONFIGURATION and not path.name.endswith(OF_SQLITE):
            changed += clean_text(path, ids)
    return changed


def clean_text(path: Path, ids: Ids) -> int:
    """Replaces the `ids` in the text file `path`, as a whole; returns whether there were any."""
    text = path.read_bytes().decode(errors="surrogateescape")
    clean = ids.without_in_json(text)
    if clean == text:
        return 0
    replace_text(path, clean)
    return 1


def _clean_database(path: Path, ids: Ids) -> int:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as con:
            con.execute("PRAGMA secure_delete = ON")
            con.execute("BEGIN IMMEDIATE")
            changed = 0
            for table, column, rowid, text in values(con, ids):
                if isinstance(text, str) and (clean := ids.without_in_json(text)) != text:
                    con.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', [clean, rowid])
                    changed += 1
            con.execute("COMMIT")
            con.execute("VACUUM")
            ((busy, *_),) = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if busy:  # the file has its old bytes until then
                raise sqlite3.OperationalError("it is being read all the time")
    except sqlite3.OperationalError as error:
        denied = "unable to open" in str(error) or "readonly" in str(error)
        remedy = "give this user the right to read and write it" if denied else "stop `tgn dev` and run it again"
        raise StateError(f"{path} cannot be cleaned ({error}): {remedy}") from error
    except sqlite3.DatabaseError as error:
        raise StateError(f"{path} is damaged ({error}): {HISTORY_REMEDY}") from error
    return changed


def values(con: sqlite3.Connection, ids: Ids) -> Iterator[tuple[str, str, int, str | bytes]]:
    """(table, column, rowid, value) of each text that has a spelling of the `ids`, and of each blob."""
    tables = con.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    con.create_function("names_id", 1, lambda value: isinstance(value, bytes) or ids.are_in(value), deterministic=True)
    for (table,) in tables:
        for column in (row[1] for row in con.execute(f'PRAGMA table_info("{table}")').fetchall()):
            if column in STRUCTURE:
                continue
            query = f'SELECT rowid, "{column}" FROM "{table}" WHERE typeof("{column}") IN (\'text\', \'blob\')'
            for rowid, value in con.execute(f'{query} AND names_id("{column}")').fetchall():
                yield table, column, rowid, value
