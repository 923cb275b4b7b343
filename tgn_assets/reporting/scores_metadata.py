"""The metadata of `eval_metrics` in the UI."""

from typing import Any

import dagster as dg
import pandas as pd

from tgn_assets.ml.evaluation.metric_names import UNPUBLISHED
from tgn_assets.ml.evaluation.summary import (
    comparison,
    diagnostics,
    lift_over_best,
    list_stability,
    points_lost,
    reliability,
)
from tgn_assets.ml.schema import OURS
from tgn_assets.reporting.asset_metadata import numbers, preview
from tgn_assets.reporting.verdict import verdict


def scores_metadata(metrics: pd.DataFrame, trend: pd.DataFrame, ndcg: str) -> dict[str, Any]:
    """What the UI shows of a week's rows of `eval_metrics`, first what matters most.

    Numbers are what it plots over the weeks, everything else is in tables. `trend` is `quality` up to that week, `ndcg`
    the name of the metric at the length of these lists.
    """
    from tgn_assets.reporting.asset_plots import quality_plot, reliability_plot

    everyone, lift = comparison(metrics), lift_over_best(metrics)
    recall = metrics[metrics.metric.str.startswith("candidate_recall")].set_index("metric").value.to_dict()
    published = everyone[~everyone.model.isin(UNPUBLISHED)].set_index("model")
    of_all = metrics[(metrics.model == OURS) & (metrics.segment == "all")].set_index("metric").value
    shown, baselines = published.columns.drop(["ndcg", "ci_low", "ci_high", "users"]), published.ndcg.drop(OURS)
    of_ours = diagnostics(metrics).set_index("metric")
    channels = pd.DataFrame(recall.items(), columns=["channel", "recall"])
    bins = pd.DataFrame(reliability(metrics), columns=["predicted", "observed"])
    return {
        "verdict": verdict(metrics, ndcg),
        **numbers({"NDCG": of_all["ndcg"], "NDCG/lift_over_best": lift.value if lift else None}),
        **numbers(baselines.to_dict(), "NDCG/"),
        "comparison": _narrow(everyone),
        "comparison_seen": _narrow(comparison(metrics, "seen")),
        **quality_plot(trend),
        **numbers(of_all.reindex(shown).to_dict()),
        **numbers(points_lost(metrics), "lost/"),
        **numbers({"overlap": list_stability(metrics)}),
        **numbers({"candidate_recall": recall.get("candidate_recall")}),
        **numbers(of_ours.value.filter(like="brier").to_dict()),
        "candidate_recall_by_channel": preview(channels),
        "diagnostics": preview(of_ours.reset_index(), rows=len(of_ours)),
        "reliability_bins": preview(bins),
        **reliability_plot(reliability(metrics)),
    }


def _narrow(table: pd.DataFrame) -> dg.TableMetadataValue:
    """The table with as many columns as fit a screen: a wider one cuts off the verdict above it, too."""
    return preview(table.drop(columns=["map", "mrr", "precision"], errors="ignore"))
