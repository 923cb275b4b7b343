"""Everything that a report says about its week, read from the warehouse; nothing newer than the week is read."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pandas as pd

from tgn_assets.ml.data.ingest_stats import UnusedRows, unused_rows
from tgn_assets.ml.monitoring.drift import Drift, drift, read_measures
from tgn_assets.ml.monitoring.trends import quality
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.publications import PublicationTimes, replaced_lists
from tgn_assets.reporting.terminal import LeftOut, left_out, weeks_with_lists
from tgn_assets.state.warehouse import Warehouse, WarehouseError

USERS, MOVES, EVENTS_SHOWN = 6, 8, 8
"""How many users, events with the largest rise and fall, and events of a user the page shows."""

SEEN_SQL = """
    SELECT strftime(min(week), '%Y-%m-%d'), strftime(max(week), '%Y-%m-%d'), count(*) FROM ingested_weeks
    WHERE week <= $week::DATE HAVING max(week) = $week::DATE
"""
ROWS_SQL = """
    SELECT NULL AS reason, count(*) FILTER (WHERE week = $week::DATE), count(*) AS rows FROM raw_interactions
    WHERE week <= $week::DATE
    UNION ALL
    SELECT reason, count(*) FILTER (WHERE week = $week::DATE), count(*) AS rows FROM rejected_interactions
    WHERE week <= $week::DATE GROUP BY reason ORDER BY reason NULLS FIRST
"""
UNDATED_SQL = """
    SELECT reason, count(*) FROM rejected_interactions WHERE week IS NULL GROUP BY reason ORDER BY 2 DESC, 1
"""
SIZE_SQL = """
    SELECT count(*) AS interactions, count(DISTINCT user_id) AS users, count(DISTINCT event_id) AS events
    FROM raw_interactions WHERE week = $week::DATE
"""
METRICS_SQL = "SELECT * FROM eval_metrics WHERE week = $week::DATE ORDER BY ALL"
LISTS_SQL = """
    SELECT source, count(*) FROM weekly_top5_predictions WHERE week = $week::DATE AND rank = 1
    GROUP BY source ORDER BY 2 DESC, 1
"""
PUBLISHED_BEFORE_SQL = "SELECT count(*) > 0 FROM weekly_top5_predictions WHERE week = $week::DATE - 7"
MOVES_SQL = """
    WITH lists AS (
        SELECT event_id, count(*) FILTER (WHERE week < $week::DATE) AS before,
               count(*) FILTER (WHERE week = $week::DATE) AS now,
               count(*) FILTER (WHERE week < $week::DATE AND rank = 1) AS first_before,
               count(*) FILTER (WHERE week = $week::DATE AND rank = 1) AS first_now
        FROM weekly_top5_predictions WHERE week IN ($week::DATE, $week::DATE - 7) GROUP BY event_id
    ), shares AS (
        SELECT event_id, before / (SELECT sum(first_before) FROM lists) AS before,
               now / (SELECT sum(first_now) FROM lists) AS now
        FROM lists
    )
    SELECT event_id, before, now, now - before AS change FROM shares
    WHERE isfinite(before) AND isfinite(now) AND before <> now ORDER BY change DESC, event_id
"""
"""By event: its share of the lists of the week before, and of this week's."""
SAMPLE_SQL = f"""
    SELECT user_id FROM weekly_top5_predictions
    WHERE week = $week::DATE - 7 AND rank = 1
      AND user_id IN (SELECT user_id FROM raw_interactions WHERE week = $week::DATE)
    ORDER BY md5(user_id), user_id LIMIT {USERS}
"""
ROWS_OF_SQL = """
    CREATE OR REPLACE TEMP TABLE shown AS SELECT user_id, event_id, ts, week FROM raw_interactions
    WHERE week <= $week::DATE AND user_id IN (SELECT unnest($users::VARCHAR[]))
"""
LISTS_OF_SQL = """
    CREATE OR REPLACE TEMP TABLE listed AS
    SELECT user_id, rank, event_id, score, source, reason FROM weekly_top5_predictions
    WHERE week = $week::DATE - 7 AND user_id IN (SELECT unnest($users::VARCHAR[]))
"""
"""All rows of the users on the page: the tables are read once, and not once for each user."""
PAST_SQL = """
    SELECT event_id, count(*) AS times FROM shown WHERE user_id = $user AND week < $week::DATE
    GROUP BY event_id ORDER BY max(ts) DESC, event_id
"""
PAST_WEEKS_SQL = "SELECT count(DISTINCT week) FROM shown WHERE user_id = $user AND week < $week::DATE"
LIST_SQL = "SELECT event_id, score, reason, source FROM listed WHERE user_id = $user ORDER BY rank"
THEN_SQL = """
    SELECT event_id, count(*) AS times FROM shown WHERE user_id = $user AND week = $week::DATE
    GROUP BY event_id ORDER BY times DESC, event_id
"""


