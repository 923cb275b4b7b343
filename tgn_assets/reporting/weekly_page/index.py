"""The page that lists all weekly reports, with the trend of their scores: reports/index.html."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.evaluation.summary import lift_over_best
from tgn_assets.ml.monitoring.trends import quality
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.reporting.terminal import NDCG, at_length
from tgn_assets.reporting.verdict import Difference, ndcg
from tgn_assets.reporting.weekly_page.charts import Picture, quality_chart
from tgn_assets.reporting.weekly_page.rendering import render
from tgn_assets.state.warehouse import Warehouse

COUNTS_SQL = """
    SELECT strftime(week, '%Y-%m-%d') AS week, count(*) AS interactions, count(DISTINCT user_id) AS users,
           (SELECT count(*) FROM rejected_interactions AS rejected WHERE rejected.week = accepted.week) AS rejected
    FROM raw_interactions AS accepted WHERE list_contains($weeks, strftime(week, '%Y-%m-%d')) GROUP BY week
"""
SCORES_SQL = """
    SELECT * REPLACE (strftime(week, '%Y-%m-%d') AS week) FROM eval_metrics
    WHERE list_contains($weeks, strftime(week, '%Y-%m-%d')) AND segment = 'all' AND metric IN ('ndcg', 'ndcg_lift')
"""


def write_index(folder: Path, warehouse: Warehouse, *, source: SourceSpec, made: datetime) -> None:
    """Writes index.html about the weeks that have a page in `folder`; there must be one."""
    weeks = sorted((page.stem for page in folder.glob("????-??-??.html")), reverse=True)
    replace_text(folder / "index.html", index_page(warehouse, weeks, source=source, made=made))


def index_page(warehouse: Warehouse, weeks: list[str], *, source: SourceSpec, made: datetime) -> str:
    """The HTML of the list of `weeks`, newest first, `made` now."""
    with warehouse.reader() as con:
        counts = con.execute(COUNTS_SQL, {"weeks": weeks}).df().set_index("week").to_dict("index")
        scores = con.execute(SCORES_SQL, {"weeks": weeks}).df()
        trend = quality(con, weeks[0])
    metric = at_length(NDCG, warehouse, weeks)
    rows = [_row(week, counts.get(week, {}), scores[scores.week == week]) for week in weeks]
    picture = _trend(trend, metric)
    return render("index.html", made=made, log=source.shown, rows=rows, picture=picture, metric=metric)


def _row(week: str, counts: Mapping[Any, int], metrics: pd.DataFrame) -> dict[str, Any]:
    ours, lift = ndcg(metrics), lift_over_best(metrics)
    difference = Difference(lift.value, lift.ci_low, lift.ci_high) if lift else None
    found = {"week": week, "ours": ours.value if ours else None, "difference": difference}
    return found | {name: counts.get(name, 0) for name in ("users", "interactions", "rejected")}


def _trend(scores: pd.DataFrame, metric: str) -> Picture | None:
    if scores.empty:
        return None
    weeks = scores.week.astype(str).str[:10]
    return quality_chart(scores, f"{metric} by week, {weeks.min()} to {weeks.max()}, with 95% intervals.", metric)
