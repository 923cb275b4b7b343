"""Checks that warn, on tables written by hand."""

from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest

from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.checks.monitoring import WARNING_KEYS, monitoring_checks
from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.monitoring.week_warnings import not_below_baseline
from tgn_assets.ml.schema import OURS, create_tables
from tgn_assets.ml.weeks import shift
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
    warehouse.replace_week_tables(WEEK, {"weekly_top5_predictions": pd.DataFrame(rows, columns=columns)})


def scores(warehouse: Warehouse, gains: list[FloatArray], users: list[np.ndarray] | None = None) -> None:
    """The last weeks up to `WEEK`: `gains` [n] are by how much our NDCG was better than that of `repeat`."""
    for back, gain in enumerate(reversed(gains)):
        week, known = shift(WEEK, -back), np.arange(len(gain)) if users is None else users[len(gains) - 1 - back]
        low, high = gain.mean() - 0.01, gain.mean() + 0.01
        metrics = [
            (week, "repeat", "all", "ndcg", 0.4, 0.3, 0.5, len(gain)),
            (week, "repeat", "all", "ndcg_lift", gain.mean(), low, high, len(gain)),
        ]
        columns = ["week", "model", "segment", "metric", "value", "ci_low", "ci_high", "users"]
        warehouse.replace_week_tables(week, {"eval_metrics": pd.DataFrame(metrics, columns=columns)})
        groups = [(week, OURS, "all", user, 0.4 + of, 1) for user, of in zip(known, gain, strict=True)]
        groups += [(week, "repeat", "all", user, 0.4, 1) for user in known]
        columns = ["week", "model", "segment", "user_group", "ndcg", "users"]
        warehouse.replace_week_tables(week, {"eval_user_groups": pd.DataFrame(groups, columns=columns)})


def noise(mean: float, users: int, seed: int = 0) -> FloatArray:
    """[users] with this mean, and a standard deviation of .3."""
    drawn = np.random.default_rng(seed).normal(0, 0.3, users)
    return drawn - drawn.mean() + mean


@pytest.mark.parametrize(("sources", "passed"), [(["repeat"], True), (["popular", "repeat"], False)])
def test_warns_if_baselines_make_most_lists(sources: list[str], passed: bool, warehouse: Warehouse) -> None:
    lists(warehouse, "tgn_assets", *sources)
    found = evaluate("lists_are_ours", warehouse)
    assert found.passed == passed
    assert "repeat 1, tgn_assets 1" in str(found.description)
    assert ("trained_ranker" in str(found.description)) == (not passed)
    assert found.metadata["share_from_baselines"].value == pytest.approx(len(sources) / (1 + len(sources)))


def test_warns_if_a_baseline_is_clearly_better(warehouse: Warehouse) -> None:
    scores(warehouse, [noise(-0.1, 200)])
    found = evaluate("not_below_baseline", warehouse)
    assert not found.passed
    assert "repeat: -0.1000 [-0.1100, -0.0900] over 200 users" in str(found.description)
    assert "lost/" in str(found.description)


def test_insignificant_difference_is_no_warning(warehouse: Warehouse) -> None:
    scores(warehouse, [noise(-0.05, 100)])
    assert evaluate("not_below_baseline", warehouse).passed


def test_small_difference_of_many_weeks_is_a_warning(warehouse: Warehouse) -> None:
    weeks = [noise(-0.05, 100, seed) for seed in range(8)]
    scores(warehouse, weeks, users=[np.arange(100) + 100 * week for week in range(8)])
    found = evaluate("not_below_baseline", warehouse)
    assert not found.passed and "In 8 weeks together" in str(found.description)
    # The same users eight times over are no more users.
    scores(warehouse, [noise(-0.05, 100)] * 8)
    assert evaluate("not_below_baseline", warehouse).passed


def test_sudden_loss_is_a_warning_after_good_weeks(warehouse: Warehouse) -> None:
    scores(warehouse, [*[noise(0.1, 200, seed) for seed in range(7)], noise(-0.2, 200)])
    assert not evaluate("not_below_baseline", warehouse).passed


def test_later_weeks_change_no_verdict(warehouse: Warehouse) -> None:
    scores(warehouse, [noise(0.02, 100)])
    with warehouse.reader() as con:
        before = not_below_baseline(con, WEEK)
    with warehouse.writer() as con:
        for table in ("eval_user_groups", "eval_metrics"):
            con.execute(f"INSERT INTO {table} BY NAME SELECT * REPLACE (week + 7 AS week) FROM {table}")
        con.execute("UPDATE eval_user_groups SET ndcg = 0 WHERE model = 'tgn_assets' AND week > ?", [WEEK])
    with warehouse.reader() as con:
        assert not_below_baseline(con, WEEK) == before


@pytest.mark.usefixtures("few_draws")
def test_equal_rankers_warn_at_the_nominal_rate() -> None:
    rng, warned = np.random.default_rng(0), []
    weeks, models = [shift(WEEK, -1), WEEK][::-1], [OURS, *BASELINES]
    product = pd.MultiIndex.from_product([weeks, models, range(50)], names=["week", "model", "user_group"])
    places = product.to_frame(index=False).assign(segment="all", users=1)
    with duckdb.connect() as con:
        create_tables(con)
        con.execute(
            "INSERT INTO eval_metrics SELECT $week::DATE, 'repeat', 'all', metric, 0, 0, 0, 50 "
            "FROM unnest(['ndcg', 'ndcg_lift']) AS _(metric)",
            {"week": WEEK},
        )
        for _ in range(200):
            drawn = rng.random((len(places), 2))
            rows = places.assign(ndcg=(drawn[:, 0] < 0.4) * drawn[:, 1])
            con.execute("DELETE FROM eval_user_groups")
            con.register("rows", rows)
            con.execute("INSERT INTO eval_user_groups BY NAME FROM rows")
            warned.append(not not_below_baseline(con, WEEK).passed)
    assert np.mean(warned) <= 0.045, "2.5%, but for chance; with the best of four uncorrected it is some 8%"


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
