import pandas as pd
import pytest

from tgn_assets.metadata import reliability_plot
from tgn_assets.ml.scorecard import candidate_recall, points_lost, reliability


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
