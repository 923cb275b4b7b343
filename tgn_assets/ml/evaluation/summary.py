"""What a week's rows of `eval_metrics` say, in the few numbers that people look at."""

from typing import NamedTuple

import pandas as pd

from tgn_assets.ml.evaluation.metric_names import (
    CANDIDATES,
    CEILING,
    UNPUBLISHED,
    WITHOUT_FALLBACK,
    without_former_names,
)
from tgn_assets.ml.schema import OURS


def plotted_scores(metrics: pd.DataFrame) -> dict[str, float]:
    """What MLflow plots per week, as metric/segment/model: NDCG@5 of all models, and every metric of ours."""
    metrics = without_former_names(metrics)
    everyone = (metrics.metric == "ndcg") & metrics.segment.isin(["all", "seen"])
    ours = (metrics.model == OURS) & (metrics.segment == "all")
    rows = metrics[everyone | ours]
    return dict(zip(rows.metric + "/" + rows.segment + "/" + rows.model, rows.value, strict=True))


def comparison(metrics: pd.DataFrame, segment: str = "all") -> pd.DataFrame:
    """A row for each model: NDCG@5, its 95% interval, then each other metric that all models have, in `segment`.

    Ours first, then the baselines from the best to the worst, and last what was never published.
    """
    of_segment = without_former_names(metrics[metrics.segment == segment])
    table = of_segment.pivot(index="model", columns="metric", values="value")
    shared = table.loc[:, table.notna().all() | table.isna().all()].drop(columns="ndcg", errors="ignore")
    ndcg = of_segment[of_segment.metric == "ndcg"].set_index("model")[["value", "ci_low", "ci_high"]]
    rows = ndcg.rename(columns={"value": "ndcg"}).join(shared).reset_index()
    rows["place"] = rows.model.isin(UNPUBLISHED).astype(int) - (rows.model == OURS)
    return rows.sort_values(["place", "ndcg"], ascending=[True, False]).drop(columns="place").reset_index(drop=True)


def diagnostics(metrics: pd.DataFrame) -> pd.DataFrame:
    """metric, value, users (or pairs): what is known of our lists alone, over all active users, bins left out."""
    ours = metrics[(metrics.model == OURS) & (metrics.segment == "all")]
    shared = set(metrics[metrics.model != OURS].metric) - {"coverage"}
    return ours[~ours.metric.isin(shared) & ~ours.metric.str.contains("^(?:predicted|observed):")][
        ["metric", "value", "users"]
    ]


def points_lost(metrics: pd.DataFrame) -> dict[str, float]:
    """NDCG@5 over all active users that was lost at each step from a perfect list to ours; less than zero: gained.

    Empty where the ranker could not be asked what it had.
    """
    rows = metrics[(metrics.metric == "ndcg") & (metrics.segment == "all")].set_index("model").value
    if WITHOUT_FALLBACK not in rows:
        return {}
    return {
        "unknown_events": 1 - rows[CEILING],
        "recall": rows[CEILING] - rows[CANDIDATES],
        "ranking": rows[CANDIDATES] - rows[WITHOUT_FALLBACK],
        "fallback": rows[WITHOUT_FALLBACK] - rows[OURS],
    }


def candidate_recall(metrics: pd.DataFrame) -> dict[str, float]:
    """Share of what users interacted with that was among the candidates, in all and by channel."""
    metrics = without_former_names(metrics)
    rows = metrics[metrics.metric.str.startswith("candidate_recall")]
    return dict(zip(rows.metric, rows.value, strict=True))


def reliability(metrics: pd.DataFrame) -> list[tuple[float, float]]:
    """(mean score, observed frequency) of each bin of published scores, from the lowest to the highest."""
    values = dict(zip(metrics.metric, metrics.value, strict=True))
    bins = [name.removeprefix("predicted:") for name in values if name.startswith("predicted:")]
    return sorted((values[f"predicted:{name}"], values[f"observed:{name}"]) for name in bins)


class Lift(NamedTuple):
    """Our NDCG minus that of `baseline`, with its paired 95% interval, over `users` active users."""

    baseline: str
    value: float
    ci_low: float
    ci_high: float
    users: int


def lift_over_best(metrics: pd.DataFrame, segment: str = "all") -> Lift | None:
    """Our lift over the baseline with the best NDCG@5 in `segment`; None if there was nothing to compare."""
    rows = metrics[metrics.segment == segment].set_index("model")
    lifts = rows[rows.metric == "ndcg_lift"].dropna(subset=["value"])
    if lifts.empty:
        return None
    best = str(rows[rows.metric == "ndcg"].value.reindex(lifts.index).idxmax())
    value, low, high, users = lifts.loc[[best], ["value", "ci_low", "ci_high", "users"]].to_numpy(float)[0]
    return Lift(best, value, low, high, int(users))
