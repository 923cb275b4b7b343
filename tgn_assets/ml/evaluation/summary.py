"""What a week's rows of `eval_metrics` say, in the few numbers that people look at."""

from typing import NamedTuple

import pandas as pd

from tgn_assets.ml.evaluation.metric_names import (
    CANDIDATES,
    CEILING,
    DRAWN,
    UNPUBLISHED,
    WITHOUT_FALLBACK,
    on_drawn_users,
)
from tgn_assets.ml.schema import OURS


def plotted_scores(metrics: pd.DataFrame) -> dict[str, float]:
    """What MLflow plots per week, as metric/segment/model: NDCG@5 of all models, and every metric of ours."""
    metrics = metrics[~metrics.metric.str.startswith(DRAWN)]
    everyone = (metrics.metric == "ndcg") & metrics.segment.isin(["all", "seen"])
    ours = (metrics.model == OURS) & (metrics.segment == "all")
    rows = metrics[everyone | ours]
    return dict(zip(rows.metric + "/" + rows.segment + "/" + rows.model, rows.value, strict=True))


def comparison(metrics: pd.DataFrame, segment: str = "all") -> pd.DataFrame:
    """A row for each model: NDCG@5, its 95% interval, then each other metric that all models have, in `segment`.

    Ours first, then the baselines from the best to the worst, and last what was never published: all over the same
    users, those who were drawn.
    """
    of_segment = on_drawn_users(metrics[metrics.segment == segment])
    table = of_segment.pivot(index="model", columns="metric", values="value")
    shared = table.loc[:, table.notna().all() | table.isna().all()].drop(columns="ndcg", errors="ignore")
    ndcg = of_segment[of_segment.metric == "ndcg"].set_index("model")[["value", "ci_low", "ci_high", "users"]]
    rows = ndcg.rename(columns={"value": "ndcg"}).join(shared).reset_index()
    rows["order"] = rows.model.isin(UNPUBLISHED).astype(int) - (rows.model == OURS)
    return rows.sort_values(["order", "ndcg"], ascending=[True, False]).drop(columns="order").reset_index(drop=True)


def diagnostics(metrics: pd.DataFrame) -> pd.DataFrame:
    """metric, value, users (or pairs) of our lists over all active users, without the bins of scores."""
    ours = metrics[(metrics.model == OURS) & (metrics.segment == "all")]
    shared = set(metrics[metrics.model != OURS].metric) - {"coverage"}
    return ours[~ours.metric.isin(shared) & ~ours.metric.str.contains(f"^(?:predicted:|observed:|{DRAWN})")][
        ["metric", "value", "users"]
    ]


def points_lost(metrics: pd.DataFrame) -> dict[str, float]:
    """NDCG@5 that was lost at each step from a perfect list to ours, over the drawn users; less than zero: gained.

    `left_out` is there if silent users may be left out. Empty where nobody was active, or the ranker could not be asked
    what it had.
    """
    rows = on_drawn_users(metrics).query("metric == 'ndcg'").set_index(["segment", "model"])
    if ("all", WITHOUT_FALLBACK) not in rows.index or not rows.users["all"][OURS]:
        return {}
    ndcg = rows.value["all"]
    lost = {
        "unknown_events": 1 - ndcg[CEILING],
        "recall": ndcg[CEILING] - ndcg[CANDIDATES],
        "ranking": ndcg[CANDIDATES] - ndcg[WITHOUT_FALLBACK],
    }
    fallback = ndcg[WITHOUT_FALLBACK] - ndcg[OURS]
    if ("left_out", OURS) not in rows.index:
        return lost | {"fallback": fallback}
    of_them, share = rows.value["left_out"], rows.users["left_out"][OURS] / rows.users["all"][OURS]
    left_out = (of_them[WITHOUT_FALLBACK] - of_them[OURS]) * share if share else 0.0
    return lost | {"left_out": left_out, "fallback": fallback - left_out}


def reliability(metrics: pd.DataFrame) -> list[tuple[float, float]]:
    """(mean score, observed frequency) of each bin of published scores, from the lowest to the highest."""
    metrics = metrics[metrics.segment == "all"]
    values = dict(zip(metrics.metric, metrics.value, strict=True))
    bins = [name.removeprefix("predicted:") for name in values if name.startswith("predicted:")]
    return sorted((values[f"predicted:{name}"], values[f"observed:{name}"]) for name in bins)


class Lift(NamedTuple):
    """Our NDCG minus that of `baseline`, with its paired 95% interval, over the `users` who were drawn."""

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


def score_verdict(brier: float, constant: float) -> str | None:
    """Says whether the Brier score `brier` beats that of the best constant score, `constant`; None if all pairs had the
    same outcome."""
    if not constant:
        return None
    skill = 1 - brier / constant
    word = "better than any constant" if skill > 0 else "no better than one constant for all pairs"
    return f"scores were {word} (Brier skill score {skill:.1%})"


def list_stability(metrics: pd.DataFrame) -> float | None:
    """`overlap` of a week, the share of a list's events that were on the list of the week before; None if unknown."""
    rows = metrics[(metrics.model == OURS) & (metrics.segment == "all") & (metrics.metric == "overlap")]
    return None if rows.empty else float(rows.value.iloc[0])
