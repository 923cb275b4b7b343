import pandas as pd
import pytest

from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.evaluate import COLUMNS, GROUP_COLUMNS, evaluate_week, user_groups
from tgn_assets.ml.evaluation.evaluation_input import read_evaluation_input
from tgn_assets.ml.evaluation.metric_names import CEILING, RANKING_METRICS
from tgn_assets.ml.evaluation.scored_week import score_week
from tgn_assets.ml.evaluation.summary import reliability
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.tea_log import (
    DISCOUNT,
    HAPPENED,
    KNOWN,
    MODELS,
    PUBLISHED,
    WEEK,
    evaluate,
    happened,
    metrics_of,
    past,
    published,
    value,
    warehouse_of,
)

SEGMENTS = ("all", "seen", "repeat", "explore", "new")


def test_every_model_segment_metric_is_there_once() -> None:
    frame = evaluate()
    assert list(frame.columns) == COLUMNS
    assert set(frame.week) == {WEEK}
    assert not frame.duplicated(["model", "segment", "metric"]).any()
    grid = {(model, segment, metric) for model in MODELS for segment in SEGMENTS for metric in RANKING_METRICS}
    assert grid <= set(frame[["model", "segment", "metric"]].itertuples(index=False, name=None))


def test_published_lists_score_as_by_hand() -> None:
    frame = evaluate()
    # ann: tea of (tea, oil) first. bob: tea, the only one, second. dan is new: rye, of rye and an unknown event.
    ideal = DISCOUNT[:2].sum()
    ann, bob, dan = 1 / ideal, DISCOUNT[1], DISCOUNT[1] / ideal
    assert value(frame, OURS, "ndcg") == pytest.approx((ann + bob + dan) / 3, abs=1e-6)
    assert value(frame, OURS, "ndcg", "seen") == pytest.approx((ann + bob) / 2, abs=1e-6)
    assert value(frame, OURS, "ndcg", "new") == pytest.approx(dan, abs=1e-6)
    assert value(frame, OURS, "precision") == pytest.approx(1 / 5)
    assert value(frame, OURS, "mrr") == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert value(frame, OURS, "recall", "new") == pytest.approx(1 / 2)


def test_segments_follow_what_active_users_did() -> None:
    users = {segment: value(evaluate(), OURS, "ndcg", segment, "users") for segment in SEGMENTS}
    # ann repeats tea and explores oil, bob repeats, dan explores as every new user does.
    assert users == {"all": 3, "seen": 2, "repeat": 2, "explore": 2, "new": 1}


def test_new_users_and_events_are_no_past_pairs() -> None:
    frame = evaluate(truth={"ann": "new", "bob": "new", "dan": "new"})
    assert value(frame, OURS, "ndcg", "repeat", "users") == 0
    assert value(frame, OURS, "ndcg", "explore", "users") == 3


def test_baselines_score_as_by_hand() -> None:
    frame = evaluate()
    # Popular: rye, tea, oil, jam. ann has tea and oil in places 2 and 3, bob tea in 2, dan rye in 1.
    ideal = DISCOUNT[:2].sum()
    popular = ((DISCOUNT[1] + DISCOUNT[2]) / ideal + DISCOUNT[1] + 1 / ideal) / 3
    assert value(frame, "popular", "ndcg") == pytest.approx(popular, abs=1e-6)
    # Repeat: ann tea, jam, rye, oil; bob tea (4 * 0.5 ** 0.25), oil; dan popular.
    repeat = ((1 + DISCOUNT[3]) / ideal + 1 + 1 / ideal) / 3
    assert value(frame, "repeat", "ndcg") == pytest.approx(repeat, abs=1e-6)


def test_ceiling_knows_no_event_of_the_week_itself() -> None:
    frame = evaluate()
    assert value(frame, CEILING, "ndcg", "seen") == 1
    assert value(frame, CEILING, "ndcg", "new") == pytest.approx(1 / DISCOUNT[:2].sum(), abs=1e-6)
    scores = frame[frame.metric.isin(RANKING_METRICS)].pivot(
        index="model", columns=["segment", "metric"], values="value"
    )
    assert (scores.loc[[CEILING]].to_numpy() >= scores.to_numpy()).all()


def test_perfect_lists_reach_the_ceiling() -> None:
    frame = evaluate({"ann": "oil tea", "bob": "tea", "dan": "rye"})
    for metric in RANKING_METRICS:
        assert value(frame, OURS, metric) == value(frame, CEILING, metric)


def test_brier_and_calibration_bins_by_hand() -> None:
    lists = published({"ann": "tea", "bob": "tea rye", "zoe": "tea"})
    lists["score"] = [0.9, 0.3, 0.15, 0.3]
    truth = happened({"ann": "tea", "bob": "rye"})
    frame = metrics_of(WEEK, lists, truth, new_user_list=["tea"], **past(KNOWN))
    squares = [0.1**2, 0.3**2, 0.85**2, 0.3**2]
    assert value(frame, OURS, "brier") == pytest.approx(sum(squares) / 4)
    assert value(frame, OURS, "brier_constant") == pytest.approx(1 / 4)
    assert value(frame, OURS, "predicted:0.2-0.4") == pytest.approx(0.3)
    assert value(frame, OURS, "observed:0.2-0.4") == 0
    assert value(frame, OURS, "observed:0.2-0.4", column="users") == 2
    assert value(frame, OURS, "observed:0.4-1") == 1
    assert value(frame, OURS, "brier_skill") == pytest.approx(1 - sum(squares) / 4 / (1 / 4))


