"""Whether the reasons of published rows are true: what they state is counted again in `raw_interactions`, by SQL alone.

Nothing of what made the reasons is used, only the tables that readers have, and rows up to the close of the week.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.recommend.reasons import KINDS
from tgn_assets.ml.weeks import week_number

if TYPE_CHECKING:
    import duckdb

NEWEST_DAYS = 27
"""Days before the Monday of the week in which a new event may have been seen first: four weeks in all, less one day."""
ROUNDING = "INTERVAL 20 MILLISECOND"
"""Times are kept to 20 milliseconds: who acted right before midnight may be said to have acted after it."""

CLAIMS_SQL = """
    CREATE OR REPLACE TEMP TABLE claims AS
    SELECT row_number() OVER (ORDER BY user_id NULLS LAST, rank) AS claim, * FROM (
        SELECT user_id, rank, event_id, reason_kind AS kind, reason, reason_parameters AS p
        FROM weekly_top5_predictions WHERE week = $week::DATE AND reason_kind IS NOT NULL
        UNION ALL BY NAME
        SELECT NULL AS user_id, rank, event_id, reason_kind AS kind, reason, reason_parameters AS p
        FROM new_user_top5_predictions WHERE week = $week::DATE AND reason_kind IS NOT NULL
    ) ORDER BY hash(user_id, event_id, $week) LIMIT $rows
"""
"""The reasons of a week, or a sample that depends on the week and the ids alone."""
LOG_SQL = """
    CREATE OR REPLACE TEMP TABLE log AS SELECT user_id, event_id, week, max(ts) AS ts FROM raw_interactions
    WHERE week <= $week::DATE AND (user_id IN (SELECT user_id FROM claims) OR event_id IN (
        SELECT event_id FROM claims UNION ALL SELECT p ->> '$.after' FROM claims WHERE kind = 'next_step'
        UNION ALL SELECT p ->> '$.with' FROM claims WHERE kind = 'together'))
    GROUP BY ALL
"""
"""Of what was known at the close of the week, the rows of users and events that reasons are about."""
FORGOTTEN_SQL = """
    CREATE OR REPLACE TEMP MACRO forgotten() AS
        (SELECT count(*) FROM users WHERE user_id = '') + (SELECT count(*) FROM events WHERE event_id = '');
    CREATE OR REPLACE TEMP MACRO is_count(stated, found) AS
        stated::INTEGER BETWEEN coalesce(found, 0) AND coalesce(found, 0) + forgotten();
