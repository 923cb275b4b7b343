"""Takes ids out of the tables of the warehouse, and out of the bytes of its file."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import duckdb

from tgn_assets.forget.spelling import Ids
from tgn_assets.ml.connectors.duckdb_session import transaction
from tgn_assets.ml.connectors.text_file import sync
from tgn_assets.ml.schema import EVENT, LISTS, TABLES, USER, literal, quoted
from tgn_assets.ml.sources.extent import DIGEST_SQL, digest
from tgn_assets.state.lineage import PREDICTIONS, carry_over, digest_of_rows, read_lineage
from tgn_assets.state.warehouse import RECORDED_BY, StateError, Warehouse

TOMBSTONE = ""
"""Stands in `users` and `events` for an id that was forgotten: its index is never given again, and no id is empty."""
WITHOUT_IDS = {
    "rejected_interactions": {"reason"},
    "rows_outside_weeks": {"side", "reason"},
    "ingested_weeks": {"digest"},
    "made_weeks": {"asset", "digest", "made_from"},
    "weekly_top5_predictions": {"source", "reason_kind"},
    "new_user_top5_predictions": {"source", "reason_kind"},
    "eval_metrics": {"model", "segment", "metric"},
    "eval_user_groups": {"model", "segment"},
}
"""Columns of text with words of our own and digests. Any other column of text is searched for ids."""
PATIENCE = 600.0
"""Seconds to wait for whoever opened the file in the moment between two of our steps."""

GONE_SQL = "CREATE OR REPLACE TEMP TABLE gone AS SELECT DISTINCT unnest($names::VARCHAR[]) AS id"
TOUCHED_SQL = """
    CREATE OR REPLACE TEMP TABLE touched AS SELECT DISTINCT week, {other}_id AS id FROM raw_interactions
    WHERE {kind}_id IN (FROM gone)
"""
TOMBSTONE_SQL = "UPDATE {kind}s SET {kind}_id = $tombstone, first_week = NULL WHERE {kind}_id IN (FROM gone)"
FIRST_WEEK_SQL = """
    UPDATE {other}s SET first_week =
        (SELECT min(week) FROM raw_interactions AS r WHERE r.{other}_id = {other}s.{other}_id)
    WHERE {other}_id IN (SELECT id FROM touched)
"""
INGESTED_SQL = f"""
    SELECT week, count(user_id), {DIGEST_SQL} FILTER (WHERE user_id IS NOT NULL)
    FROM (SELECT DISTINCT week FROM touched) LEFT JOIN raw_interactions USING (week) GROUP BY week
"""
RANK_SQL = """
    UPDATE {table} SET rank = closed.rank FROM (
        SELECT rowid AS row, row_number() OVER (PARTITION BY {keys} ORDER BY rank) AS rank FROM {table}
        WHERE week = $week
    ) AS closed WHERE {table}.rowid = closed.row AND {table}.rank <> closed.rank
"""
PUBLISHED_SQL = """
    UPDATE published_weeks SET users = lists.users, distinct_events = lists.events
    FROM (SELECT count(DISTINCT user_id) AS users, count(DISTINCT event_id) AS events FROM weekly_top5_predictions
          WHERE week = $week) AS lists WHERE week = $week
"""
NO_REASON_SQL = """
    UPDATE {table} SET reason_kind = NULL, reason = NULL, reason_parameters = NULL
    WHERE reason_parameters ->> '$.after' IN (FROM gone) OR reason_parameters ->> '$.with' IN (FROM gone)
"""
"""A sentence that names a forgotten event goes as a whole: a short id in it could not be told from other words."""
TOMBSTONES_SQL = "SELECT {kind}_idx FROM {kind}s WHERE {kind}_id = $tombstone ORDER BY 1"


def count_rows(con: duckdb.DuckDBPyConnection, kind: str, names: Iterable[str]) -> tuple[int, int, int]:
    """How many of the ids `names` the warehouse has, and how many rows of the log and of published lists are theirs."""
    con.execute(GONE_SQL, {"names": list(names)})

    def count(*of: str) -> int:
        having = [table for table in of if f"{kind}_id" in TABLES[table].names]
        query = "SELECT count(*) FROM {} WHERE {}_id IN (FROM gone)"
        return sum(con.execute(query.format(table, kind)).fetchall()[0][0] for table in having)

    counts = count(f"{kind}s"), count("raw_interactions"), count(*LISTS)
    con.execute("DROP TABLE gone")
    return counts


def remove_ids(con: duckdb.DuckDBPyConnection, kind: str, ids: Ids, locations: Collection[str]) -> tuple[int, int]:
    """Takes the `ids` of users or events out of all tables of the warehouse `con`, in one transaction; returns how many
    rows of the log and of published lists were theirs.

    Rows of theirs go; in `users` and `events` the index stays without the id; in other texts the id is replaced. What
    was made from these rows counts as up to date: no week is to be run again, and nothing is published again.
    `locations` are digests of those of the exports that will be cleaned, too.
    """
    other = EVENT if kind == USER else USER
    with transaction(con):
        before, (_, rows, listed) = read_lineage(con), count_rows(con, kind, ids.names)
        con.execute(GONE_SQL, {"names": sorted(ids.names)})
        con.execute(TOUCHED_SQL.format(kind=kind, other=other))
        lists = {week for table in LISTS for week in _weeks_of(con, table, kind)}
        con.execute(TOMBSTONE_SQL.format(kind=kind), {"tombstone": TOMBSTONE})
        for table in LISTS if kind == EVENT else ():
            con.execute(NO_REASON_SQL.format(table=table))
        for table, columns in _text_columns(con).items():
            if f"{kind}_id" in columns and table != f"{kind}s":
                con.execute(f"DELETE FROM {quoted(table)} WHERE {kind}_id IN (FROM gone)")
            for column in _free_columns(table, columns):
                _scrub(con, table, column, ids)
        con.execute(FIRST_WEEK_SQL.format(other=other))
        for week, count, total in con.execute(INGESTED_SQL).fetchall():
            con.execute(
                "UPDATE ingested_weeks SET rows = ?, digest = ? WHERE week = ?", [count, digest(count, total), week]
            )
        for week in lists:
            _close_lists(con, week)
        con.execute("DROP TABLE gone; DROP TABLE touched")
        carry_over(con, before, locations)
    return rows, listed


def tombstones(con: duckdb.DuckDBPyConnection) -> dict[str, list[int]]:
    """The indices of forgotten users and events."""
    return {
        kind: [idx for (idx,) in con.execute(TOMBSTONES_SQL.format(kind=kind), {"tombstone": TOMBSTONE}).fetchall()]
        for kind in (USER, EVENT)
    }


def _text_columns(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The columns of text of all tables, those that are none of ours included."""
    query = """
        SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() JOIN duckdb_tables()
        USING (database_oid, schema_oid, table_oid, table_name)
        WHERE NOT duckdb_columns.internal AND NOT temporary AND data_type = 'VARCHAR' GROUP BY table_name
    """
    return dict(con.execute(query).fetchall())