def test_scores_of_new_users_are_rows_of_their_segment() -> None:
    new_users = pd.DataFrame({"rank": [1, 2], "event_id": ["tea", "rye"], "score": [0.5, 0.15]})
    lists, truth = published({"ann": "tea"}), happened({"ann": "tea", "dan": "rye", "eve": "tea oil", "fay": "jam"})
    known = past(KNOWN)
    with warehouse_of(WEEK, lists, truth, new_users, **known) as con:
        given = read_evaluation_input(con, WEEK, k=5)
    assert given
    frame = evaluate_week(score_week(WEEK, given, history=known["history"]))
    # Of three new users, eve had the first event of the list, and dan the second.
    squares = [0.5**2, 0.5**2, 0.5**2, 0.15**2, 0.15**2, 0.85**2]
    assert value(frame, OURS, "brier", "new") == pytest.approx(sum(squares) / 6)
    assert value(frame, OURS, "brier", "new", "users") == 6
    assert value(frame, OURS, "brier_constant", "new") == pytest.approx(2 / 6 * 4 / 6)
    assert value(frame, OURS, "predicted:0.4-1", "new") == 0.5
    assert value(frame, OURS, "observed:0.4-1", "new") == pytest.approx(1 / 3)
    assert value(frame, OURS, "observed:0.1-0.2", "new") == pytest.approx(1 / 3)
    assert reliability(frame) == [(0.5, 1.0)], "the chart is of all users' lists"


def test_overlap_with_the_lists_of_the_week_before() -> None:
    known, cutoff = past(KNOWN), shift(WEEK, -1)
    lists = published({"ann": "tea rye", "bob": "jam tea", "cat": "rye"})
    before = published({"ann": "rye tea jam", "bob": "oil rye", "zoe": "tea"})
    before = before.assign(week=shift(cutoff, -1), target_week=cutoff)
    new_users = pd.DataFrame({"rank": [1], "event_id": ["tea"]})
    rows = pd.concat([lists.assign(week=cutoff, target_week=WEEK), before])
    truth = happened({"ann": "tea", "bob": "tea", "cat": "rye", "dan": "rye"})
    with warehouse_of(WEEK, rows, truth, new_users, **known) as con:
        given = read_evaluation_input(con, WEEK, k=5)
    assert given
    frame = evaluate_week(score_week(WEEK, given, history=known["history"]))
    assert value(frame, OURS, "overlap") == pytest.approx((1 + 0) / 2), "cat had no list, dan is new, zoe not active"
    assert value(frame, OURS, "overlap", column="users") == 2
    assert "overlap" not in set(evaluate().metric), "without lists of the week before there is none"


def test_user_groups_add_up_to_the_means() -> None:
    known = past(KNOWN)
    new_users = pd.DataFrame({"rank": [1, 2], "event_id": ["tea", "rye"]})
    with warehouse_of(WEEK, published(PUBLISHED), happened(HAPPENED), new_users, **known) as con:
        given = read_evaluation_input(con, WEEK, k=5)
        group = con.execute("SELECT md5_number_lower('ann') % 1024").fetchall()[0][0]
    assert given
    scored = score_week(WEEK, given, history=known["history"])
    frame, groups = evaluate_week(scored), user_groups(scored)
    assert list(groups.columns) == GROUP_COLUMNS and not groups.duplicated(GROUP_COLUMNS[:4]).any()
    for model in MODELS:
        for segment in ("all", "seen"):
            rows = groups[(groups.model == model) & (groups.segment == segment)]
            assert rows.users.sum() == value(frame, model, "ndcg", segment, "users")
            assert rows.ndcg.sum() / rows.users.sum() == pytest.approx(value(frame, model, "ndcg", segment))
    assert group in set(groups.user_group), "a user's group depends on the id alone"


def test_hit_rate_by_reason_counts_pairs_of_active_users() -> None:
    lists = published({"ann": "tea rye", "bob": "tea", "dan": "tea", "zoe": "tea"})  # zoe is not active
    lists["reason_kind"] = ["repeat", "popular", "repeat", None, "repeat"]
    frame = metrics_of(
        WEEK, lists, happened({"ann": "tea", "bob": "oil", "dan": "tea"}), new_user_list=["tea"], **past(KNOWN)
    )
    rates = frame[frame.metric.str.startswith("hit_rate:")].set_index("metric")
    assert rates.value.to_dict() == {"hit_rate:popular": 0.0, "hit_rate:repeat": 0.5}
    assert rates.users.to_dict() == {"hit_rate:popular": 1, "hit_rate:repeat": 2}


def test_served_coverage_and_shares_of_sources() -> None:
    frame = evaluate()
    assert value(frame, OURS, "served") == pytest.approx(2 / 3)
    assert value(frame, OURS, "served", "seen") == 1
    assert value(frame, OURS, "served", "new") == 0
    assert value(frame, OURS, "share_of_source:model") == pytest.approx(1 / 3)
    assert value(frame, OURS, "share_of_source:repeat") == pytest.approx(1 / 3)
    assert value(frame, OURS, "coverage") == 3 / 4  # tea, rye, jam
    assert value(frame, "popular", "coverage") == 1


def test_lift_is_a_mean_difference_with_interval() -> None:
    frame = evaluate()
    for baseline in BASELINES:
        lift = value(frame, baseline, "ndcg_lift")
        theirs = value(frame, baseline, "ndcg")
        assert lift == pytest.approx(value(frame, OURS, "ndcg") - theirs)
        assert value(frame, baseline, "ndcg_lift_relative") == pytest.approx(lift / theirs)
        assert value(frame, baseline, "ndcg_lift", column="ci_low") <= lift
        assert value(frame, baseline, "ndcg_lift", column="ci_high") >= lift
        assert 0 <= value(frame, baseline, "ndcg_lift_p") <= 1
