"""What a week costs and its lists are worth: results are kept, merged, and drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.quality import costs_page, measure_costs
from benchmarks.quality.costs import Cost, Costs, merged, read_costs, write_costs
from benchmarks.quality.measure_costs import Week

LAMBDARANK = Cost(0.2, 90, 10.0, 10.0, False, "2026-01-05", "a machine")
COSTS: Costs = {
    "tea": {
        "standard": replace(LAMBDARANK, ndcg=0.22, seconds=20.0),
        "LambdaRank": LAMBDARANK,
        "SASRec": replace(LAMBDARANK, ndcg=0.05, seconds=300.0, stopped=True),
    },
    "milk": {
        "standard": replace(LAMBDARANK, ndcg=0.24, seconds=5.0),
        "LambdaRank": LAMBDARANK,
        "SASRec": replace(LAMBDARANK, ndcg=0.15, seconds=1200.0),
    },
}


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_costs(COSTS, tmp_path / "costs.json")
    assert read_costs(tmp_path / "costs.json") == COSTS
    assert len((tmp_path / "costs.json").read_text().splitlines()) == 6 + 2 * 2 + 2


def test_merging_replaces_the_measured_methods_of_one_log() -> None:
    newer = replace(LAMBDARANK, ndcg=0.3)
    found = merged(COSTS, "tea", {"standard": newer, "best": newer})
    assert found == {**COSTS, "tea": {**COSTS["tea"], "standard": newer, "best": newer}}
    assert merged({}, "tea", {"standard": newer}) == {"tea": {"standard": newer}}


def test_cost_is_mean_over_users_and_median_of_warm_weeks() -> None:
    weeks = {
        "standard": [Week(0.1, 10, 99.0), Week(0.4, 20, 4.0), Week(0.1, 10, 6.0), Week(0.1, 10, 5.0)],
        "LambdaRank": [Week(0.2, 10, 1.0), Week(0.2, 20, 2.0), Week(0.2, 10, 2.0), Week(0.2, 10, 9.0, stopped=True)],
    }
    found = measure_costs.summarized(weeks, day="2026-01-05", machine="a machine")
    assert found["standard"] == Cost(0.22, 50, 5.0, 2.0, False, "2026-01-05", "a machine")
    assert (found["LambdaRank"].ratio, found["LambdaRank"].stopped, found["standard"].ratio) == (1.0, True, 2.5)


def test_table_of_costs_marks_the_best_list_and_stopped_training() -> None:
    newest = replace(COSTS["tea"]["standard"], measured="2026-01-12", machine="other")
    assert costs_page.table(merged(COSTS, "tea", {"standard": newest})).splitlines() == [
        "| log | standard | LambdaRank | SASRec |",
        "|---|---|---|---|",
        "| tea | **0.220**<br>20 s, 2.0x | 0.200<br>10 s, 1.0x | 0.050<br>>300 s, >30x |",
        "| milk | **0.240**<br>5.0 s, 0.5x | 0.200<br>10 s, 1.0x | 0.150<br>1,200 s, 120x |",
        "| mean of 2 logs, against LambdaRank | +15.0%<br>1.0x | +0.0%<br>1.0x | -50.0%<br>>60x |",
        "",
        "Measured on a machine; other; 2026-01-05 to 2026-01-12.",
    ]


def test_plot_has_each_log_and_their_mean() -> None:
    found: Any = costs_page.points(COSTS).round(6).set_index(["method", "log"])
    assert found.index.tolist() == [
        (method, log) for method in ("standard", "LambdaRank", "SASRec") for log in ("tea", "milk", "")
    ]
    assert found.loc[("standard", "milk"), ["ratio", "lead", "shown", "label"]].tolist() == [0.5, 0.2, 0.2, ""]
    assert found.loc[("standard", ""), ["ratio", "lead", "label"]].tolist() == [1.0, 0.15, "standard +15%, 1.0x"]
    assert found.loc[("SASRec", ""), ["ratio", "lead", "shown"]].tolist() == [60.0, -0.5, costs_page.LOWEST]
    assert found.loc[("SASRec", ""), "label"] == "SASRec, stopped: -50%, >60x"


def test_means_leave_out_logs_that_lack_a_method() -> None:
    partial = merged(COSTS, "milk", {"best": LAMBDARANK})
    assert costs_page.complete_logs(partial) == ["milk"]
    assert "mean" not in costs_page.table(partial)
    assert costs_page.points(partial).log.tolist() == [""] * 4
    with pytest.raises(ValueError, match="no log has all"):
        costs_page.points({"tea": {"standard": LAMBDARANK}, "milk": {"best": LAMBDARANK}})


def test_published_table_and_plot_are_those_of_the_kept_costs() -> None:
    costs = read_costs()
    assert costs_page.table(costs) in measure_costs.PAGE.read_text()
    drawn = ElementTree.fromstring(measure_costs.PLOT.read_text())
    words = " ".join(text for node in drawn.iter() if (text := node.text))
    assert all(label in words for label in costs_page.points(costs).label if label)


def test_plot_is_as_wide_as_readme_on_github() -> None:
    drawn = ElementTree.fromstring(costs_page.chart(COSTS))
    assert 760 <= float(drawn.attrib["width"]) <= 830


def test_home_of_second_preset_begins_with_what_first_one_ingested(tmp_path: Path) -> None:
    first = measure_costs._home(tmp_path, "fast")
    assert not first.exists()
    first.mkdir()
    (first / "warehouse.duckdb").write_text("ingested")
    second = measure_costs._home(tmp_path, "standard")
    (second / "warehouse.duckdb").write_text("refreshed")
    assert measure_costs._home(tmp_path, "standard") == second
    assert [(home / "warehouse.duckdb").read_text() for home in (first, second)] == ["ingested", "refreshed"]
