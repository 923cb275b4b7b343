"""Our lists are scored with everybody, the others with drawn users: which numbers are over whom, and who is drawn."""

from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.data.policy import NO_RULES
from tgn_assets.ml.evaluation import evaluation_input
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.evaluation_input import EvaluationInput, read_evaluation_input
from tgn_assets.ml.evaluation.metric_names import CEILING, DRAWN, RANKING_METRICS, WITHOUT_FALLBACK, on_drawn_users
from tgn_assets.ml.evaluation.scored_week import RankerDiagnostics
from tgn_assets.ml.evaluation.summary import comparison, lift_over_best, points_lost
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.tea_log import (
    DISCOUNT,
    KNOWN,
    WEEK,
    Past,
    evaluate,
    happened,
    metrics_of,
    past,
    published,
    value,
    warehouse_of,
)

KEYS = ["model", "segment", "metric"]
NEW_USERS = ["e3", "e1"]
USERS, DRAWN_USERS = 60, 20


def world() -> tuple[pd.DataFrame, pd.DataFrame, Past]:
    """(lists, what happened, history): 50 known users of whom 45 have a list, and ten new ones; all are active."""
    rng = np.random.default_rng(0)
    events = np.array([f"e{event}" for event in range(12)], object)

    def some(users: range, number: int) -> dict[str, str]:
        return {f"u{user:02}": " ".join(rng.choice(events, rng.integers(1, number), replace=False)) for user in users}

    rows = [(user, event, 1, 1) for user, words in some(range(50), 5).items() for event in words.split()]
    lists = published(some(range(45), 6))
    lists["score"] = rng.random(len(lists))
    return lists, happened(some(range(USERS), 8)), past(rows)


def scored(users: int) -> pd.DataFrame:
    lists, truth, known = world()
    return metrics_of(WEEK, lists, truth, new_user_list=NEW_USERS, **known, users=users)


def drawn_ids(con: duckdb.DuckDBPyConnection, week: str = WEEK, users: int = DRAWN_USERS) -> list[str]:
    read_evaluation_input(con, week, k=5, users=users)
    return [user for (user,) in con.execute("SELECT user_id FROM drawn ORDER BY row").fetchall()]


def warehouse(reverse: bool = False) -> duckdb.DuckDBPyConnection:
    lists, truth, known = world()
    new_users = pd.DataFrame({"rank": [1, 2], "event_id": NEW_USERS})
    step = -1 if reverse else 1
    return warehouse_of(WEEK, lists[::step], truth[::step], new_users, **known)


def test_no_fewer_users_than_asked_for_gives_the_same_bytes() -> None:
    everybody = scored(0)
    assert not everybody.metric.str.startswith(DRAWN).any()
    for enough in (USERS, 10 * USERS):
        pd.testing.assert_frame_equal(scored(enough), everybody, check_exact=True)


def test_ours_are_over_everybody_and_others_over_drawn_users() -> None:
    everybody, some = scored(0), scored(DRAWN_USERS)
    ours = everybody.model == OURS
    both = everybody[ours].merge(some, on=KEYS, suffixes=("", "_of_some"))
    assert len(both) == ours.sum() and (both.users == both.users_of_some).all()
    for column in ("value", "ci_low", "ci_high"):
        np.testing.assert_allclose(both[f"{column}_of_some"], both[column], rtol=1e-12)
    others = some[(some.model != OURS) & (some.segment == "all")]
    assert set(others.users) == {DRAWN_USERS}
    assert set(some[some.metric.str.startswith(DRAWN)].metric) == {
        f"{DRAWN}{metric}" for metric in (*RANKING_METRICS, "coverage")
    }


def test_lift_is_paired_on_the_drawn_users() -> None:
    some = scored(DRAWN_USERS)
    for baseline in BASELINES:
        for segment in ("all", "seen", "explore"):
            ours, theirs = value(some, OURS, "drawn:ndcg", segment), value(some, baseline, "ndcg", segment)
            assert value(some, baseline, "ndcg_lift", segment) == pytest.approx(ours - theirs)
    assert value(some, OURS, "drawn:ndcg") != value(some, OURS, "ndcg")
    lift = lift_over_best(some)
    assert lift and lift.users == DRAWN_USERS


def test_interval_of_drawn_users_is_wider() -> None:
    everybody, some = scored(0), scored(DRAWN_USERS)

    def width(frame: pd.DataFrame, model: str, metric: str = "ndcg") -> float:
        return value(frame, model, metric, column="ci_high") - value(frame, model, metric, column="ci_low")

    # A third of the users: the square root of three, give or take what 20 users know of their spread.
    assert 1.2 < width(some, "popular") / width(everybody, "popular") < 2.5
    assert 1.2 < width(some, OURS, "drawn:ndcg") / width(some, OURS) < 2.5


