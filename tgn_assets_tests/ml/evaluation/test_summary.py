import pandas as pd
import pytest

from tgn_assets.ml.evaluation.summary import Lift, candidate_recall, lift_over_best, points_lost, reliability
from tgn_assets.reporting.asset_plots import reliability_plot


def metrics(**ndcg: float) -> pd.DataFrame:
    rows = [(model, "all", "ndcg", value) for model, value in ndcg.items()]
    rows += [(model, "seen", "ndcg", value / 2) for model, value in ndcg.items()]
    rows += [("tgn_assets", "all", name, value) for name, value in [("brier", 0.02), ("predicted:0.1-0.2", 0.15)]]
    rows += [("tgn_assets", "all", name, value) for name, value in [("observed:0.1-0.2", 0.12), ("observed:0-0.01", 0)]]
    rows += [("tgn_assets", "all", "predicted:0-0.01", 0.004), ("candidates", "seen", "candidate_recall:own", 0.4)]
    return pd.DataFrame(rows, columns=["model", "segment", "metric", "value"])


def test_the_points_lost_at_each_step_add_up_to_what_is_missing_to_a_perfect_list() -> None:
    lost = points_lost(metrics(ceiling=0.9, candidates=0.6, ungated=0.3, tgn_assets=0.32))
    assert lost == pytest.approx({"unknown_events": 0.1, "recall": 0.3, "ranking": 0.3, "gate": -0.02})
    assert sum(lost.values()) == pytest.approx(1 - 0.32)


def test_without_a_look_inside_the_ranker_nothing_is_claimed() -> None:
    assert points_lost(metrics(ceiling=0.9, tgn_assets=0.3)) == {}


def test_recall_is_told_by_channel_and_the_scores_are_drawn_from_the_lowest_to_the_highest() -> None:
    frame = metrics(ceiling=0.9, tgn_assets=0.3)
    assert candidate_recall(frame) == {"candidate_recall:own": 0.4}
    assert reliability(frame) == [(0.004, 0), (0.15, 0.12)]
    assert str(reliability_plot(reliability(frame))["reliability"].value).startswith(
        "![reliability of the scores](data:"
    )
    assert reliability_plot([(0.004, 0)]) == {}


def test_the_lift_is_that_over_the_baseline_with_the_best_score() -> None:
    columns = ["model", "segment", "metric", "value", "ci_low", "ci_high", "users"]
    rows = [
        ("popular", "all", "ndcg", 0.2, 0.1, 0.3, 9),
        ("repeat", "all", "ndcg", 0.4, 0.3, 0.5, 9),
        ("ceiling", "all", "ndcg", 0.9, 0.8, 1.0, 9),
        ("popular", "all", "ndcg_lift", 0.1, 0.05, 0.15, 9),
        ("repeat", "all", "ndcg_lift", -0.1, -0.15, -0.05, 9),
        ("popular", "seen", "ndcg_lift", 0.3, 0.2, 0.4, 9),
    ]
    frame = pd.DataFrame(rows, columns=columns)
    assert lift_over_best(frame) == Lift("repeat", -0.1, -0.15, -0.05, 9)
    assert lift_over_best(frame.head(0)) is None