def _free_columns(table: str, columns: Iterable[str]) -> list[str]:
    """Those of `columns` that may name an id in the middle of a text."""
    ids = () if table == "rejected_interactions" else ("user_id", "event_id")  # there they hold whatever came in
    return [column for column in columns if column not in ids and column not in WITHOUT_IDS.get(table, ())]


def _scrub(con: duckdb.DuckDBPyConnection, table: str, column: str, ids: Ids) -> None:
    """Replaces the ids in the texts of a column."""
    table, column = quoted(table), quoted(column)
    query = f"SELECT DISTINCT {column} FROM {table}, (SELECT unnest($needles::VARCHAR[]) AS needle) AS needles"
    found = con.execute(f"{query} WHERE contains({column}, needle)", {"needles": ids.needles}).fetchall()
    for (text,) in found:
        if (clean := ids.without_in_json(text)) != text:
            con.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", [clean, text])


def _weeks_of(con: duckdb.DuckDBPyConnection, table: str, kind: str) -> list[str]:
    if f"{kind}_id" not in TABLES[table].names:
        return []
    query = f"SELECT DISTINCT strftime(week, '%Y-%m-%d') FROM {table} WHERE {kind}_id IN (FROM gone)"
    return [week for (week,) in con.execute(query).fetchall()]


def _close_lists(con: duckdb.DuckDBPyConnection, week: str) -> None:
    """Closes the ranks of the lists of `week`, counts them anew, and records what they hold now."""
    asked = {"week": week}
    for table in LISTS:
        keys = ", ".join(name for name in ("week", "user_id") if name in TABLES[table].names)
        con.execute(RANK_SQL.format(table=table, keys=keys), asked)
    con.execute(PUBLISHED_SQL, asked)
    recorded = digest_of_rows(con, [table for table, asset in RECORDED_BY.items() if asset == PREDICTIONS], week)
    con.execute("UPDATE made_weeks SET digest = ? WHERE week = ? AND asset = ?", [recorded, week, PREDICTIONS])


@contextmanager
def rewritten(warehouse: Warehouse) -> Iterator[None]:
    """Replaces the file of the warehouse by a copy: what was deleted from a DuckDB file stays in its free blocks.

    The new file takes the place of the old one in one step; whoever is killed before leaves the old one. Within, nobody
    writes to the old file unseen: it stays locked.
    """
    path = warehouse.path
    fresh = path.with_name(f"{path.name}.new")
    wal = path.with_name(f"{path.name}.wal")
    deadline = time.monotonic() + PATIENCE
    while True:
        for left in (fresh, fresh.with_name(f"{fresh.name}.wal")):
            left.unlink(missing_ok=True)
        with warehouse.writer() as con:
            (main,) = con.execute("SELECT current_database()").fetchall()[0]
            con.execute(f"ATTACH {literal(str(fresh))} AS rewritten")
            con.execute(f"COPY FROM DATABASE {quoted(main)} TO rewritten")
            con.execute("DETACH rewritten")
            con.execute("FORCE CHECKPOINT")
            before = _state(path)
        with path.open("r+b") as old:
            if _locked(old) and _state(path) == before and not wal.exists():
                sync(fresh)
                fresh.replace(path)
                sync(path.parent)
                yield
                return
        if time.monotonic() > deadline:
            raise StateError(f"{path} is written to all the time: stop who does so, and run it again")


def _locked(file: IO[bytes]) -> bool:
    """Whether the lock on `file` could be taken, of DuckDB's own kind: whoever comes next finds it taken, and waits."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
