"""Connections to DuckDB, all with the same settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from tgn_assets.ml.schema import literal

SQLITE = b"SQLite format 3\0"
"""What its files begin with."""
QUERY_INTERRUPTED = "Query interrupted"
"""What DuckDB's binding says when it was interrupted, as a RuntimeError."""


def connect(database: str | Path = ":memory:", *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection in UTC that neither downloads nor loads an extension by itself. Before it runs SQL that a user
    wrote, `confine` it.
    """
    with suppress(OSError), open(database, "rb") as file:
        # DuckDB would download an extension, and open it.
        if file.read(len(SQLITE)) == SQLITE:
            raise duckdb.IOException(f"{database} is a database of SQLite, and should be one of DuckDB")
    con = duckdb.connect(database, read_only=read_only)
    con.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; SET TimeZone = 'UTC'")
    return con


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All that is done within is kept, or, if an exception leaves it, nothing."""
    con.begin()
    try:
        yield
    except BaseException:
        con.rollback()
        raise
    con.commit()


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C, or a signal that says so, ended a query, which DuckDB reports as an error of its own."""
    return isinstance(error, KeyboardInterrupt | duckdb.InterruptException) or str(error) == QUERY_INTERRUPTED


def confine(
    con: duckdb.DuckDBPyConnection, files: Iterable[str] = (), folder: str | Path | None = None
) -> duckdb.DuckDBPyConnection:
    """Lets `con` touch no file but its own database, `files` and what lies in `folder`, and load no extension.

    There is no way back for as long as its database is open; a later call changes nothing.
    """
    if con.execute("SELECT current_setting('enable_external_access')").fetchall()[0][0]:
        con.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
        con.execute(f"SET allowed_directories = [{'' if folder is None else literal(str(folder))}]")
        con.execute("SET enable_external_access = false")
    return con
