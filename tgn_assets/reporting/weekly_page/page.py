"""Renders the weekly report: one HTML page that loads nothing else."""

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

import pandas as pd

from tgn_assets.ml.evaluation.metric_names import on_drawn_users
from tgn_assets.ml.evaluation.summary import lift_over_best, list_stability, points_lost, reliability, score_verdict
from tgn_assets.ml.monitoring.drift import LIMIT, MIN_WEEKS
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.tables import rows_of
from tgn_assets.reporting.terminal import NDCG, at_length, interval
from tgn_assets.reporting.verdict import Difference, ndcg, signed
from tgn_assets.reporting.weekly_page.charts import drift_chart, loss_chart, quality_chart, reliability_chart
from tgn_assets.reporting.weekly_page.headline import NAMES, SEGMENT_NAMES, headline
from tgn_assets.reporting.weekly_page.queries import EVENTS_SHOWN, MOVES, Facts, read_facts
from tgn_assets.reporting.weekly_page.rendering import render
from tgn_assets.state.warehouse import Warehouse

LOSSES = {
    "unknown_events": ("events that nobody knew before the week", "unknown events"),
    "recall": ("known, but not among the candidates", "not found"),
    "ranking": ("among the candidates, but ranked too low", "ranked too low"),
    "left_out": ("of users who were left out as silent", "left out"),
    "fallback": ("a baseline's list was published instead", "fallback"),
}
"""What the steps of `points_lost` are called: in full, and in the chart."""
DRIFT_LABELS = {
    "volume": "interactions",
    "new_user_share": "share of new users",
    "event_turnover": "share of events new since the week before",
    "popularity_shift": "shift of popularity",
}
"""The names on the page of the measures of `ml.monitoring.drift`."""


def report_page(
    warehouse: Warehouse,
    week: str,
    times: Mapping[str, float],
    times_before: Mapping[str, float],
    *,
    source: SourceSpec,
    made: datetime,
    linked: bool = True,
) -> str:
    """The HTML of the report of `week`, `made` now. The same arguments and warehouse give the same bytes.

    `times` and `times_before` are seconds by step, of the week and of the one before. A `linked` page lies beside those
    of other weeks, and has links to them. WarehouseError if the week was
    never ingested.
    """
    facts, metric = read_facts(warehouse, week), at_length(NDCG, warehouse, [week])
    weeks = [f"{of:%Y-%m-%d}" for of in pd.to_datetime(facts.quality.week)]
    return render(
        "page.html",
        week=week,
        target=shift(week, 1),
        log=source.shown,
        made=made,
        linked=linked,
        before=shift(week, -1) if facts.published_before else None,
        anchor=source.week_number_anchor,
        facts=facts,
        rows=_rows(facts),
        metric=metric,
        headline=headline(facts, metric),
        overlap=list_stability(facts.metrics),
        quality=_quality(facts, at_length(NDCG, warehouse, weeks)),
        segments=_segments(facts),
        drawn=_drawn(facts),
        loss=_loss(facts, metric),
        calibration=_calibration(facts),
        drift=_drift(facts),
        risen=facts.moves[facts.moves.change > 0].head(MOVES).to_dict("records"),
        fallen=facts.moves[facts.moves.change < 0].iloc[::-1].head(MOVES).to_dict("records"),
        shown=EVENTS_SHOWN,
        times=times,
        times_before=times_before,
    )


def _rows(facts: Facts) -> dict[str, Any]:
    """The table of accepted and rejected rows, and what else is to be said of rows that no list is made from."""
    table = [
        ("accepted" if reason is None else f"rejected: {reason.replace('_', ' ')}", in_week, so_far)
        for reason, in_week, so_far in facts.rows
    ]
    notes = []
    if facts.undated:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {found:,}" for reason, found in facts.undated.items())
        count = sum(facts.undated.values())
        notes.append(f"As of the newest load, {count:,} {'row has' if count == 1 else 'rows have'} no week: {reasons}.")
    outside = [
        (facts.unused.before_first_week, "of weeks before the first one"),
        (facts.unused.after_last_week, "of weeks after TGN_END_WEEK"),
        (sum(facts.unused.rejected_outside.values()), "of these weeks that cannot be used"),
    ]
    if said := [f"{rows_of(count)} {where}" for count, where in outside if count]:
        notes.append(f"As of the newest load, the log has {', '.join(said)}: no list is made from them.")
    if len(table) == 1:
        notes.append("No row of these weeks was rejected.")
    return {"table": table, "notes": notes}


