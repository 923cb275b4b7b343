"""The report's charts: Vega-Altair rendered to static SVG, with the colours of the page's style sheet."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import altair as alt
import pandas as pd
from markupsafe import Markup

from tgn_assets.reporting.svg import svg, unvalidated
from tgn_assets.reporting.weekly_charts import quality_lines, week_axis, week_numbers
from tgn_assets.reporting.weekly_page.headline import NAMES

logger = logging.getLogger(__name__)

WIDE, NARROW = 620, 250
"""Width of a plot, in pixels, on a screen and on a phone; small ones have the latter on both."""
SERIES = ["var(--ours)", "var(--second)", "var(--third)", "var(--fourth)", "var(--fifth)"]
CONFIG = {
    "aria": False,  # the page describes each chart as a whole
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "symbolSize": 120,
        "labelLimit": 220,
    },
    "axisY": {"minExtent": 40},  # the renderer takes text for narrower than a browser makes it
    "header": {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 12},
    "line": {"strokeWidth": 2},
}


class Picture(NamedTuple):
    """A chart, and a description for readers who cannot see it."""

    label: str
    drawings: Mapping[str, Markup]
    """By the class of the style sheet: `wide` on a screen and `narrow` on a phone; others, side by side, on both."""


def quality_chart(scores: pd.DataFrame, label: str, metric: str) -> Picture:
    """NDCG, called `metric`, over the weeks with 95% intervals. `scores`: week, model, value, ci_low, ci_high."""

    def draw(width: int) -> alt.TopLevelMixin:
        most, columns = (4, 1) if width == NARROW else (8, 5)
        lines = quality_lines(scores, NAMES, SERIES, metric=metric, most=most, columns=columns)
        return lines.properties(width=width, height=260)

    return _in_two_widths("quality", label, draw)


def loss_chart(steps: Sequence[tuple[str, float, float, str]], label: str, metric: str) -> Picture:
    """A waterfall from a perfect list to ours. `steps`: name, low, high, kind (left, lost or gained), oldest first."""
    frame = pd.DataFrame(steps, columns=["name", "low", "high", "kind"])
    kinds = {"left": "var(--ours)", "lost": "var(--bad)", "gained": "var(--good)"}
    present = [kind for kind in kinds if kind in set(frame.kind)]

    def draw(width: int) -> alt.TopLevelMixin:
        extent, margin = (80, 90) if width == NARROW else (160, 200)
        axis = alt.Axis(title=None, labelLimit=260, minExtent=extent, labelColor="var(--ink)", ticks=False)
        ticks = alt.Axis(labelOverlap="greedy", labelSeparation=8, labelFlush=False)
        y = alt.Y("name:N", sort=None, axis=axis)
        x = alt.X("low:Q", title=metric, scale=alt.Scale(domain=[0, 1]), axis=ticks)
        colors = alt.Scale(domain=present, range=[kinds[kind] for kind in present])
        color = alt.Color("kind:N", scale=colors, legend=alt.Legend(orient="bottom", title=None))
        bars = alt.Chart(frame).mark_bar(height=18).encode(y=y, x=x, x2="high:Q", color=color)
        return bars.properties(width=width - margin, height=30 * len(frame))

    return _in_two_widths("loss", label, draw)


def reliability_chart(points: Sequence[tuple[float, float]], label: str) -> Picture:
    """Observed frequency over mean score. On the dashed diagonal, scores are probabilities."""
    frame = pd.DataFrame(points, columns=["predicted", "observed"])
    top = max(frame.max().max() * 1.1, 0.01)

    def draw() -> alt.TopLevelMixin:
        # Most scores are small: the square root spreads them, and unlike the logarithm it has a zero.
        scale, axis = (
            alt.Scale(type="sqrt", domain=[0, top], nice=False),
            alt.Axis(format="~p", tickCount=5, labelOverlap="greedy", labelSeparation=8),
        )
        x = alt.X("predicted:Q", title="mean score of the bin", scale=scale, axis=axis)
        y = alt.Y("observed:Q", title="share interacted with", scale=scale, axis=axis)
        ends = pd.DataFrame({"predicted": [0, top], "observed": [0, top]})
        diagonal = alt.Chart(ends).mark_line(color="var(--muted)", strokeDash=[4, 4], strokeWidth=1)
        line = alt.Chart(frame).mark_line(color="var(--ours)")
        dots = alt.Chart(frame).mark_point(filled=True, opacity=1, size=60, color="var(--ours)")
        layers = [layer.encode(x=x, y=y) for layer in (diagonal, line, dots)]
        return alt.layer(*layers).properties(width=NARROW, height=NARROW - 60)

    return _picture("reliability", label, {"panel": draw})


def drift_chart(measures: pd.DataFrame, names: Mapping[str, str], label: str) -> Picture:
    """Each measure of `measures` by week, in a panel of its own; this week is the large point."""
    tidy = measures.reset_index().melt("week", var_name="measure", value_name="value").dropna()
    numbers = week_numbers(measures.index)
    tidy["week"] = week_numbers(tidy.week)
    tidy["measure"] = tidy.measure.map(names)

    def panel(name: str) -> alt.TopLevelMixin:
        values = alt.Axis(tickCount=4, format="~s" if name == names["volume"] else "~%")
        y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=True), axis=values)
        base = alt.Chart(tidy[tidy.measure == name]).encode(x=week_axis(numbers, 4), y=y)
        line, this_week = base.mark_line(color="var(--ours)"), base.transform_filter(alt.datum.week == max(numbers))
        now = this_week.mark_point(filled=True, opacity=1, size=80, color="var(--second)")
        title = alt.TitleParams(name, color="var(--ink)", fontSize=13, anchor="start", fontWeight="normal")
        return (line + now).properties(width=NARROW, height=100, title=title)

    found = [name for name in names.values() if name in set(tidy.measure)]
    return _picture("drift", label, {f"panel-{at}": partial(panel, name) for at, name in enumerate(found)})


def _in_two_widths(name: str, label: str, draw: Callable[[int], alt.TopLevelMixin]) -> Picture:
    return _picture(name, label, {"wide": partial(draw, WIDE), "narrow": partial(draw, NARROW)})


def _picture(name: str, label: str, drawings: Mapping[str, Callable[[], alt.TopLevelMixin]]) -> Picture:
    try:
        with unvalidated():
            return Picture(label, {shown: _svg(draw(), f"{name}-{shown}") for shown, draw in drawings.items()})
    except Exception as error:  # noqa: BLE001 (a report without a picture is better than none)
        logger.warning("the chart %s is left out of the report: %s", name, error)
        return Picture(label, {"note": Markup("<p>The picture is left out: {}.</p>").format(error)})


def _svg(chart: alt.TopLevelMixin, name: str) -> Markup:
    # The ids of all charts on a page share one name space.
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg(chart, CONFIG))
    return Markup(drawn.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))  # from our own numbers
