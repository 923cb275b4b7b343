"""The weeks up to one, side by side: how much there was, how good and how broad the lists. Nothing later is read."""

from __future__ import annotations

import duckdb
import pandas as pd

from tgn_assets.ml.evaluation.metric_names import UNPUBLISHED

WEEKS = 26
"""How far back a trend looks."""

ACTIVITY_SQL = """
    SELECT week, count(*) AS interactions, count(DISTINCT user_id) AS users, count(DISTINCT event_id) AS events
    FROM raw_interactions WHERE week <= $week::DATE AND week > $week::DATE - 7 * $weeks GROUP BY week ORDER BY week
"""
QUALITY_SQL = """
    SELECT week, model, value, ci_low, ci_high FROM eval_metrics
    WHERE week <= $week::DATE AND week > $week::DATE - 7 * $weeks
      AND metric = 'ndcg' AND segment = 'all' AND isfinite(value) AND NOT list_contains($unpublished, model)
    ORDER BY model, week
"""
"""Published lists and baselines only: the other models know the truth or were not published."""
CATALOGUE_SQL = """
    SELECT week, distinct_events AS recommended, (SELECT count(*) FROM events WHERE first_week <= week) AS known
    FROM published_weeks WHERE week <= $week::DATE AND week > $week::DATE - 7 * $weeks AND users > 0 ORDER BY week
"""


def activity(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """week, interactions, users, events: a row for each of the `WEEKS` weeks up to `week` that has interactions."""
    return con.execute(ACTIVITY_SQL, {"week": week, "weeks": WEEKS}).df()


def quality(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """week, model, value, ci_low, ci_high: NDCG@5 over all active users, of ours and each baseline, up to `week`."""
    return con.execute(QUALITY_SQL, {"week": week, "weeks": WEEKS, "unpublished": list(UNPUBLISHED)}).df()


def catalogue_use(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """week, recommended, known: events on some list, and events known then, of each published week up to `week`."""
    return con.execute(CATALOGUE_SQL, {"week": week, "weeks": WEEKS}).df()
