"""`current.duckdb`, a copy of what is published, for readers: who holds the warehouse open keeps the next run waiting.

It is a new file each time, under the same name. Who has the old one open goes on reading that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.schema import LISTS, NEWEST_WEEK, VIEWS, literal, quoted
from tgn_assets.state.lineage import EVAL_METRICS

if TYPE_CHECKING:
    import duckdb

NAME = "current.duckdb"
WHOLE = ("published_weeks", EVAL_METRICS)
"""Of the lists, only the newest week is copied: all of them would be copied every week anew."""
NEWEST_PUBLISHED = f"greatest({NEWEST_WEEK}, (SELECT max(week) FROM published_weeks))"
"""It has no list at all once every user or event is forgotten."""


def write_copy(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Replaces the copy in `folder` by what the warehouse `con` holds now."""
    fresh = folder / f"{NAME}.new"
    fresh.unlink(missing_ok=True)
    (main,) = con.execute("SELECT current_database()").fetchall()[0]
    con.execute(f"ATTACH {literal(str(fresh))} AS published")
    try:
        for table in WHOLE:
            con.execute(f"CREATE TABLE published.{table} AS FROM {table}")
        for table in LISTS:
            con.execute(f"CREATE TABLE published.{table} AS FROM {table} WHERE week = {NEWEST_PUBLISHED}")
        con.execute("USE published")
        for name, view in VIEWS.items():
            con.execute(f"CREATE VIEW {name} AS {view.query}")
    finally:
        con.execute(f"USE {quoted(main)}")
        con.execute("DETACH published")
    fresh.replace(folder / NAME)


def newest_week(copy: Path) -> str | None:
    """The week whose lists the file `copy` has; duckdb.Error if it cannot be read."""
    with connect(copy, read_only=True) as con:
        for table in (*WHOLE, *LISTS):
            con.execute(f"SELECT sum(hash(t)::HUGEINT) FROM {table} AS t").fetchall()
        (week,) = con.execute(f"SELECT strftime({NEWEST_PUBLISHED}, '%Y-%m-%d')").fetchall()[0]
    return week
