"""Connections to DuckDB, all with the same settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from tgn_assets.ml.safe_text import shortened
from tgn_assets.ml.schema import literal

WITHOUT_EXTENSIONS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
"""From the beginning: to open a file of SQLite, DuckDB would download one."""
LONGEST_REASON = 400
"""Characters of what DuckDB says of a file."""
QUERY_INTERRUPTED = "Query interrupted"
"""What DuckDB's binding says when it was interrupted, as a RuntimeError."""


def connect(database: str | Path = ":memory:", *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection in UTC that neither downloads nor loads an extension by itself. Before it runs SQL that a user
    wrote, `confine` it.
    """
    try:
        con = duckdb.connect(database, read_only=read_only, config=WITHOUT_EXTENSIONS)
    except duckdb.IOException as error:  # to look at the file before would end the locks that this process holds on it
        if "sqlite_scanner" in str(error):
            raise duckdb.IOException(f"{database} is a database of SQLite, and should be one of DuckDB") from error
        raise
    con.execute("SET TimeZone = 'UTC'")
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


def reason_of(error: BaseException) -> str:
    """What DuckDB, or the system, says of a file: in one line, and not all of a line of the file that it may hold."""
    said = re.split("\n\n|\nPossible fixes", str(error), maxsplit=1)[0]  # how DuckDB is called is none of the user's
    return shortened(" ".join(said.split()), LONGEST_REASON)


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
