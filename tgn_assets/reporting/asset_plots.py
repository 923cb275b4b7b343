"""The plots that a materialization shows in the UI: small SVG pictures in its metadata.

Import it where it is used: the definitions must load without Altair.
"""

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import altair as alt
import dagster as dg
import pandas as pd

from tgn_assets.ml.safe_text import printable, shortened
from tgn_assets.ml.schema import OURS
from tgn_assets.reporting.svg import svg, unvalidated
from tgn_assets.reporting.weekly_charts import POINTS, quality_lines, week_axis, week_numbers

logger = logging.getLogger(__name__)

P = ParamSpec("P")
Plot = Callable[P, dict[str, dg.MetadataValue]]

WIDTH, HEIGHT = 250, 130
"""Of a panel, in pixels."""
COLORS = ["#0a55a3", "#a84a00", "#1a6b3c", "#7a3a9a", "#5d5a10"]
"""Those of the series of the report, in its style sheet."""
CONFIG = {
    "aria": False,  # a picture in Markdown is described as a whole
    "background": "white",
    "font": "Arial, Helvetica, sans-serif",
    "padding": 12,
    "axisY": {"minExtent": 32},  # the renderer takes text for narrower than a browser makes it
    "view": {"stroke": None},
    "axis": {"gridOpacity": 0.5, "titleFontWeight": "normal"},
    "title": {"fontWeight": "normal", "fontSize": 12},
    "legend": {"title": None, "labelLimit": 200, "symbolOpacity": 1},
}


def _optional(name: str) -> Callable[[Plot[P]], Plot[P]]:
    """Makes a plot leave the picture `name` out, with a word, if it cannot be drawn: no week fails for a picture."""

    def wrap(plot: Plot[P]) -> Plot[P]:
        @wraps(plot)
        def drawn(*args: P.args, **kwargs: P.kwargs) -> dict[str, dg.MetadataValue]:
            try:
                with unvalidated():
                    return plot(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 (drawing fails in many ways)
                logger.warning("the picture %s is left out: %s", name, error)
                return {name: dg.MetadataValue.text(f"left out: {error}")}

        return drawn

    return wrap


@_optional("curve")
def curve_plot(curve: Sequence[Mapping[str, Any]], *panels: Sequence[str]) -> dict[str, dg.MetadataValue]:
    """A panel for each of `panels`, with these values over the epochs of `curve`; nothing for a single epoch."""
    if len(curve) < 2:
        return {}
    drawn = []
    for lines in panels:
        values = [
            {"step": step, "line": line.replace("_", " "), "value": entry[line]}
            for line in lines
            for step, entry in enumerate(curve, 1)
            if entry.get(line) is not None
        ]
        x = alt.X("step:Q", title="epoch", scale=alt.Scale(domain=[1, len(curve)]), axis=alt.Axis(tickMinStep=1))
        y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
        color = alt.Color("line:N", sort=None, legend=alt.Legend(orient="top"))
        drawn.append(_panel(pd.DataFrame(values, columns=["step", "line", "value"])).encode(x=x, y=y, color=color))
    return {"curve": _picture(alt.hconcat(*drawn).resolve_scale(color="independent"), "training curve")}


@_optional("activity")
def activity_plot(weeks: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """Interactions, users and events (columns) by week, each in a panel."""
    if weeks.empty:
        return {}
    panels = [_by_week(weeks, name, name) for name in ("interactions", "users", "events")]
    return {"activity": _picture(alt.hconcat(*panels), "interactions, users and events per week")}


@_optional("quality")
def quality_plot(scores: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """NDCG@5 by week, a line for each model with its 95% intervals."""
    if scores.empty:
        return {}
    lines = quality_lines(scores, {OURS: OURS}, COLORS, metric="NDCG", most=9, columns=3)
    return {
        "quality": _picture(lines.properties(width=2 * WIDTH, height=HEIGHT), "NDCG of ours and the baselines by week")
    }


@_optional("catalogue")
def catalogue_plot(most_recommended: pd.DataFrame, weeks: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """The events on the most lists (event_id, lists), and by week the share of known events that is on any list."""
    if most_recommended.empty:
        return {}
    names = json.dumps([shortened(printable(event), 18) for event in most_recommended["event_id"]])
    ranked = pd.DataFrame({"place": range(len(most_recommended)), "lists": most_recommended["lists"].to_numpy()})
    axis = alt.Axis(labelExpr=f"{names}[datum.value]", labelLimit=0, minExtent=115, title=None, ticks=False)
    bars = (
        alt.Chart(ranked)
        .mark_bar()
        .encode(x=alt.X("lists:Q", title=None, axis=alt.Axis(tickMinStep=1)), y=alt.Y("place:O", axis=axis))
    )
    share = pd.DataFrame({"week": weeks["week"], "share": weeks["recommended"] / weeks["known"]})
    line = _by_week(share, "share", "share of known events on some list")
    both = alt.hconcat(_sized(bars, "on the most users' lists"), line)
    return {"catalogue": _picture(both, "most recommended events, and catalogue coverage by week")}


@_optional("reliability")
def reliability_plot(points: Sequence[tuple[float, float]]) -> dict[str, dg.MetadataValue]:
    """Observed frequency over mean score, both logarithmic. On the diagonal, scores are probabilities."""
    shown = [(predicted, observed) for predicted, observed in points if predicted > 0 and observed > 0]
    if not shown:
        return {}
    ends = [min(min(point) for point in shown), max(max(point) for point in shown)]
    log, ticks = alt.Scale(type="log", nice=False), alt.Axis(tickCount=5, format="~g", grid=False)
    x = alt.X("predicted:Q", title="mean score", scale=log, axis=ticks)
    y = alt.Y("observed:Q", title="share interacted with", scale=log, axis=ticks)
    diagonal = alt.Chart(pd.DataFrame({"predicted": ends, "observed": ends})).mark_line(color="grey", strokeWidth=1)
    line = alt.Chart(pd.DataFrame(shown, columns=["predicted", "observed"])).mark_line(point=True)
    drawn = alt.layer(diagonal.encode(x=x, y=y), line.encode(x=x, y=y))
    return {"reliability": _picture(drawn.properties(width=WIDTH, height=HEIGHT), "reliability of the scores")}


def _panel(frame: pd.DataFrame, title: str = "") -> alt.Chart:
    point: Any = {"size": 12} if len(frame) <= POINTS else False
    return _sized(alt.Chart(frame).mark_line(point=point, strokeWidth=1.5), title)


def _sized(chart: alt.Chart, title: str) -> alt.Chart:
    return chart.properties(width=WIDTH, height=HEIGHT, title=title)


def _by_week(frame: pd.DataFrame, name: str, title: str) -> alt.Chart:
    """The column `name` of `frame` over its column `week`."""
    numbers = week_numbers(frame["week"])
    y = alt.Y(f"{name}:Q", title=None)
    return _panel(frame.assign(week=numbers), title).encode(x=week_axis(numbers, 5), y=y)


def _picture(chart: Any, text: str) -> dg.MetadataValue:
    encoded = base64.b64encode(svg(chart, CONFIG).encode()).decode()
    return dg.MetadataValue.md(f"![{text}](data:image/svg+xml;base64,{encoded})")