def test_comparable_rows_are_over_the_same_users() -> None:
    some = scored(DRAWN_USERS)
    compared = on_drawn_users(some)
    assert not compared.duplicated(KEYS).any() and not compared.metric.str.startswith(DRAWN).any()
    assert value(compared, OURS, "ndcg") == value(some, OURS, "drawn:ndcg")
    table = comparison(some)
    assert set(table.users) == {DRAWN_USERS} and table.model[0] == OURS
    assert table.ndcg[0] == value(some, OURS, "drawn:ndcg")
    everybody = scored(0)
    assert on_drawn_users(everybody) is everybody


def test_draw_depends_on_week_and_ids_alone() -> None:
    with warehouse() as con, warehouse(reverse=True) as turned:
        drawn = drawn_ids(con)
        assert drawn == drawn_ids(turned) == sorted(set(drawn)) and len(drawn) == DRAWN_USERS
        assert set(drawn_ids(con, users=10)) < set(drawn), "who is drawn among few is drawn among more"
        con.execute("DELETE FROM raw_interactions WHERE user_id = ?", [drawn[0]])
        assert set(drawn[1:]) < set(drawn_ids(con)), "one user less changes no other's lot"
        con.execute("UPDATE raw_interactions SET week = week + 7")
        for table in ("weekly_top5_predictions", "new_user_top5_predictions"):
            con.execute(f"UPDATE {table} SET week = week + 7")
        con.execute("UPDATE users SET first_week = first_week + 7")
        assert set(drawn_ids(con, shift(WEEK, 1))) != set(drawn)


def test_input_is_the_same_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> EvaluationInput:
        with warehouse() as con:
            given = read_evaluation_input(con, WEEK, k=5, users=DRAWN_USERS)
        assert given is not None
        return given

    usual = read()
    monkeypatch.setattr(evaluation_input, "MEMORY", "40MB")
    small = read()
    assert small.published.bins == usual.published.bins
    for name in ("lists", "truth"):
        pd.testing.assert_frame_equal(getattr(small.drawn, name), getattr(usual.drawn, name))
    pd.testing.assert_frame_equal(small.published.kinds, usual.published.kinds)


def test_week_without_lists_has_no_input() -> None:
    with warehouse() as con:
        assert read_evaluation_input(con, shift(WEEK, 1), k=5) is None


# users left out


def left_out() -> pd.DataFrame:
    """ann, who has a history, has no list as the policy leaves her out; bob has one, dan is new."""

    def own(users: np.ndarray) -> np.ndarray:
        lists = np.full((len(users), 5), -1)
        lists[:, 0] = 0  # tea
        return lists

    diagnostics = RankerDiagnostics(("repeat",), lambda users, row, event: np.ones((len(row), 1), bool), own)
    lists = published({"bob": "jam tea"}).assign(source=OURS)
    truth = happened({"ann": "tea", "bob": "tea", "dan": "rye"})
    rules = replace(NO_RULES, max_silent_weeks=1)
    known = past(KNOWN)
    return metrics_of(WEEK, lists, truth, new_user_list=["rye", "tea"], **known, diagnostics=diagnostics, rules=rules)


def test_users_left_out_are_scored_on_the_new_user_list() -> None:
    frame = left_out()
    users = {segment: value(frame, OURS, "ndcg", segment, "users") for segment in ("all", "seen", "new", "left_out")}
    assert users == {"all": 3, "seen": 2, "new": 1, "left_out": 1}
    assert value(frame, OURS, "ndcg", "left_out") == pytest.approx(DISCOUNT[1], abs=1e-6)  # tea, second
    assert value(frame, "repeat", "ndcg", "left_out") == 1  # what a list of her own would have got
    assert value(frame, OURS, "served") == pytest.approx(1 / 3)
    assert value(frame, OURS, "served", "left_out") == 0
    assert "left_out" not in set(evaluate().segment), "there is no such segment where nobody may be left out"


def test_loss_by_leaving_out_is_a_step_of_its_own() -> None:
    frame = left_out()
    lost = points_lost(frame)
    assert list(lost) == ["unknown_events", "recall", "ranking", "left_out", "fallback"]
    # ann's own list had tea first: one user of three lost what the second place costs. bob's list was the ranker's.
    assert lost["left_out"] == pytest.approx((1 - DISCOUNT[1]) / 3, abs=1e-6)
    assert lost["fallback"] == pytest.approx(0, abs=1e-12)
    assert 1 - sum(lost.values()) == pytest.approx(value(frame, OURS, "ndcg"))
    assert value(frame, WITHOUT_FALLBACK, "ndcg", "left_out") == 1 == value(frame, CEILING, "ndcg", "left_out")


def test_nobody_left_out_was_active_loses_nothing() -> None:
    rows = left_out()
    nobody = (rows.segment == "left_out") & rows.value.notna()
    rows.loc[nobody, ["value", "users"]] = [np.nan, 0]
    assert points_lost(rows)["left_out"] == 0
