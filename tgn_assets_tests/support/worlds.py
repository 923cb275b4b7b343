"""Small worlds for tests: rows of (user, event, week offset, times) in an in-memory warehouse."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import HISTORY_SQL, InteractionHistory
from tgn_assets.ml.graph.snapshots import Snapshot, read_snapshot
from tgn_assets.ml.schema import create_tables
from tgn_assets.ml.weeks import shift

START = "2024-01-01"
Row = tuple[str, str, int, int]


def warehouse(rows: Iterable[Row]) -> duckdb.DuckDBPyConnection:
    """An in-memory warehouse with `times` interactions of each (user, event, week offset from START, times)."""
    con = duckdb.connect()
    create_tables(con)
    monday = datetime.fromisoformat(START)
    flat = [
        (user, event, monday + timedelta(weeks=week, hours=hour), shift(START, week))
        for user, event, week, times in rows
        for hour in range(times)
    ]
    if flat:
        frame = pd.DataFrame(flat, columns=["user_id", "event_id", "ts", "week"])  # noqa: F841 (DuckDB reads it by name)
        con.execute("INSERT INTO raw_interactions SELECT user_id, event_id, ts, week::DATE FROM frame")
    for kind in ("user", "event"):
        con.execute(
            f"INSERT INTO {kind}s SELECT {kind}_id, row_number() OVER (ORDER BY first_week, {kind}_id) - 1, first_week "
            f"FROM (SELECT {kind}_id, min(week) AS first_week FROM raw_interactions GROUP BY ALL)"
        )
    return con


def history(rows: Iterable[Row], week: int) -> InteractionHistory:
    """The history at the close of the week `week` weeks after START."""
    key = shift(START, week)
    return InteractionHistory.from_frame(warehouse(rows).execute(HISTORY_SQL, {"week": key}).df(), key)


def snapshots(rows: Iterable[Row], weeks: range) -> dict[str, Snapshot]:
    """Snapshots of the given weeks, by key."""
    con = warehouse(rows)
    return {shift(START, week): read_snapshot(con, shift(START, week)) for week in weeks}


def habits(users: int = 40, events: int = 20, weeks: int = 12, seed: int = 0) -> list[Row]:
    """Two communities whose users mostly repeat two habits of their own, and try other events of their community."""
    rows: list[Row] = []
    half = events // 2
    for user in range(users):
        rng = np.random.default_rng([seed, user])  # more weeks or users leave the others as they were
        pool = np.arange(half) + half * (user % 2)
        own = rng.choice(pool, 2, replace=False)
        for week in range(weeks):
            chosen = {int(event) for event in own if rng.random() < 0.8} | {int(rng.choice(pool))}
            rows += [(f"u{user:03}", f"e{event:03}", week, 1) for event in sorted(chosen)]
    return rows