"""
"""Whoever was forgotten since is still in the numbers of older lists: these may be higher by so many."""
KIND_SQL: Mapping[str, str] = {
    "repeat": f"""
        WITH found AS (
            SELECT claim, count(*) FILTER (week > $week::DATE - 7 * (p ->> '$.of')::INTEGER) AS weeks, max(ts) AS ts
            FROM claims JOIN log USING (user_id, event_id) WHERE kind = 'repeat' GROUP BY claim)
        SELECT claim, (p ->> '$.weeks')::INTEGER = weeks AND weeks > 0
                      AND (p ->> '$.last')::DATE IN (ts::DATE, (ts + {ROUNDING})::DATE),
               concat(weeks, ' weeks, last at ', ts)
        FROM claims LEFT JOIN found USING (claim) WHERE kind = 'repeat'
    """,
    "next_step": """
        WITH asked AS (SELECT DISTINCT p ->> '$.after' AS other, event_id FROM claims WHERE kind = 'next_step'),
             found AS (
                 SELECT other, asked.event_id, count(*) AS times
                 FROM asked JOIN log AS one ON one.event_id = other
                 JOIN log AS later ON later.event_id = asked.event_id AND later.user_id = one.user_id
                      AND later.week = one.week + 7
                 GROUP BY ALL),
             had AS (SELECT claim FROM claims AS c JOIN log ON log.user_id = c.user_id
                     AND log.event_id = p ->> '$.after' AND week = $week::DATE WHERE kind = 'next_step')
        SELECT claim, had.claim IS NOT NULL AND CASE WHEN (p ->> '$.at_least')::BOOLEAN
                   THEN (p ->> '$.times')::INTEGER <= times OR forgotten() > 0
                   WHEN forgotten() > 0 THEN (p ->> '$.times')::INTEGER >= times
                   ELSE (p ->> '$.times')::INTEGER = times END,
               concat(times, ' times', if(had.claim IS NULL, ', which the user did not have last week', ''))
        FROM claims LEFT JOIN found ON found.event_id = claims.event_id AND other = p ->> '$.after'
        LEFT JOIN had USING (claim) WHERE kind = 'next_step'
    """,
    "together": """
        WITH pairs AS (SELECT DISTINCT user_id, event_id FROM log),
             asked AS (SELECT DISTINCT p ->> '$.with' AS other, event_id FROM claims WHERE kind = 'together'),
             found AS (
                 SELECT other, asked.event_id, count(*) AS users
                 FROM asked JOIN pairs AS one ON one.event_id = other
                 JOIN pairs AS second ON second.event_id = asked.event_id AND second.user_id = one.user_id
                 GROUP BY ALL),
             had AS (SELECT claim FROM claims AS c JOIN pairs ON pairs.user_id = c.user_id
                     AND pairs.event_id = p ->> '$.with' WHERE kind = 'together')
        SELECT claim, had.claim IS NOT NULL AND CASE WHEN (p ->> '$.at_least')::BOOLEAN
                   THEN (p ->> '$.users')::INTEGER <= users + forgotten() ELSE is_count(p ->> '$.users', users) END,
               concat(users, ' users', if(had.claim IS NULL, ', the other of which the user did not have', ''))
        FROM claims LEFT JOIN found ON found.event_id = claims.event_id AND other = p ->> '$.with'
        LEFT JOIN had USING (claim) WHERE kind = 'together'
    """,
    "popular": """
        WITH windows AS (SELECT DISTINCT (p ->> '$.of')::INTEGER AS weeks FROM claims WHERE kind = 'popular'),
             counted AS (
                 SELECT weeks, event_id, count(DISTINCT user_id) AS users FROM raw_interactions
                 JOIN windows ON week > $week::DATE - 7 * weeks AND week <= $week::DATE GROUP BY ALL),
             found AS (SELECT *, rank() OVER (PARTITION BY weeks ORDER BY users DESC) AS place FROM counted)
        SELECT claim, is_count(p ->> '$.users', users)
                      AND (forgotten() > 0 OR (p ->> '$.place')::INTEGER = place),
               concat(users, ' users, place ', place)
        FROM claims LEFT JOIN found ON found.event_id = claims.event_id AND weeks = (p ->> '$.of')::INTEGER
        WHERE kind = 'popular'
    """,
    "new": f"""
        WITH found AS (SELECT event_id, min(week) AS first_week, count(DISTINCT user_id) AS users FROM log
                       WHERE event_id IN (SELECT event_id FROM claims WHERE kind = 'new') GROUP BY event_id)
        SELECT claim, is_count(p ->> '$.users', users) AND first_week >= $week::DATE - {NEWEST_DAYS}
                      AND ((p ->> '$.first_week')::DATE = first_week OR forgotten() > 0),
               concat('first in ', first_week, ', ', users, ' users')
        FROM claims LEFT JOIN found USING (event_id) WHERE kind = 'new'
    """,
    "attributes": """
        WITH own AS (SELECT DISTINCT claim, c.event_id, p ->> '$.column' AS name, log.event_id AS other
                     FROM claims AS c JOIN log ON log.user_id = c.user_id AND log.event_id <> c.event_id
                     WHERE kind = 'attributes'),
             found AS (SELECT claim, count(*) AS others, count(*) FILTER (mine.category = theirs.category) AS same
                       FROM own LEFT JOIN categories AS mine ON mine.event_id = own.event_id AND mine.name = own.name
                       LEFT JOIN categories AS theirs ON theirs.event_id = other AND theirs.name = own.name
                       GROUP BY claim)
        SELECT claim, is_count(p ->> '$.same', same) AND is_count(p ->> '$.of', others) AND same > 0,
               concat(same, ' of ', others, ' others')
        FROM claims LEFT JOIN found USING (claim) WHERE kind = 'attributes'
    """,
    **{
        kind: f"""
        WITH found AS (SELECT event_id, count(DISTINCT user_id) AS users FROM log
                       WHERE event_id IN (SELECT event_id FROM claims WHERE kind = '{kind}') GROUP BY event_id)
        SELECT claim, is_count(p ->> '$.users', users){condition}, concat(users, ' users')
        FROM claims LEFT JOIN found USING (event_id) WHERE kind = '{kind}'
    """
        for kind, condition in {
            "learned": "",
            "variety": " AND (SELECT (policy ->> '$.min_distinct_events')::INTEGER > 0 FROM published_weeks "
            "WHERE week = $week::DATE)",
        }.items()
    },
}
"""For each kind: of each claim whether it is true (NULL: it is not), and what was found instead."""
UNTRUE_SQL = """
    SELECT user_id, rank, event_id, kind, reason, found FROM claims JOIN verdicts USING (claim)
    WHERE holds IS DISTINCT FROM TRUE ORDER BY claim
