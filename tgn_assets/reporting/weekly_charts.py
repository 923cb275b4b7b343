"""What the charts by week of the report and of the UI have in common."""

import json
from collections.abc import Iterable, Mapping, Sequence

import altair as alt
import pandas as pd

from tgn_assets.ml.weeks import week_key, week_number

DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [3, 5]]
"""Line styles, ours first: lines are told apart without colour, too."""
POINTS = 80
"""Above this number of values, a chart has only lines: each point adds text to the picture."""
APART, FEW = 0.06, 4
"""In weeks: how far the points of two models lie apart, or those of equal models would hide one another; less in a
chart of few weeks, where a week is wide."""


def week_numbers(weeks: Iterable[object]) -> list[int]:
    """Each of `weeks`, dates or texts that begin with one, as its number: what `week_axis` is an axis of."""
    return [week_number(str(week)[:10]) for week in weeks]


def week_axis(numbers: Sequence[int], most: int) -> alt.X:
    """The axis of the field `week`, a number of `week_numbers`: ticks at whole weeks, at most `most`, the newest first.

    A label is month and day, with the year below it where it is another than that of the label before.
    """
    first, last = min(numbers), max(numbers)
    ticks = list(range(last, first - 1, -(last - first + 1) // most))[::-1]
    labels, year = dict[int, list[str]](), ""
    for tick in ticks:
        monday = week_key(tick)
        labels[tick] = [monday[5:]] if monday[:4] == year else [monday[5:], monday[:4]]
        year = monday[:4]
    axis = alt.Axis(values=ticks, labelExpr=f"{json.dumps(labels)}[datum.value]", grid=False, title=None)
    return alt.X("week:Q", axis=axis, scale=alt.Scale(domain=[first - 0.5, last + 0.5], nice=False, zero=False))


def quality_lines(
    scores: pd.DataFrame, names: Mapping[str, str], colors: Sequence[str], *, metric: str, most: int, columns: int
) -> alt.LayerChart | alt.FacetChart:
    """NDCG, called `metric`, by week: a line for each model with its 95% intervals.

    `scores`: week, model, value, ci_low, ci_high. `names` has the names of some models, in their order; the others
    follow. At most `most` weeks have a label; the legend has `columns`.
    """
    found = set(scores.model)
    models = [*(model for model in names if model in found), *sorted(found - names.keys())]
    numbers = week_numbers(scores.week)
    apart = APART * min(max(numbers) - min(numbers) + 1, FEW) / FEW
    frame = scores.assign(
        week=[
            number + (models.index(model) - (len(models) - 1) / 2) * apart
            for number, model in zip(numbers, scores.model, strict=True)
        ],
        model=[names.get(model, model) for model in scores.model],
    )
    domain = [names.get(model, model) for model in models]
    legend = alt.Legend(
        orient="bottom",
        title=None,
        columns=columns,
        symbolType="stroke",
        symbolSize=900,
        symbolStrokeWidth=2,
        symbolOpacity=1,
    )
    color = alt.Color("model:N", scale=alt.Scale(domain=domain, range=list(colors)), legend=legend)
    dash = alt.StrokeDash("model:N", scale=alt.Scale(domain=domain, range=DASHES), legend=legend)
    base = alt.Chart().encode(x=week_axis(numbers, most), color=color)
    intervals = base.mark_rule(opacity=0.6).encode(y=alt.Y("ci_low:Q", title=metric), y2="ci_high:Q")
    lines = base.mark_line().encode(y="value:Q", strokeDash=dash)
    points = [base.mark_circle(opacity=1, size=30).encode(y="value:Q")] if len(frame) <= POINTS else []
    return alt.layer(intervals, lines, *points, data=frame)  # given to each, Altair would print and hash it for each
