"""What a load left in the warehouse, week by week, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

ROWS_SQL = """
    SELECT strftime(week, '%Y-%m-%d') AS week, count(*) AS rows, count(DISTINCT user_id) AS users,
           count(DISTINCT event_id) AS events
    FROM raw_interactions WHERE list_contains($weeks, strftime(week, '%Y-%m-%d')) GROUP BY week
"""
REJECTED_SQL = """
    SELECT strftime(week, '%Y-%m-%d') AS week, 'rejected/' || reason AS name, count(*) AS rows
    FROM rejected_interactions WHERE list_contains($weeks, strftime(week, '%Y-%m-%d')) GROUP BY ALL ORDER BY ALL
"""
INTERACTIONS_SQL = """
    SELECT * FROM raw_interactions WHERE week = $week::DATE ORDER BY ts, user_id, event_id LIMIT $limit
"""
SAMPLE_SQL = """
    SELECT * FROM rejected_interactions
    WHERE week IS NULL OR list_contains($weeks, strftime(week, '%Y-%m-%d')) ORDER BY ALL NULLS FIRST LIMIT $limit
"""


def week_numbers(con: duckdb.DuckDBPyConnection, weeks: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each of `weeks`: rows, users and events, and rows rejected, in all and as `rejected/<reason>`."""
    asked = {"weeks": list(weeks)}
    numbers = {week: {"rows": 0, "users": 0, "events": 0, "rejected": 0} for week in weeks}
    for week, rows, users, events in con.execute(ROWS_SQL, asked).fetchall():
        numbers[week] |= {"rows": rows, "users": users, "events": events}
    for week, name, rows in con.execute(REJECTED_SQL, asked).fetchall():
        numbers[week][name] = rows
        numbers[week]["rejected"] += rows
    return numbers


def rejected_sample(con: duckdb.DuckDBPyConnection, weeks: Sequence[str], limit: int = 10) -> pd.DataFrame:
    """Some rejected rows of `weeks` and of no readable week, which come first."""
    return con.execute(SAMPLE_SQL, {"weeks": list(weeks), "limit": limit}).df()


def first_interactions(con: duckdb.DuckDBPyConnection, week: str, limit: int = 10) -> pd.DataFrame:
    """The rows of `raw_interactions` with which `week` began."""
    return con.execute(INTERACTIONS_SQL, {"week": week, "limit": limit}).df()
