"""What a load left in the warehouse, week by week, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    SELECT * FROM raw_interactions WHERE week = $week::DATE ORDER BY ts, user_id, event_id LIMIT 10
"""
REJECTED_BY_REASON_SQL = """
    SELECT reason, count(*) FROM rejected_interactions GROUP BY reason ORDER BY count(*) DESC, reason
"""
OUTSIDE_SQL = "SELECT side, reason, rows FROM rows_outside_weeks ORDER BY ALL"
SAMPLE_SQL = """
    SELECT * FROM rejected_interactions
    WHERE week IS NULL OR list_contains($weeks, strftime(week, '%Y-%m-%d')) ORDER BY ALL NULLS FIRST LIMIT 10
"""


@dataclass(frozen=True)
class UnusedRows:
    """Rows of the source that no list is made from. Those that the row filter leaves out are not counted."""

    rejected: Mapping[str, int]
    """By reason, most first: rows of ingested weeks, and of no week that can be known, that cannot be used."""
    before_first_week: int | None
    """Rows that could be used, of weeks before the first one; None where they were not counted (PostgreSQL)."""
    after_last_week: int | None
    """Rows that could be used, of weeks after TGN_END_WEEK; None as above."""
    rejected_outside: Mapping[str, int]
    """By reason, most first: rows of these weeks, before the first or after the last, that cannot be used."""


def unused_rows(con: duckdb.DuckDBPyConnection) -> UnusedRows:
    """What the loads so far left unused, as the tables rejected_interactions and rows_outside_weeks record it."""
    rejected = dict(con.execute(REJECTED_BY_REASON_SQL).fetchall())
    usable, rejected_outside = dict[str, int](), Counter[str]()
    for side, reason, rows in con.execute(OUTSIDE_SQL).fetchall():
        if reason is None:
            usable[side] = rows
        else:
            rejected_outside[reason] += rows
    return UnusedRows(rejected, usable.get("before"), usable.get("after"), dict(rejected_outside.most_common()))


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


def rejected_sample(con: duckdb.DuckDBPyConnection, weeks: Sequence[str]) -> pd.DataFrame:
    """Some rejected rows of `weeks` and of no readable week, which come first."""
    return con.execute(SAMPLE_SQL, {"weeks": list(weeks)}).df()


def first_interactions(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """The rows of `raw_interactions` with which `week` began."""
    return con.execute(INTERACTIONS_SQL, {"week": week}).df()
