"""The scores of several weeks as one: each value's mean over the users of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import duckdb

from tgn_assets.ml.evaluation.metric_names import DRAWN

SHARES = ("ndcg", "precision", "recall", "map", "hit_rate", "mrr")
"""Metrics that lie in [0, 1], and so do the limits of their intervals."""
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
           CASE WHEN count(ci_low) = count(*) THEN sqrt(sum(((ci_high - ci_low) / 2 * users) ** 2)) / sum(users) END,
           CASE WHEN count(*) = 1 AND isfinite(min(ci_low)) THEN [min(ci_low), min(ci_high)] END
    FROM scores WHERE users > 0 AND isfinite(value) GROUP BY ALL
"""
"""The mean over the users of all weeks. If all weeks have a 95% interval, they are pooled as independent."""


class PooledScore(NamedTuple):
    """A metric of a model in a segment, over some weeks."""

    model: str
    segment: str
    metric: str
    value: float
    users: int
    ci: list[float] | None
    """95% limits; None where a week has no interval."""


def pooled_scores(con: duckdb.DuckDBPyConnection, weeks: Sequence[str], *, compared: bool = False) -> list[PooledScore]:
    """The scores of the lists for the target `weeks`, all weeks together, from the rows of `eval_metrics` in `con`.

    Ours are over all active users, or `compared` with the others over the drawn users, as theirs are.
    """
    given = {"weeks": list(weeks), "drawn": DRAWN, "compared": compared}
    scores = []
    for model, segment, metric, value, users, margin, limits in con.execute(POOLED_SQL, given).fetchall():
        if limits is None and margin is not None:
            limits = [value - margin, value + margin]
        if limits and metric in SHARES:
            limits = [min(max(limit, 0.0), 1.0) for limit in limits]
        scores.append(PooledScore(model, segment, metric, value, users, limits))
    return scores
