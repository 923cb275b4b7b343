"""Checks that warn, on tables written by hand."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.checks.monitoring import WARNING_KEYS, monitoring_checks
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log, ingest

WEEK = WEEKS[3]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    with warehouse.writer():
        return warehouse


def evaluate(name: str, warehouse: Warehouse) -> dg.AssetCheckEvaluation:
    """The outcome of the check `name` for `WEEK`, run with an asset that leaves the tables as they are."""
    weeks = weekly_partitions(WEEKS[0], WEEK)

    @dg.asset(name=next(key.asset_key.path[-1] for key in WARNING_KEYS if key.name == name), partitions_def=weeks)
    def untouched() -> None: ...

    result = dg.materialize(
        [untouched, *monitoring_checks(weeks)],
        selection=[untouched],
        partition_key=WEEK,
        resources={"warehouse": dg.ResourceDefinition.hardcoded_resource(warehouse)},
        instance=dg.DagsterInstance.ephemeral(),
    )
    (found,) = result.get_asset_check_evaluations()
    assert (found.check_name, found.severity, found.partition) == (name, dg.AssetCheckSeverity.WARN, WEEK)
    return found


def lists(warehouse: Warehouse, *sources: str) -> None:
    users = {f"u{i}": source for i, source in enumerate(sources)}
    rows = [
        (WEEK, "2024-01-29", user, rank, f"e{rank}", 0.5, source) for user, source in users.items() for rank in (1, 2)
    ]
    columns = ["week", "target_week", "user_id", "rank", "event_id", "score", "source"]
    warehouse.replace_week("weekly_top5_predictions", WEEK, pd.DataFrame(rows, columns=columns))


def scores(warehouse: Warehouse, low: float, high: float) -> None:
    rows = [
        (WEEK, "repeat", "all", "ndcg", 0.4, 0.3, 0.5, 1234),
        (WEEK, "repeat", "all", "ndcg_lift", (low + high) / 2, low, high, 1234),
    ]
    columns = ["week", "model", "segment", "metric", "value", "ci_low", "ci_high", "users"]
    warehouse.replace_week("eval_metrics", WEEK, pd.DataFrame(rows, columns=columns))


@pytest.mark.parametrize(("sources", "passed"), [(["repeat"], True), (["popular", "repeat"], False)])
def test_warns_if_baselines_make_most_lists(sources: list[str], passed: bool, warehouse: Warehouse) -> None:
    lists(warehouse, "tgn_assets", *sources)
    found = evaluate("lists_are_ours", warehouse)
    assert found.passed == passed
    assert "repeat 1, tgn_assets 1" in str(found.description)
    assert ("trained_ranker" in str(found.description)) == (not passed)
    assert found.metadata["share_from_baselines"].value == pytest.approx(len(sources) / (1 + len(sources)))


def test_warns_if_a_baseline_is_clearly_better(warehouse: Warehouse) -> None:
    scores(warehouse, -0.06, -0.02)
    found = evaluate("not_below_baseline", warehouse)
    assert not found.passed
    assert "repeat: -0.0400 [-0.0600, -0.0200] over 1,234 users" in str(found.description)
    assert "lost/" in str(found.description)


def test_insignificant_difference_is_no_warning(warehouse: Warehouse) -> None:
    scores(warehouse, -0.06, 0.01)
    assert evaluate("not_below_baseline", warehouse).passed


def test_warnings_pass_without_data(warehouse: Warehouse) -> None:
    assert "Nothing to score" in str(evaluate("not_below_baseline", warehouse).description)
    assert "none were made" in str(evaluate("lists_are_ours", warehouse).description)
    found = evaluate("input_like_before", warehouse)
    assert found.passed and "it takes 4 weeks before it" in str(found.description)


def test_warns_of_drift_with_remedy(tmp_path: Path) -> None:
    past = [row.replace("2024-01", "2023-12") for row in ROWS if WEEKS[0] not in row]
    crowd = [f"user {i},event 0,{WEEK} 12:00:00" for i in range(99)]
    home = home_on_log(tmp_path, [*past, *ROWS, *crowd], start_week="2023-12-04")
    weeks = ["2023-12-04", "2023-12-11", "2023-12-18", *WEEKS]
    ingest(home, *weeks)
    found = evaluate("input_like_before", home.warehouse())
    assert not found.passed
    assert "volume 103, usually 4 (robust z +" in str(found.description)
    assert f"run weekly_refresh for {WEEK} again" in str(found.description)
    assert found.metadata["volume"].value == 103
