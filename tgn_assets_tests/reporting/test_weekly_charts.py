"""Charts by week: labels lie on Mondays and never run together."""

import re
from datetime import date
from itertools import pairwise

import altair as alt
import pandas as pd
import pytest

from tgn_assets.reporting.svg import svg
from tgn_assets.reporting.weekly_charts import quality_lines, week_axis, week_numbers
from tgn_assets.reporting.weekly_page.charts import drift_chart, loss_chart, reliability_chart

LABEL = re.compile(r'<text text-anchor="middle" transform="translate\(([\d.]+),[\d.]+\)"[^>]*>(.*?)</text>')
WIDTH, MOST = 250, 5


def by_week(weeks: int) -> pd.DataFrame:
    """Two models with the same scores."""
    mondays = pd.date_range("2024-09-02", periods=weeks, freq="7D")
    scores = pd.DataFrame({"week": mondays, "value": 0.3, "ci_low": 0.2, "ci_high": 0.4})
    return pd.concat([scores.assign(model=model) for model in ("repeat", "tgn_assets")])


@pytest.mark.parametrize("weeks", [1, 2, 8, 60])
def test_weekly_ticks_are_mondays_that_do_not_run_together(weeks: int) -> None:
    numbers = week_numbers(by_week(weeks).week)
    chart = alt.Chart(pd.DataFrame({"week": numbers})).mark_point().encode(x=week_axis(numbers, MOST))
    labels = LABEL.findall(svg(chart.properties(width=WIDTH), {}))
    assert min(weeks, 3) <= len(labels) <= MOST
    assert all(float(after) - float(before) >= 40 for (before, _), (after, _) in pairwise(labels))
    year = 0
    for _, text in labels:
        day, *years = re.findall(r"<tspan[^>]*>([\d-]+)</tspan>", text) or [text]
        year = int(years[0]) if years else year
        assert date.fromisoformat(f"{year}-{day}").isoweekday() == 1
    newest = pd.Timestamp("2024-09-02") + pd.Timedelta(weeks=weeks - 1)
    assert f"{newest:%m-%d}" in labels[-1][1]


def test_the_legend_has_strokes_in_the_style_of_the_lines() -> None:
    lines = quality_lines(by_week(3), {"tgn_assets": "ours"}, ["#111111", "#222222"], metric="NDCG", most=5, columns=2)
    drawn = svg(lines, {})
    symbols = re.findall(r'<path transform="translate[^"]*" d="M-15,0L15,0"[^>]*>', drawn)
    assert ['stroke="#111111"' in symbols[0], 'stroke="#222222"' in symbols[1]] == [True, True]
    assert 'stroke-dasharray="6,3"' in symbols[1] and all('opacity="1"' in symbol for symbol in symbols)
    assert re.findall(r">(ours|repeat)<", drawn) == ["ours", "repeat"]


def test_lines_of_equal_models_lie_apart() -> None:
    lines = quality_lines(by_week(3), {}, ["#111111"], metric="NDCG", most=5, columns=2)
    (rows,) = lines.to_dict()["datasets"].values()
    first = pd.DataFrame(rows).groupby("model")["week"].min()
    assert first["tgn_assets"] != first["repeat"] and round(first.mean()) == week_numbers(["2024-09-02"])[0]


def test_every_chart_of_the_page_has_a_picture() -> None:
    weeks = pd.Index(["2024-01-01", "2024-01-08"], name="week")
    pictures = [
        loss_chart([("perfect", 0.0, 1.0, "left"), ("not found", 0.4, 1.0, "lost")], "label", "NDCG"),
        reliability_chart([(0.1, 0.2), (0.5, 0.4)], "label"),
        drift_chart(pd.DataFrame({"volume": [10, 20], "new": [0.1, 0.2]}, index=weeks), {"volume": "Rows"}, "label"),
    ]
    assert [list(picture.drawings) for picture in pictures] == [["wide", "narrow"], ["panel"], ["panel-0"]]
    assert all("<svg " in drawing for picture in pictures for drawing in picture.drawings.values())
