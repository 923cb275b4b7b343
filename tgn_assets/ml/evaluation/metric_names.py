"""What stands in `eval_metrics`: the registry of ranking metrics, and the models besides ours and the baselines."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from tgn_assets.ml.schema import OURS

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.metrics.link_pred import LinkPredMetricData

    MetricFn = Callable[[LinkPredMetricData, int], Tensor]
    """(lists and truth of n users, k) -> [n] a value per user; `data.pred_rel_mat` [n, k] is 1 at a hit."""


class RankingMetric(NamedTuple):
    """The title of a metric, of lists of five, and the function that computes it for each user."""

    title: str
    per_user: "MetricFn"


def _link_pred(name: str) -> "MetricFn":
    """One of PyG's metrics, which is imported when it is computed: what shows scores loads without torch."""

    def per_user(data: "LinkPredMetricData", k: int) -> "Tensor":
        from torch_geometric import metrics

        return getattr(metrics, name)(k)._compute(data)

    return per_user


RANKING_METRICS: Mapping[str, RankingMetric] = {
    "ndcg": RankingMetric("NDCG@5", _link_pred("LinkPredNDCG")),
    "hit_rate": RankingMetric("HitRate@5", _link_pred("LinkPredHitRatio")),
    "recall": RankingMetric("Recall@5", _link_pred("LinkPredRecall")),
    "precision": RankingMetric("Precision@5", _link_pred("LinkPredPrecision")),
    "map": RankingMetric("MAP@5", _link_pred("LinkPredMAP")),
    "mrr": RankingMetric("MRR", _link_pred("LinkPredMRR")),
}
"""The registry, the most important first; all lie in [0, 1]. Every model of `eval_metrics` gets each of them in each
segment."""

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