def _quality(facts: Facts, metric: str) -> dict[str, Any] | None:
    scores = facts.quality
    if scores.empty:
        return None
    scores = scores.assign(week=pd.to_datetime(scores.week).dt.strftime("%Y-%m-%d"))
    weeks, found = sorted(scores.week.unique()), set(scores.model)
    models = [*(model for model in NAMES if model in found), *sorted(found - NAMES.keys())]
    value = dict(zip(zip(scores.week, scores.model, strict=True), scores.value, strict=True))
    summary = f"{metric} of {len(models)} models over {len(weeks)} weeks, {weeks[0]} to {weeks[-1]}, with 95% intervals"
    rows = [(week, [value.get((week, model)) for model in models]) for week in weeks]
    chart = quality_chart(scores, f"{summary}. The numbers are in the table below.", metric)
    return {"metric": metric, "chart": chart, "models": models, "rows": rows}


def _drawn(facts: Facts) -> tuple[int, int] | None:
    """(users that baselines and diagnostics are over, active users); None if that is everybody."""
    ours, drawn = (ndcg(metrics) for metrics in (facts.metrics, on_drawn_users(facts.metrics)))
    return (drawn.users, ours.users) if ours and drawn and drawn.users < ours.users else None


def _segments(facts: Facts) -> list[dict[str, Any]]:
    found, metrics = [], on_drawn_users(facts.metrics)
    for segment, who in SEGMENT_NAMES.items():
        ours, lift = ndcg(metrics, segment), lift_over_best(metrics, segment)
        if ours and lift:
            limits = [ours.low, ours.high] if isfinite(ours.margin) else None
            row = {"who": who, "ours": ours.value, "interval": interval(limits), "users": ours.users}
            baseline = ndcg(metrics, segment, lift.baseline)
            row |= {"baseline": lift.baseline, "baseline_value": baseline.value if baseline else None}
            found.append(row | {"difference": Difference(lift.value, lift.ci_low, lift.ci_high)})
    return found


def _loss(facts: Facts, metric: str) -> dict[str, Any] | None:
    lost = points_lost(facts.metrics)
    if not lost or not all(isfinite(points) for points in lost.values()):
        return None
    left, rows, steps = 1.0, [], [("a perfect list", 0.0, 1.0, "left")]
    for key, points in lost.items():
        name, short = LOSSES[key]
        low, high = sorted((left, left - points))
        steps.append((short, low, high, "gained" if points < 0 else "lost"))
        left -= points
        rows.append((name, -points, left))
    steps.append(("our lists", 0.0, left, "left"))
    summary = "; ".join(f"{name}: {signed(points)}" for name, points, _ in rows)
    chart = loss_chart(steps, f"From a perfect list, 1, to ours, {left:.4f}. {summary}.", metric)
    return {"chart": chart, "rows": rows, "worst": LOSSES[max(lost, key=lambda key: lost[key])][0]}


def _calibration(facts: Facts) -> dict[str, Any] | None:
    metrics = facts.metrics
    if not (points := reliability(metrics)):
        return None
    ours = metrics[(metrics.model == OURS) & (metrics.segment == "all")].set_index("metric")
    brier, constant = float(ours.value["brier"]), float(ours.value["brier_constant"])
    summary = "; ".join(f"{predicted:.1%} predicted, {observed:.1%} observed" for predicted, observed in points)
    chart = reliability_chart(points, f"Reliability of the scores, by bin: {summary}.")
    found = {"brier": brier, "constant": constant, "pairs": int(ours.users["brier"])}
    return {"chart": chart, "points": points, "verdict": score_verdict(brier, constant), **found}


def _drift(facts: Facts) -> dict[str, Any]:
    if not facts.drift:
        return {"rows": [], "weeks": MIN_WEEKS}
    rows = []
    for found in facts.drift:
        form = ",.0f" if found.measure == "volume" else ".1%"
        value, usual = f"{found.value:{form}}", f"{found.usual:{form}}"
        z = f"{found.z:+.1f}".replace("-", "\N{MINUS SIGN}")
        row = {"name": DRIFT_LABELS[found.measure], "value": value, "usual": usual, "z": z}
        rows.append(row | {"drifted": found.drifted})
    summary = "; ".join(f"{row['name']}: {row['value']}, usually {row['usual']}" for row in rows)
    shown = facts.measures[[found.measure for found in facts.drift]]
    chart = drift_chart(shown, DRIFT_LABELS, f"This week and the weeks before. {summary}.")
    return {"rows": rows, "limit": LIMIT, "chart": chart, "any": any(row["drifted"] for row in rows)}