"""


class ReasonCheck(NamedTuple):
    """How many reasons were counted again, by kind, and those that are not true."""

    checked: dict[str, int]
    untrue: pd.DataFrame  # user_id, rank, event_id, kind, reason, found

    @property
    def message(self) -> str:
        """The outcome in a sentence or two."""
        total = sum(self.checked.values())
        if self.untrue.empty:
            return f"{total} reasons are true." if total else "The lists have no reasons: an older release made them."
        one = self.untrue.iloc[0]
        whose = "the list for new users" if pd.isna(one.user_id) else f"the list of user {str(one.user_id)[:80]!r}"
        return (
            f"{len(self.untrue)} of {total} reasons are not true. In {whose}, rank {one['rank']} ({one.event_id!r}) "
            f"says {one.reason!r}; the log has {one.found}. If rows changed since the lists were made, run "
            "weekly_refresh for the week again."
        )


def check_reasons(
    con: duckdb.DuckDBPyConnection,
    week: str,
    *,
    rows: int | None = None,
    attributes: AttributeTables = NO_ATTRIBUTES,
    events: pd.DataFrame | None = None,
) -> ReasonCheck:
    """Counts again what the reasons of the lists made at the close of `week` state: of a fixed sample of `rows` of
    them, or of all. Makes temporary tables.

    Reasons from attributes need the `attributes` that were read for `events` (`read_nodes`); without `events` they are
    not checked. A reason of an unknown kind is not true.
    """
    con.execute(CLAIMS_SQL, {"week": week, "rows": rows if rows is not None else 2**62})
    con.execute(LOG_SQL, {"week": week})
    con.execute(FORGOTTEN_SQL)
    con.register("category_rows", _categories(attributes, events, week))
    con.execute("CREATE OR REPLACE TEMP TABLE categories AS FROM category_rows")
    con.unregister("category_rows")
    if events is None:
        con.execute("DELETE FROM claims WHERE kind = 'attributes'")
    con.execute("CREATE OR REPLACE TEMP TABLE verdicts (claim BIGINT, holds BOOLEAN, found VARCHAR)")
    for query in KIND_SQL.values():
        given = {"week": week} if "$week" in query else {}
        con.execute(f"INSERT INTO verdicts {query}", given)
    unknown = ", ".join(f"'{kind}'" for kind in KINDS)
    con.execute(f"INSERT INTO verdicts SELECT claim, false, 'no such kind' FROM claims WHERE kind NOT IN ({unknown})")
    checked = con.execute("SELECT kind, count(*) FROM claims GROUP BY kind ORDER BY kind").fetchall()
    return ReasonCheck(dict(checked), con.execute(UNTRUE_SQL).df())


def _categories(attributes: AttributeTables, events: pd.DataFrame | None, week: str) -> pd.DataFrame:
    """event_id, name, category: the known categories of `events` at the close of `week`."""
    parts = [pd.DataFrame({"event_id": pd.Series(dtype=object), "name": pd.Series(dtype=object), "category": 0.0})]
    names = [column for column in attributes.event.columns if column.kind == "category"]
    if events is not None and names:
        values = attributes.event.only(names).at(events.idx.to_numpy(), week_number(week))
        for column, of_column in zip(names, values.T, strict=True):
            rows = pd.DataFrame({"event_id": events.id, "name": column.name, "category": of_column})
            parts.append(rows.dropna())
    return pd.concat(parts, ignore_index=True)
