"""What a week is scored from, read from the warehouse: the hits of everybody, and the rows of drawn users.

The published lists meet what happened in joins of DuckDB, which go to disk where memory ends. Into Python come the
number of users of each kind, and the rows of no more users than were asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import BoolArray, IntArray

MEMORY = "4GB"
"""What the joins may take before they go on on disk."""
USER_GROUPS = 1024
"""Groups of users whose sums are kept, week by week: what they have in common over weeks is in the intervals."""
BINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Edges of the bins of published scores in which predicted and observed frequency are compared."""
ONE = 2**52
"""Sums are of whole numbers, a score of one being this many: exact, so that no order of the rows changes a digit."""

PAIRS_SQL = """
    CREATE OR REPLACE TEMP TABLE pairs AS
    WITH pairs AS MATERIALIZED (SELECT DISTINCT user_id, event_id FROM raw_interactions WHERE week = $week::DATE),
         past AS (SELECT DISTINCT user_id, event_id FROM raw_interactions SEMI JOIN pairs USING (user_id, event_id)
                  WHERE week < $week::DATE)
    SELECT user_id, event_id, past.user_id IS NOT NULL AS repeat FROM pairs LEFT JOIN past USING (user_id, event_id)
"""
"""The distinct pairs of `$week`; `repeat`: the user had interacted with the event before."""
LISTS_SQL = """
    CREATE OR REPLACE TEMP TABLE lists AS
    SELECT user_id, rank, event_id, score, source, reason_kind FROM weekly_top5_predictions
    WHERE week = $week::DATE - 7 AND user_id IN (SELECT user_id FROM pairs)
"""
"""The lists of active users."""
NEW_USER_LIST_SQL = """
    SELECT rank, event_id, coalesce(event_idx, -1), score
    FROM new_user_top5_predictions LEFT JOIN events USING (event_id)
    WHERE week = $week::DATE - 7 ORDER BY rank
"""
ACTIVE_SQL = """
    CREATE OR REPLACE TEMP TABLE active AS
    WITH active AS (SELECT user_id, count(*) AS events, bool_or(repeat) AS repeats, bool_or(NOT repeat) AS explores
                    FROM pairs GROUP BY user_id),
         made AS (SELECT user_id, min(source) AS source FROM lists GROUP BY user_id),
         hits AS (SELECT user_id, bit_or(1::HUGEINT << (rank - 1)) AS hits FROM (
                      SELECT user_id, rank FROM pairs JOIN lists USING (user_id, event_id)
                      UNION ALL
                      SELECT user_id, rank FROM pairs JOIN new_user_list USING (event_id) ANTI JOIN made USING (user_id)
                  ) GROUP BY user_id)
    SELECT user_id, user_idx, events, repeats, explores, source, coalesce(hits, 0) AS hits
    FROM active LEFT JOIN made USING (user_id) LEFT JOIN hits USING (user_id)
    LEFT JOIN (SELECT user_id, user_idx FROM users WHERE first_week < $week::DATE) USING (user_id)
"""
"""The users of `$week`, those without a list on the one for new users; bit r - 1 of `hits` is the one at rank r."""
KINDS_SQL = """
    SELECT hits, events, user_idx IS NOT NULL AS seen, repeats, explores, source, count(*) FROM active
    GROUP BY ALL ORDER BY ALL
"""
LISTED_SQL = """
    SELECT count(DISTINCT event_id) FROM (
        SELECT event_id FROM lists
        UNION ALL
        SELECT event_id FROM new_user_list WHERE EXISTS (FROM active WHERE source IS NULL)
    ) JOIN events USING (event_id) WHERE first_week < $week::DATE
"""
SCORES_SQL = """
    SELECT {bin} AS bin, count(*), sum(round(score * $one)::BIGINT), sum(round(score * score * $one)::BIGINT),
           min(rank), max(rank)
    FROM weekly_top5_predictions WHERE week = $week::DATE - 7 GROUP BY bin
"""
HITS_SQL = """
    SELECT {bin} AS bin, count(*), sum(round(score * $one)::BIGINT) FROM lists JOIN pairs USING (user_id, event_id)
    GROUP BY bin
"""
REASONS_SQL = """
    SELECT reason_kind, count(*), count(pairs.user_id) FROM lists LEFT JOIN pairs USING (user_id, event_id)
    WHERE reason_kind IS NOT NULL GROUP BY reason_kind ORDER BY reason_kind
"""
OVERLAP_SQL = """
    WITH before AS (SELECT user_id, event_id FROM weekly_top5_predictions WHERE week = $week::DATE - 14),
         common AS (SELECT user_id, count(before.event_id) AS common, count(*) AS listed
                    FROM lists SEMI JOIN (SELECT DISTINCT user_id FROM before) USING (user_id)
                    LEFT JOIN before USING (user_id, event_id) GROUP BY user_id)
    SELECT common, listed, count(*) FROM common GROUP BY ALL ORDER BY ALL
"""
"""How many active users had so many events on their list, and so many of these on their list of the week before."""
SOURCES_SQL = "SELECT DISTINCT source FROM weekly_top5_predictions WHERE week = $week::DATE - 7 ORDER BY source"
INTERACTIONS_SQL = "SELECT count(*) FROM raw_interactions WHERE week = $week::DATE"
DRAWN_SQL = """
    CREATE OR REPLACE TEMP TABLE drawn AS
    SELECT row_number() OVER (ORDER BY user_id) - 1 AS row, user_id, coalesce(user_idx, -1) AS user_idx, repeats,
           explores, source, md5_number_lower(user_id) % $groups AS user_group
    FROM (FROM active ORDER BY md5(concat($week, ' ', user_id)), user_id LIMIT $users)
"""
"""The draw depends on the week and the ids alone, the group on the id."""
DRAWN_TRUTH_SQL = """
    SELECT row, event_idx FROM pairs JOIN drawn USING (user_id) JOIN events USING (event_id) ORDER BY ALL
"""
DRAWN_LISTS_SQL = """
    SELECT row, rank, coalesce(event_idx, -1) AS event_idx FROM lists JOIN drawn USING (user_id)
    LEFT JOIN events USING (event_id) ORDER BY ALL
"""


