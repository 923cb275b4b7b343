"""The names of `eval_metrics`: of ranking metrics, and of models besides ours and the baselines."""

from collections.abc import Mapping

import pandas as pd

from tgn_assets.ml.schema import OURS

RANKING_METRICS: Mapping[str, str] = {
    "ndcg": "NDCG@5",
    "hit_rate": "HitRate@5",
    "recall": "Recall@5",
    "precision": "Precision@5",
    "map": "MAP@5",
    "mrr": "MRR",
}
"""Name -> title, the most important first; all lie in [0, 1]. `metrics.METRICS` computes them."""

CEILING = "ceiling"
"""A ranker that knows the truth but, like everybody, only the events seen before the week."""
CANDIDATES = "candidates"
"""A perfect ranking of the candidates that the ranker had."""
WITHOUT_FALLBACK = "without_fallback"
"""The ranker's own lists for all users, as they would have been without the baseline fallback."""

DRAWN = "drawn:"
"""Before the name of a metric of ours: over the drawn users alone, as all other models are scored; without it, over all
active users. There are such rows where not all active users were drawn."""

BOUNDS = (CANDIDATES, CEILING)
"""Models that know the truth: upper bounds, which no ranker reaches."""
UNPUBLISHED = (*BOUNDS, WITHOUT_FALLBACK, "ungated")
"""Models whose lists nobody was shown: neither ours nor a baseline. `ungated` is what 0.2 called `without_fallback`, in
weeks that were not made again since."""


def in_order(ndcg: Mapping[str, float]) -> list[str]:
    """The models of `ndcg`: ours, the others from the best to the worst, and what knows the truth."""
    return sorted(ndcg, key=lambda one: (one in BOUNDS, one != OURS, one != WITHOUT_FALLBACK, -ndcg[one], one))


def on_drawn_users(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `eval_metrics` (model, segment, metric, ...) that can be compared: ours over the drawn users, too."""
    drawn = rows.metric.str.startswith(DRAWN)
    compared = rows[drawn].assign(metric=rows.metric[drawn].str.removeprefix(DRAWN))
    keys = ["week", "model", "segment", "metric"] if "week" in rows else ["model", "segment", "metric"]
    replaced = pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(compared[keys]))
    return pd.concat([rows[~drawn & ~replaced], compared], ignore_index=True) if drawn.any() else rows


def on_all_users(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `eval_metrics` without ours over the drawn users alone."""
    return rows[~rows.metric.str.startswith(DRAWN)]
