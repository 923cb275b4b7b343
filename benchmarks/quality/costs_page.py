"""The table and the plot of benchmarks/quality/costs.json."""

from collections.abc import Mapping, Sequence
from statistics import fmean, geometric_mean

import altair as alt
import pandas as pd

from benchmarks.quality.costs import Cost, Costs
from tgn_assets.reporting.svg import svg

REFERENCE = "LambdaRank"
COLUMNS = ("fast", "standard", "best", REFERENCE, "ALS", "SASRec")
COLORS = ("#2f78bd", "#0a55a3", "#062f5c", "#a84a00", "#7a3a9a", "#1a6b3c")
"""Of `COLUMNS`: shades of the report's first colour for ours, others of its series for peers."""
LEFT, ABOVE = ("fast", "SASRec"), ("standard",)
"""Whose labels are left of their marks, or above: presets are close to one another, SASRec at the edge."""
LOWEST = -0.3
"""Leads below it are drawn at the lower edge, as triangles."""
WIDTH, HEIGHT = 700, 330
"""Of the plot without its axes, in pixels: the whole is as wide as README's text on GitHub."""
CONFIG = {
    "aria": False,
    "background": "white",
    "font": "Arial, Helvetica, sans-serif",
    "padding": 14,
    "view": {"stroke": None},
    "axis": {"labelFontSize": 13, "titleFontSize": 13, "titleFontWeight": "normal", "gridOpacity": 0.6},
    "title": {"fontSize": 16, "subtitleFontSize": 13, "subtitleColor": "#555d69", "anchor": "start", "offset": 12},
}


