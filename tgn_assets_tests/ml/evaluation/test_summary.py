import pandas as pd
import pytest

from tgn_assets.ml.evaluation.summary import (
    Lift,
    comparison,
    diagnostics,
    lift_over_best,
    points_lost,
    reliability,
)
from tgn_assets.reporting.asset_plots import reliability_plot


def metrics(**ndcg: float) -> pd.DataFrame:
    rows = [(model, "all", "ndcg", value) for model, value in ndcg.items()]
    rows += [(model, "seen", "ndcg", value / 2) for model, value in ndcg.items()]
    rows += [("tgn_assets", "all", name, value) for name, value in [("brier", 0.02), ("predicted:0.1-0.2", 0.15)]]
    rows += [("tgn_assets", "all", name, value) for name, value in [("observed:0.1-0.2", 0.12), ("observed:0-0.01", 0)]]
    rows += [
        ("tgn_assets", "all", "predicted:0-0.01", 0.004),
        ("candidates", "seen", "candidate_recall:repeat", 0.4),
    ]
    frame = pd.DataFrame(rows, columns=["model", "segment", "metric", "value"])
    return frame.assign(ci_low=frame.value - 0.1, ci_high=frame.value + 0.1, users=9)


def test_points_lost_add_up() -> None:
    lost = points_lost(metrics(ceiling=0.9, candidates=0.6, without_fallback=0.3, tgn_assets=0.32))
    assert lost == pytest.approx({"unknown_events": 0.1, "recall": 0.3, "ranking": 0.3, "fallback": -0.02})
    assert sum(lost.values()) == pytest.approx(1 - 0.32)


def test_the_comparison_has_ours_then_baselines_then_bounds() -> None:
    frame = metrics(ceiling=0.9, popular=0.1, repeat=0.4, without_fallback=0.3, tgn_assets=0.32)
    table = comparison(frame)
    assert table.model.tolist() == ["tgn_assets", "repeat", "popular", "ceiling", "without_fallback"]
    assert table.columns.tolist() == ["model", "ndcg", "ci_low", "ci_high", "users"]
    assert table.iloc[0, 1:].tolist() == pytest.approx([0.32, 0.22, 0.42, 9])
    assert comparison(frame, "seen").ndcg[0] == 0.16


def test_diagnostics_are_what_only_our_lists_have() -> None:
    assert diagnostics(metrics(ceiling=0.9, tgn_assets=0.3)).to_numpy().tolist() == [["brier", 0.02, 9]]


def test_no_points_lost_without_diagnostics() -> None:
    assert points_lost(metrics(ceiling=0.9, tgn_assets=0.3)) == {}


@pytest.mark.filterwarnings("error")
def test_no_points_lost_in_a_week_without_active_users() -> None:
    of_all = metrics(ceiling=0.9, candidates=0.6, without_fallback=0.3, tgn_assets=0.3)
    frame = pd.concat([of_all, of_all[of_all.segment == "all"].assign(segment="left_out")])
    assert points_lost(frame.assign(value=None, users=0)) == {}


def test_reliability() -> None:
    frame = metrics(ceiling=0.9, tgn_assets=0.3)
    assert reliability(frame) == [(0.004, 0), (0.15, 0.12)]
    assert str(reliability_plot(reliability(frame))["reliability"].value).startswith(
        "![reliability of the scores](data:"
    )
    assert reliability_plot([(0.004, 0)]) == {}


def test_lift_is_over_the_best_baseline() -> None:
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
