"""What the UI shows of a week's scores: the verdict first, few numbers, the rest in tables."""

import dagster as dg
import pandas as pd

from tgn_assets.reporting.scores_metadata import scores_metadata
from tgn_assets_tests.support.weekly_reports import metrics

NO_TREND = pd.DataFrame(columns=["week", "model", "value", "ci_low", "ci_high"])


def test_ndcg_and_its_verdict_come_first() -> None:
    scores = pd.concat([metrics("2024-01-22", 0.5, 0.3), metrics("2024-01-22", 0.6, 0.4).assign(segment="seen")])
    shown = scores_metadata(scores, NO_TREND, "NDCG@5")
    assert list(shown)[:5] == ["verdict", "NDCG", "NDCG/lift_over_best", "NDCG/repeat", "comparison"]
    assert shown["verdict"].startswith("NDCG@5 0.5000 [0.4800, 0.5200] over 100 active users: better")
    assert [shown[name].value for name in list(shown)[1:4]] == [0.5, 0.2, 0.3]
    rows = [record.data for record in shown["comparison"].records]
    assert rows[0] == {"model": "tgn_assets", "ndcg": 0.5, "ci_low": 0.48, "ci_high": 0.52, "users": 100}
    assert [row["model"] for row in rows] == ["tgn_assets", "repeat"]


def test_score_is_of_everybody_and_comparison_of_drawn_users() -> None:
    scores = metrics("2024-01-22", 0.5, 0.3)
    ours = scores.model == "tgn_assets"
    drawn = scores[ours].assign(metric="drawn:ndcg", value=0.45)
    scores = pd.concat([scores.assign(users=scores.users.where(~ours, 1000)), drawn])
    shown = scores_metadata(scores, NO_TREND, "NDCG@5")
    assert shown["NDCG"].value == 0.5 and "over 1,000 active users" in shown["verdict"]
    assert shown["verdict"].endswith("[+0.1800, +0.2200] with 100 drawn ones)")
    rows = [record.data for record in shown["comparison"].records]
    assert [(row["model"], row["ndcg"], row["users"]) for row in rows] == [
        ("tgn_assets", 0.45, 100),
        ("repeat", 0.3, 100),
    ]


def test_a_week_in_which_nobody_was_active_has_no_score() -> None:
    nobody = metrics("2024-01-22", 0.5, 0.3).assign(value=float("nan"), ci_low=float("nan"), users=0)
    shown = scores_metadata(nobody, NO_TREND, "NDCG@5")
    assert shown["verdict"] == "no score: nobody was active in this week"
    assert not [name for name, value in shown.items() if isinstance(value, dg.FloatMetadataValue)]


def test_candidate_recall_is_a_number_and_by_channel_a_table() -> None:
    of_candidates = metrics("2024-01-22", 0.5, 0.3)[:2].assign(model="candidates", segment="seen", value=[0.6, 0.4])
    found = of_candidates.assign(metric=["candidate_recall", "candidate_recall:repeat"])
    shown = scores_metadata(pd.concat([metrics("2024-01-22", 0.5, 0.3), found]), NO_TREND, "NDCG@5")
    assert shown["candidate_recall"].value == 0.6
    rows = [tuple(record.data.values()) for record in shown["candidate_recall_by_channel"].records]
    assert rows == [("candidate_recall", 0.6), ("candidate_recall:repeat", 0.4)]