def table(costs: Costs) -> str:
    """All logs in one table, as Markdown: NDCG@5, seconds of a week, and these against LambdaRank's of the same run."""
    methods, complete = measured_methods(costs), complete_logs(costs)
    lines = [f"| log | {' | '.join(methods)} |", "|" + "---|" * (len(methods) + 1)]
    for log, found in costs.items():
        best = max(cost.ndcg for cost in found.values())
        lines.append(f"| {log} | {' | '.join(_cell(found.get(method), best) for method in methods)} |")
    if len(complete) > 1:
        means = [_against_reference([costs[log] for log in complete], method) for method in methods]
        cells = (f"{lead:+.1%}<br>{_ratio(ratio, stopped=stopped)}" for ratio, lead, stopped in means)
        lines.append(f"| mean of {len(complete)} logs, against {REFERENCE} | {' | '.join(cells)} |")
    machines = {cost.machine for found in costs.values() for cost in found.values()}
    days = sorted({cost.measured for found in costs.values() for cost in found.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return "\n".join(lines) + f"\n\nMeasured on {'; '.join(sorted(machines))}; {when}."


def measured_methods(costs: Costs) -> list[str]:
    """The methods that were measured on some log."""
    return [method for method in COLUMNS if any(method in found for found in costs.values())]


def complete_logs(costs: Costs) -> list[str]:
    """The logs on which all of `measured_methods` were measured: means are over these."""
    methods = set(measured_methods(costs))
    return [log for log, found in costs.items() if methods <= found.keys()]


def points(costs: Costs) -> pd.DataFrame:
    """The marks of the plot, for each method the logs and their mean; ValueError if no log has all methods.

    Columns: method; log ("" for the mean); ratio of seconds and lead in NDCG@5, both against LambdaRank; shown: the
    lead, not below LOWEST; label: that of the mean.
    """
    complete = complete_logs(costs)
    if not complete:
        raise ValueError("no log has all of the methods that were measured on some log: measure the missing ones")
    single = [[log] for log in complete] if len(complete) > 1 else []
    rows = []
    for method in measured_methods(costs):
        for logs in [*single, complete]:
            ratio, lead, stopped = _against_reference([costs[log] for log in logs], method)
            shown = f"{method}, stopped:" if stopped else method
            label = method if method == REFERENCE else f"{shown} {lead:+.0%}, {_ratio(ratio, stopped=stopped)}"
            name, label = ("", label) if logs == complete else (logs[0], "")
            rows.append((method, name, ratio, lead, max(lead, LOWEST), label))
    return pd.DataFrame(rows, columns=["method", "log", "ratio", "lead", "shown", "label"])


def chart(costs: Costs) -> str:
    """The plot as SVG: quality over seconds, both against LambdaRank."""
    marks, logs = points(costs), complete_logs(costs)
    of_what = f"mean of {len(logs)} logs (small: each log)" if len(logs) > 1 else ", ".join(logs)
    lowest, highest = min(marks.shown.min(), -0.05) - 0.02, max(marks.shown.max(), 0.05) + 0.02
    ratios = alt.Scale(type="log", domain=[marks.ratio.min() / 1.4, marks.ratio.max() * 12], nice=False)
    x = alt.X(
        "ratio:Q",
        title=f"seconds of one week, in those of {REFERENCE} (logarithmic)",
        scale=ratios,
        axis=alt.Axis(values=_ticks(marks.ratio), labelExpr="format(datum.value, '~g') + 'x'"),
    )
    y = alt.Y(
        "shown:Q",
        title=f"NDCG@5 against {REFERENCE}",
        scale=alt.Scale(domain=[lowest, highest], nice=False),
        axis=alt.Axis(format="+.0%", tickCount=6, titlePadding=16),
    )
    color = alt.Color("method:N", scale=alt.Scale(domain=list(COLUMNS), range=list(COLORS)), legend=None)
    kept = marks.assign(shape=["circle" if lead >= LOWEST else "triangle-down" for lead in marks.lead])
    shape = alt.Shape("shape:N", scale=None, legend=None)
    single, means = kept[kept.log != ""], kept[kept.log == ""]
    small, large = (alt.Chart(part).encode(x=x, y=y, color=color, shape=shape) for part in (single, means))
    layers = [
        small.mark_point(filled=True, size=45, opacity=0.35),
        large.mark_point(filled=True, size=190, opacity=1),
        *(
            large.transform_filter(alt.datum.method == method)
            .mark_text(
                align="right" if method in LEFT else "left",
                dx=-11 if method in LEFT else 11,
                dy=-17 if method in ABOVE else 0,
                fontSize=14,
                fontWeight="bold",
            )
            .encode(text="label:N")
            for method in COLUMNS
        ),
    ]
    lower = " Triangles lie lower." if (marks.lead < LOWEST).any() else ""
    subtitle = [f"Last four weeks of each log, all active users; {of_what}.", f"Up and to the left is better.{lower}"]
    title = alt.TitleParams("How good the lists are, against what a week costs", subtitle=subtitle)
    return svg(alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title), CONFIG)


def _ticks(ratios: pd.Series) -> list[float]:
    """1, 3, 10, … and their inverses, as far as `ratios` reach."""
    every = [step * 10.0**power for power in range(-4, 5) for step in (1, 3)]
    return [round(tick, 4) for tick in every if ratios.min() / 2 <= tick <= ratios.max() * 2]


def _against_reference(logs: Sequence[Mapping[str, Cost]], method: str) -> tuple[float, float, bool]:
    """(geometric mean of seconds, mean lead in NDCG@5) against LambdaRank; whether the clock stopped any training."""
    lead = fmean(found[method].ndcg / found[REFERENCE].ndcg for found in logs) - 1
    ratio = geometric_mean([found[method].ratio for found in logs])
    return ratio, lead, any(found[method].stopped for found in logs)


def _cell(cost: Cost | None, best: float) -> str:
    if cost is None:
        return ""
    ndcg = f"**{cost.ndcg:.3f}**" if cost.ndcg == best else f"{cost.ndcg:.3f}"
    stopped = ">" if cost.stopped else ""
    return f"{ndcg}<br>{stopped}{_two_digits(cost.seconds)} s, {_ratio(cost.ratio, stopped=cost.stopped)}"


def _ratio(ratio: float, *, stopped: bool) -> str:
    return f"{'>' if stopped else ''}{_two_digits(ratio)}x"


def _two_digits(value: float) -> str:
    """`value` with two significant digits, none after the point from ten on."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}" if value < 0.995 else f"{value:.1f}"
