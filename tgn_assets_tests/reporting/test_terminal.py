"""Pooled scores of several weeks, worked out by hand."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.evaluation.intervals import clustered_interval, mean_interval
from tgn_assets.ml.evaluation.metric_names import RANKING_METRICS
from tgn_assets.reporting.publications import PublicationTimes
from tgn_assets.reporting.terminal import (
    backtest_tables,
    newest_score,
    pooled_scores,
    sample_table,
    score_text,
    scores_and_stability,
)
from tgn_assets.state.warehouse import Warehouse

WEEKS = ["2024-01-08", "2024-01-15"]
ALONE = "2024-01-22"
"""A week with one active user."""
GROUPS = ["week", "model", "segment", "user_group", "ndcg", "users"]
COLUMNS = ["week", "model", "segment", "metric", "value", "ci_low", "ci_high", "users"]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """30 users in the first week and 10 in the second; nobody new, so that `all` and `seen` are the same."""
    scores = {"tgn_assets": (0.4, 0.8), "popular": (0.1, 0.1), "repeat": (0.3, 0.7), "ceiling": (0.9, 0.9)}
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    for i, week in enumerate(WEEKS):
        rows: list[tuple[object, ...]] = [
            (week, model, segment, metric, values[i], values[i] - 0.1, values[i] + 0.1, (30, 10)[i])
            for model, values in scores.items()
            for segment in ("all", "seen")
            for metric in RANKING_METRICS
        ]
        rows += [(week, "tgn_assets", "new", "ndcg", None, None, None, 0)]
        rows += [(week, "tgn_assets", "all", "served", 1.0, None, None, 30)]
        warehouse.replace_week_tables(week, {"eval_metrics": pd.DataFrame(rows, columns=COLUMNS)})
        users = (30, 10)[i]
        groups = [
            (week, model, segment, user, values[i], 1)
            for model, values in scores.items()
            for segment in ("all", "seen")
            for user in range(users)
        ]
        warehouse.replace_week_tables(week, {"eval_user_groups": pd.DataFrame(groups, columns=GROUPS)})
    return warehouse


def test_every_active_user_of_every_week_counts_once(warehouse: Warehouse) -> None:
    score = pooled_scores(warehouse, WEEKS)["tgn_assets", "all", "ndcg"]
    assert score.users == 40
    assert score.value == pytest.approx((30 * 0.4 + 10 * 0.8) / 40)


def test_user_of_several_weeks_is_resampled_as_one(warehouse: Warehouse) -> None:
    score = pooled_scores(warehouse, WEEKS)["tgn_assets", "all", "ndcg"]
    # Ten users with .4 and .8 in two weeks, twenty with .4 in one, and the pseudo users 0, 0, 1, 1.
    sums, users = np.array([[1.2]] * 10 + [[0.4]] * 20), np.array([2] * 10 + [1] * 20)
    low, high = clustered_interval(sums, users)
    assert score.ci == pytest.approx([low[0], high[0]])
    values = np.array([0.4] * 30 + [0.8] * 10)[:, None]
    assert score.ci != pytest.approx([limit[0] for limit in mean_interval(values)], abs=1e-3)


def test_pooling_without_intervals_or_users(warehouse: Warehouse) -> None:
    scores = pooled_scores(warehouse, WEEKS)
    assert scores["tgn_assets", "all", "served"].ci is None
    assert ("tgn_assets", "new", "ndcg") not in scores


def test_no_pooled_interval_if_a_week_has_none(warehouse: Warehouse) -> None:
    single = (ALONE, "tgn_assets", "all", "ndcg", 1.0, None, None, 1)
    warehouse.replace_week_tables(ALONE, {"eval_metrics": pd.DataFrame([single], columns=COLUMNS)})
    score = pooled_scores(warehouse, [*WEEKS, ALONE])["tgn_assets", "all", "ndcg"]
    assert (score.users, score.ci) == (41, None)


def test_a_bounded_metric_has_its_interval_in_bounds(warehouse: Warehouse) -> None:
    for week in WEEKS:
        values = {"popular": 0.0, "ceiling": 1.0}
        rows = [(week, model, "all", "ndcg", value, None, None, 3) for model, value in values.items()]
        warehouse.replace_week_tables(week, {"eval_metrics": pd.DataFrame(rows, columns=COLUMNS)})
        groups = [(week, model, "all", user, value, 1) for model, value in values.items() for user in range(3)]
        warehouse.replace_week_tables(week, {"eval_user_groups": pd.DataFrame(groups, columns=GROUPS)})
    scores = pooled_scores(warehouse, WEEKS)
    low, high = scores["popular", "all", "ndcg"].ci or []
    assert low == 0 < high < 1
    low, high = scores["ceiling", "all", "ndcg"].ci or []
    assert 0 < low < high == 1


def test_models_are_ordered_ours_baselines_by_score_ceiling(warehouse: Warehouse) -> None:
    tables = backtest_tables(warehouse, WEEKS)
    for segment in ("all", "seen"):
        models = [row["model"] for row in tables[segment].rows]
        assert models == ["tgn_assets", "repeat", "popular", "ceiling"]


def test_the_last_table_has_a_row_per_week(warehouse: Warehouse) -> None:
    table = backtest_tables(warehouse, WEEKS)["by_week"]
    assert [column.title for column in table.columns][:4] == ["week", "users", "tgn_assets", "repeat"]
    assert [row["week"] for row in table.rows] == WEEKS
    assert [row["tgn_assets"] for row in table.rows] == [0.4, 0.8]


def test_score_line_has_our_score_and_the_best_baseline(warehouse: Warehouse) -> None:
    line = score_text(newest_score(warehouse, WEEKS[1]) or {})
    assert "NDCG@5 0.8000  [0.7000, 0.9000] with 10 active users" in line
    assert line.endswith("the best baseline, repeat, 0.7000")
    assert newest_score(warehouse, "2024-01-22") is None


def test_drawn_users_are_compared_with_drawn_users(warehouse: Warehouse) -> None:
    rows = [
        (WEEKS[1], "tgn_assets", "all", "ndcg", 0.8, 0.7, 0.9, 1000),
        (WEEKS[1], "tgn_assets", "all", "drawn:ndcg", 0.6, 0.5, 0.7, 10),
        (WEEKS[1], "repeat", "all", "ndcg", 0.5, 0.4, 0.6, 10),
    ]
    warehouse.replace_week_tables(WEEKS[1], {"eval_metrics": pd.DataFrame(rows, columns=COLUMNS)})
    assert pooled_scores(warehouse, WEEKS[1:])["tgn_assets", "all", "ndcg"].value == 0.8
    assert ("tgn_assets", "all", "drawn:ndcg") not in pooled_scores(warehouse, WEEKS)
    # Of the first week there is but one number: all of its 30 users were drawn.
    compared = pooled_scores(warehouse, WEEKS, compared=True)["tgn_assets", "all", "ndcg"]
    assert (compared.value, compared.users) == (pytest.approx((30 * 0.4 + 10 * 0.6) / 40), 40)
    tables = backtest_tables(warehouse, WEEKS)
    assert tables["all"].title.startswith("all active users: 40 drawn of 1,030 in 2 target weeks")
    assert tables["by_week"].rows[1]["tgn_assets"] == 0.6
    line = score_text(newest_score(warehouse, WEEKS[1]) or {})
    assert "0.8000  [0.7000, 0.9000] with 1,000 active users" in line
    assert line.endswith("the best baseline, repeat, 0.5000 with 10 drawn ones")


def test_a_short_catalogue_leaves_places_empty(warehouse: Warehouse) -> None:
    rows = [(WEEKS[1], "2024-01-22", "u", rank, f"e{rank}", 0.5, "popular") for rank in (2, 1)]
    columns = ["week", "target_week", "user_id", "rank", "event_id", "score", "source"]
    warehouse.replace_week_tables(WEEKS[1], {"weekly_top5_predictions": pd.DataFrame(rows, columns=columns)})
    table = sample_table(warehouse, WEEKS[1])
    cells = [table.rows[0].get(column.key) for column in table.columns]
    assert cells == ["u", "e1", "e2", None, None, None, "popular"]


@pytest.mark.parametrize(("brier", "word"), [(0.04, "better than any constant"), (0.06, "no better than one constant")])
def test_summary_says_whether_scores_beat_a_constant(warehouse: Warehouse, brier: float, word: str) -> None:
    values = {"brier": brier, "brier_constant": 0.05, "overlap": 0.75}
    rows = [(WEEKS[0], "tgn_assets", "all", metric, value, None, None, 9) for metric, value in values.items()]
    rows += [(WEEKS[0], "tgn_assets", "new", "brier", 0.9, None, None, 9)]
    warehouse.replace_week_tables(WEEKS[0], {"eval_metrics": pd.DataFrame(rows, columns=COLUMNS)})
    scores, overlap = scores_and_stability(warehouse, WEEKS)
    assert word in scores and f"{1 - brier / 0.05:.1%}" in scores
    assert overlap == "overlap@5 of active users' lists with those of the week before: 75%"
    assert list(scores_and_stability(warehouse, WEEKS[1:])) == []


@pytest.mark.parametrize(("replaced", "how_often"), [(1, ""), (3, " 3 times, most recently")])
def test_replaced_lists_say_how_often(replaced: int, how_often: str) -> None:
    times = PublicationTimes("2024-01-01", datetime(2024, 1, 9), datetime(2024, 1, 8), replaced)
    assert str(times).startswith(f"the lists of 2024-01-01 took the place of others{how_often} at 2024-01-09 00:00 UTC")