class ScoreBin(NamedTuple):
    """The published pairs whose score lies in one of `BINS`; sums in units of 1 / `ONE`."""

    bin: int  # index in `BINS` of its lower edge
    pairs: int
    hits: int
    scores: int  # sum of the scores
    errors: int  # sum of the squared differences between score and what happened


class ReasonHits(NamedTuple):
    """The pairs on the lists of active users whose reason is of one kind."""

    kind: str
    pairs: int
    hits: int


@dataclass(frozen=True)
class PublishedResult:
    """How the published lists did with all active users."""

    kinds: pd.DataFrame
    """hits, events, seen, repeats, explores, source (None: the list for new users), users: how many users had these
    hits (bit r - 1: at rank r) and so many distinct events, in a fixed order."""
    sources: list[str]  # of all lists, those of users who were not active as well
    distinct_events: int  # known events on the lists of active users
    bins: list[ScoreBin]  # of all lists, in ascending order
    new_user_bins: list[ScoreBin]  # of the list for new users, once for each new user
    overlap: pd.DataFrame
    """common, listed, users: how many active users had `listed` events on their list, `common` of them on that of the
    week before as well; of users who had both lists."""
    interactions: int
    reasons: list[ReasonHits] = field(default_factory=list)  # in ascending order of kind

    @property
    def users(self) -> int:
        """How many users were active."""
        return int(self.kinds.users.sum())


@dataclass(frozen=True)
class DrawnUsers:
    """n active users in ascending order of their ids, what they were shown and what they did, by warehouse indices."""

    user_idx: IntArray  # [n] -1 for a user without a history
    repeats: BoolArray  # [n] interacted with an event of their own past
    explores: BoolArray  # [n] interacted with one that is not
    user_group: IntArray  # [n] a user is in the same of `USER_GROUPS` in every week
    source: np.ndarray  # [n] whose list it was; None for the list for new users
    lists: pd.DataFrame  # row (of the n users), rank, event_idx: lists of their own; -1 for an event that is gone
    truth: pd.DataFrame  # row, event_idx: distinct pairs
    new_user_list: IntArray  # event_idx of the list for new users, by rank


@dataclass(frozen=True)
class EvaluationInput:
    """What the lists for a week are scored from."""

    published: PublishedResult
    drawn: DrawnUsers


