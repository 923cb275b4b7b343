"""The scores of several weeks as one: each value's mean over the users of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import duckdb

from tgn_assets.ml.evaluation.metric_names import DRAWN

POOLED_SQL = """
    WITH rows AS (
        SELECT * FROM eval_metrics WHERE list_contains($weeks, strftime(week, '%Y-%m-%d'))
    ), drawn AS (
        SELECT * REPLACE (substring(metric, length($drawn) + 1) AS metric) FROM rows WHERE starts_with(metric, $drawn)
    ), scores AS (
        FROM rows WHERE NOT starts_with(metric, $drawn)
            AND NOT ($compared AND (week, model, segment, metric) IN (SELECT (week, model, segment, metric) FROM drawn))
        UNION ALL
        FROM drawn WHERE $compared
    )
    SELECT model, segment, metric, sum(value * users) / sum(users), sum(users)::BIGINT,
           CASE WHEN count(*) = 1 AND isfinite(min(ci_low)) THEN [min(ci_low), min(ci_high)] END
    FROM scores WHERE users > 0 AND isfinite(value) GROUP BY ALL
"""
"""The mean over the users of all weeks; the limits of a single one."""
GROUPS_SQL = """
    WITH groups AS (
        SELECT model, segment, user_group, sum(ndcg) AS ndcg, sum(users)::BIGINT AS users FROM eval_user_groups
        WHERE list_contains($weeks, strftime(week, '%Y-%m-%d')) GROUP BY ALL
    )
    SELECT model, segment, list(ndcg ORDER BY user_group), list(users ORDER BY user_group) FROM groups GROUP BY ALL
"""


class PooledScore(NamedTuple):
    """A metric of a model in a segment, over some weeks."""

    model: str
    segment: str
    metric: str
    value: float
    users: int
    ci: list[float] | None
    """95% limits; over several weeks only NDCG has them."""


def pooled_scores(con: duckdb.DuckDBPyConnection, weeks: Sequence[str], *, compared: bool = False) -> list[PooledScore]:
    """The scores of the lists for the target `weeks`, all weeks together, from the rows of `eval_metrics` in `con`.

    Ours are over all active users, or `compared` with the others over the drawn users, as theirs are.
    """
    given = {"weeks": list(weeks), "drawn": DRAWN, "compared": compared}
    scores = [PooledScore(*row) for row in con.execute(POOLED_SQL, given).fetchall()]
    if len(weeks) == 1:
        return scores
    groups = con.execute(GROUPS_SQL, {"weeks": list(weeks)}).fetchall()
    intervals = {(model, segment): (sums, users) for model, segment, sums, users in groups}
    return [_with_interval(score, *intervals.get((score.model, score.segment), ([], []))) for score in scores]


def _with_interval(score: PooledScore, sums: Sequence[float], users: Sequence[int]) -> PooledScore:
    """NDCG of several weeks with its interval, in which a user who was active in several of them counts as one.

    None of a score over other users than those of the groups, of which each has a sum and a number of users.
    """
    import numpy as np

    from tgn_assets.ml.evaluation.intervals import clustered_interval

    if score.metric != "ndcg" or score.ci is not None or score.users != sum(users):
        return score
    low, high = clustered_interval(np.array(sums)[:, None], np.array(users))
    return score._replace(ci=[float(low[0]), float(high[0])]) if np.isfinite(low[0]) else score
