"""The scores of several weeks as one: each value's mean over the users of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

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


def pooled_metrics(con: duckdb.DuckDBPyConnection, weeks: Sequence[str], *, compared: bool = False) -> pd.DataFrame:
    """model, segment, metric, value, users, ci_low, ci_high of the lists for the target `weeks`, all weeks together.

    `con` has the rows of these weeks in `eval_metrics`. Ours are over all active users, or `compared` with the others
    over the drawn users, as theirs are. The limits are NaN where a week has no interval.
    """
    given = {"weeks": list(weeks), "drawn": DRAWN, "compared": compared}
    rows = []
    for model, segment, metric, value, users, margin, limits in con.execute(POOLED_SQL, given).fetchall():
        if limits is None:
            limits = [float("nan")] * 2 if margin is None else [value - margin, value + margin]
        if metric in SHARES:
            limits = [limit if limit != limit else min(max(limit, 0.0), 1.0) for limit in limits]
        rows.append((model, segment, metric, value, users, *limits))
    return pd.DataFrame(rows, columns=["model", "segment", "metric", "value", "users", "ci_low", "ci_high"])