@dataclass(frozen=True)
class UserExample:
    """A user who was active in the week."""

    user: str
    past_weeks: int
    past: list[tuple[str, int]]  # (event, times) before the week, newest first
    listed: list[tuple[str, float, str | None]]  # the list made for the week: (event, score, reason)
    source: str  # whose list it was
    then: list[tuple[str, int]]  # (event, times) in the week, most often first

    @property
    def interacted(self) -> set[str]:
        """The events of the week."""
        return {event for event, _ in self.then}

    @property
    def hits(self) -> int:
        """How many of the week's events were on the list."""
        return sum(event in self.interacted for event, *_ in self.listed)


@dataclass(frozen=True)
class Facts:
    """Everything that a report says about `week`, except run times. `quality` and `measures` reach further back."""

    week: str
    seen: tuple[str, str, int]  # the first and the last ingested week up to this one, and how many there are
    rows: list[tuple[str | None, int, int]]  # (reason; None: accepted), rows of the week, rows up to the week
    undated: dict[str, int]  # by reason: rows whose week cannot be known, as of the newest load
    unused: UnusedRows
    size: dict[str, int]
    metrics: pd.DataFrame  # the week's rows of `eval_metrics`
    metrics_before: pd.DataFrame  # those of the week before
    quality: pd.DataFrame
    lists: dict[str, int]  # users by the source of the list made for them at the close of the week
    published_before: bool  # whether the week before has lists, and so a page
    replaced: PublicationTimes | None  # when the lists that the page scores took the place of others
    left_out: LeftOut | None  # who has no list of the close of the week
    moves: pd.DataFrame  # event_id, before, now, change: shares of lists, the largest rise first
    examples: list[UserExample]
    measures: pd.DataFrame
    drift: list[Drift]


def newest_week(warehouse: Warehouse) -> str:
    """The newest week with published lists; WarehouseError if there is none."""
    with warehouse.reader() as con:
        weeks = weeks_with_lists(con)
    if not weeks:
        raise WarehouseError("no lists were published yet, so there is nothing to report; run `tgn refresh`")
    return weeks[-1]


def read_facts(warehouse: Warehouse, week: str) -> Facts:
    """The facts about `week`; WarehouseError if it was never ingested."""
    asked = {"week": week}
    with warehouse.reader() as con:
        if (seen := con.execute(SEEN_SQL, asked).fetchone()) is None:
            raise WarehouseError(
                f"there is nothing to report: week {week} is not ingested; run `tgn refresh --week {week}`"
            )
        measures = read_measures(con, week)
        return Facts(
            week=week,
            seen=seen,
            rows=con.execute(ROWS_SQL, asked).fetchall(),
            undated=dict(con.execute(UNDATED_SQL).fetchall()),
            unused=unused_rows(con),
            size=dict(con.execute(SIZE_SQL, asked).df().iloc[0]),
            metrics=con.execute(METRICS_SQL, asked).df(),
            metrics_before=con.execute(METRICS_SQL, {"week": shift(week, -1)}).df(),
            quality=quality(con, week),
            lists=dict(con.execute(LISTS_SQL, asked).fetchall()),
            published_before=con.execute(PUBLISHED_BEFORE_SQL, asked).fetchall()[0][0],
            replaced=replaced_lists(con, shift(week, -1)),
            left_out=left_out(con, week),
            moves=con.execute(MOVES_SQL, asked).df(),
            examples=_examples(con, week),
            measures=measures,
            drift=drift(measures),
        )


def _examples(con: duckdb.DuckDBPyConnection, week: str) -> list[UserExample]:
    users = [user for (user,) in con.execute(SAMPLE_SQL, {"week": week}).fetchall()]
    for query in (ROWS_OF_SQL, LISTS_OF_SQL):
        con.execute(query, {"week": week, "users": users})
    return [_example(con, week, user) for user in users]


def _example(con: duckdb.DuckDBPyConnection, week: str, user: str) -> UserExample:
    asked = {"week": week, "user": user}
    listed = con.execute(LIST_SQL, {"user": user}).fetchall()
    return UserExample(
        user=user,
        past_weeks=con.execute(PAST_WEEKS_SQL, asked).fetchall()[0][0],
        past=con.execute(PAST_SQL, asked).fetchall(),
        listed=[row[:3] for row in listed],
        source=listed[0][3],
        then=con.execute(THEN_SQL, asked).fetchall(),
    )