def read_evaluation_input(
    con: duckdb.DuckDBPyConnection, week: str, *, k: int, users: int = 0
) -> EvaluationInput | None:
    """What the lists of up to `k` events that were published for `week` are scored from; None if none were published.

    `users` of the active users are drawn, by a hash of the week and their ids; everybody if there are no more, or if it
    is 0. Makes temporary tables. ValueError if a rank is outside of 1 to `k`.
    """
    given = {"week": week}
    con.execute(f"SET memory_limit = '{MEMORY}'")
    new_user_list = con.execute(NEW_USER_LIST_SQL, given).fetchall()
    if not new_user_list:
        return None
    con.execute("CREATE OR REPLACE TEMP TABLE new_user_list (rank INTEGER, event_id VARCHAR)")
    con.executemany("INSERT INTO new_user_list VALUES (?, ?)", [row[:2] for row in new_user_list])
    for query in (PAIRS_SQL, LISTS_SQL):
        con.execute(query, given)
    bins = _score_bins(con, week, k)
    con.execute(ACTIVE_SQL, given)
    columns = ["hits", "events", "seen", "repeats", "explores", "source", "users"]
    kinds = pd.DataFrame(con.execute(KINDS_SQL).fetchall(), columns=columns)
    kinds = kinds.astype({"hits": object, "source": object, "events": np.int64, "users": np.int64})
    overlap = pd.DataFrame(con.execute(OVERLAP_SQL, given).fetchall(), columns=["common", "listed", "users"])
    published = PublishedResult(
        kinds=kinds,
        sources=[source for (source,) in con.execute(SOURCES_SQL, given).fetchall()],
        distinct_events=con.execute(LISTED_SQL, given).fetchall()[0][0],
        bins=bins,
        new_user_bins=_new_user_bins(
            {rank: score for rank, _, _, score in new_user_list}, kinds[~kinds.seen.astype(bool)]
        ),
        overlap=overlap.astype(np.int64),
        interactions=con.execute(INTERACTIONS_SQL, given).fetchall()[0][0],
        reasons=[ReasonHits(*row) for row in con.execute(REASONS_SQL).fetchall()],
    )
    users = min(users or published.users, published.users)
    con.execute(DRAWN_SQL, given | {"users": users, "groups": USER_GROUPS})
    active = con.execute("SELECT * EXCLUDE (user_id) FROM drawn ORDER BY row").df()
    return EvaluationInput(
        published,
        DrawnUsers(
            user_idx=active.user_idx.to_numpy(np.int64),
            repeats=active.repeats.to_numpy(bool),
            explores=active.explores.to_numpy(bool),
            user_group=active.user_group.to_numpy(np.int64),
            source=active.source.to_numpy(object),
            lists=con.execute(DRAWN_LISTS_SQL).df(),
            truth=con.execute(DRAWN_TRUTH_SQL).df(),
            new_user_list=np.array([event for _, _, event, _ in new_user_list], np.int64),
        ),
    )


def _score_bins(con: duckdb.DuckDBPyConnection, week: str, k: int) -> list[ScoreBin]:
    """The bins of `PublishedResult`; ValueError if a rank is outside of 1 to `k`."""
    edge = " + ".join(f"(score >= {edge}::DOUBLE)::INTEGER" for edge in BINS[1:-1])
    scores = con.execute(SCORES_SQL.format(bin=edge), {"week": week, "one": float(ONE)}).fetchall()
    if any(low < 1 or high > k for *_, low, high in scores):
        raise ValueError(f"a user's predictions must have distinct ranks from 1 to {k}")
    of_hits = {bin: of_bin for bin, *of_bin in con.execute(HITS_SQL.format(bin=edge), {"one": float(ONE)}).fetchall()}
    bins = []
    for bin, pairs, total, squares, *_ in sorted(scores):
        hits, total_of_hits = of_hits.get(bin, (0, 0))
        bins.append(ScoreBin(bin, pairs, hits, int(total), int(squares) - 2 * int(total_of_hits) + hits * ONE))
    return bins


def _new_user_bins(scores: dict[int, float], new: pd.DataFrame) -> list[ScoreBin]:
    """The bins of the list for new users: its `scores` by rank, and the hits of the new users `new` (rows of kinds)."""
    bins = dict[int, ScoreBin]()
    pairs = int(new.users.sum())
    for rank, score in scores.items() if pairs else ():
        at = sum(score >= edge for edge in BINS[1:-1])
        hits = sum(int(users) for found, users in zip(new.hits, new.users, strict=True) if found >> (rank - 1) & 1)
        unit, square = round(score * ONE), round(score * score * ONE)
        of_rank = (pairs, hits, pairs * unit, pairs * square - 2 * hits * unit + hits * ONE)
        bins[at] = ScoreBin(at, *(a + b for a, b in zip(bins.get(at, (at, 0, 0, 0, 0))[1:], of_rank, strict=True)))
    return [bins[at] for at in sorted(bins)]
