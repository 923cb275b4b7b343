from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.baselines import BASELINES
from tgn_assets.ml.evaluation import (
    CANDIDATES,
    CEILING,
    COLUMNS,
    SEGMENTS,
    UNGATED,
    Inside,
    evaluate_week,
)
from tgn_assets.ml.history import History
from tgn_assets.ml.metrics import METRICS
from tgn_assets.ml.policy import OPEN
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_number

WEEK = "2024-03-11"
KNOWN = [
    ("ann", "tea", 1, 2),
    ("ann", "jam", 2, 1),
    ("bob", "oil", 1, 1),
    ("bob", "tea", 3, 4),
    ("cat", "rye", 1, 3),
]
"""(user, event, weeks before the target week, times). Popular: rye 3, tea 2 and a bit, oil 1, jam."""

DISCOUNT = 1 / np.log2(np.arange(2, 7))


def past(rows: list[tuple[str, str, int, int]], week: str = WEEK) -> tuple[History, np.ndarray, np.ndarray]:
    """The history before `week`, and the ids of its positions: here in order of first appearance in `rows`."""
    users, events = (pd.unique(np.array([row[column] for row in rows], object)) for column in (0, 1))
    frame = pd.DataFrame(
        {
            "user_idx": [list(users).index(row[0]) for row in rows],
            "event_idx": [list(events).index(row[1]) for row in rows],
            "event_order": [sorted(events).index(row[1]) for row in rows],
            "week_no": [week_number(WEEK) - row[2] for row in rows],
            "count": [row[3] for row in rows],
        }
    )
    return History.from_frame(frame, shift(week, -1)), users, events


def published(lists: dict[str, str]) -> pd.DataFrame:
    """Predictions from words of events, the source of the first user being `model` and of the others `repeat`."""
    rows = [
        (user, rank, event, "model" if user == next(iter(lists)) else "repeat")
        for user, events in lists.items()
        for rank, event in enumerate(events.split(), 1)
    ]
    return pd.DataFrame(rows, columns=["user_id", "rank", "event_id", "source"])


def happened(events: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(user, event) for user, words in events.items() for event in words.split()], columns=["user_id", "event_id"]
    )


PUBLISHED = {"ann": "tea rye", "bob": "jam tea", "cat": "rye"}
HAPPENED = {"ann": "tea oil", "bob": "tea", "dan": "rye new"}


MODELS = (OURS, *BASELINES, CEILING)


def evaluate(lists: dict[str, str] = PUBLISHED, truth: dict[str, str] = HAPPENED, seed: int = 0) -> pd.DataFrame:
    return evaluate_week(WEEK, published(lists), ["tea", "rye"], happened(truth), *past(KNOWN), seed=seed)


def value(frame: pd.DataFrame, model: str, metric: str, segment: str = "all", column: str = "value") -> float:
    row = frame[(frame.model == model) & (frame.metric == metric) & (frame.segment == segment)]
    assert len(row) == 1
    return row[column].iloc[0]


def tea_in_second_place(users: np.ndarray) -> np.ndarray:
    lists = np.full((len(users), 5), -1)
    lists[:, 1] = 0
    return lists


def test_every_model_has_every_metric_in_every_segment_once() -> None:
    frame = evaluate()
    assert list(frame.columns) == COLUMNS
    assert set(frame.week) == {WEEK}
    assert not frame.duplicated(["model", "segment", "metric"]).any()
    grid = {(model, segment, metric) for model in MODELS for segment in SEGMENTS for metric in METRICS}
    assert grid <= set(frame[["model", "segment", "metric"]].itertuples(index=False, name=None))


def test_published_lists_and_the_new_user_list_are_scored_as_worked_out_by_hand() -> None:
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


def test_segments_follow_what_the_active_users_did() -> None:
    users = {segment: value(evaluate(), OURS, "ndcg", segment, "users") for segment in SEGMENTS}
    # ann repeats tea and explores oil, bob repeats, dan explores as every new user does.
    assert users == {"all": 3, "seen": 2, "repeat": 2, "explore": 2, "new": 1}


def test_a_new_user_or_event_is_never_taken_for_a_pair_of_the_past() -> None:
    # User by user, event by event: ann's fifth event of four would be bob's first, tea; dan's, before ann, ann's tea.
    frame = evaluate(truth={"ann": "new", "bob": "new", "dan": "new"})
    assert value(frame, OURS, "ndcg", "repeat", "users") == 0
    assert value(frame, OURS, "ndcg", "explore", "users") == 3


def test_baselines_are_scored_from_the_same_history() -> None:
    frame = evaluate()
    # Popular: rye, tea, oil, jam. ann has tea and oil in places 2 and 3, bob tea in 2, dan rye in 1.
    ideal = DISCOUNT[:2].sum()
    popular = ((DISCOUNT[1] + DISCOUNT[2]) / ideal + DISCOUNT[1] + 1 / ideal) / 3
    assert value(frame, "popular", "ndcg") == pytest.approx(popular, abs=1e-6)
    # Repeat: ann tea, jam, rye, oil; bob tea (4 * 0.5 ** 0.25), oil; dan popular.
    repeat = ((1 + DISCOUNT[3]) / ideal + 1 + 1 / ideal) / 3
    assert value(frame, "repeat", "ndcg") == pytest.approx(repeat, abs=1e-6)


def test_the_ceiling_knows_the_truth_but_no_event_of_the_week_itself() -> None:
    frame = evaluate()
    assert value(frame, CEILING, "ndcg", "seen") == 1
    assert value(frame, CEILING, "ndcg", "new") == pytest.approx(1 / DISCOUNT[:2].sum(), abs=1e-6)
    scores = frame[frame.metric.isin(METRICS)].pivot(index="model", columns=["segment", "metric"], values="value")
    assert (scores.loc[[CEILING]].to_numpy() >= scores.to_numpy()).all()


def test_lists_that_are_perfect_reach_the_ceiling() -> None:
    frame = evaluate({"ann": "oil tea", "bob": "tea", "dan": "rye"})
    for metric in METRICS:
        assert value(frame, OURS, metric) == value(frame, CEILING, metric)


def test_a_look_inside_the_ranker_tells_recall_from_ranking_by_hand() -> None:
    def found(users: np.ndarray, row: np.ndarray, event: np.ndarray) -> np.ndarray:
        # ann (0) touched tea (0) and oil, bob (1) tea; only tea was among the candidates, by the second channel.
        assert users.tolist() == [0, 1] and sorted(row.tolist()) == [0, 0, 1]
        return np.stack([np.zeros(3, bool), event == 0], axis=1)

    inside = Inside(("own", "popular"), found, tea_in_second_place)

    known, users, events = past(KNOWN)
    assert events[0] == "tea" and list(users[:2]) == ["ann", "bob"]
    lists = published(PUBLISHED)
    frame = evaluate_week(WEEK, lists, ["tea", "rye"], happened(HAPPENED), known, users, events, inside)
    ideal = DISCOUNT[:2].sum()
    assert value(frame, CANDIDATES, "ndcg", "seen") == pytest.approx((1 / ideal + 1) / 2, abs=1e-6)
    assert value(frame, UNGATED, "ndcg", "seen") == pytest.approx((DISCOUNT[1] / ideal + DISCOUNT[1]) / 2, abs=1e-6)
    assert value(frame, CANDIDATES, "candidate_recall", "seen") == pytest.approx((1 / 2 + 1) / 2)
    assert value(frame, CANDIDATES, "candidate_recall:own", "seen") == 0
    # dan, who is new, had the list for new users: rye, of rye and an unknown event.
    assert value(frame, CANDIDATES, "ndcg", "new") == pytest.approx(1 / ideal, abs=1e-6)
    assert value(frame, UNGATED, "ndcg", "new") == value(frame, OURS, "ndcg", "new")


@pytest.mark.parametrize(("rules", "asked"), [(OPEN, [1]), (replace(OPEN, min_distinct=4), [0, 1])])
def test_the_ranker_makes_only_the_lists_anew_that_were_not_published_as_it_made_them(rules, asked) -> None:
    def lists(users: np.ndarray) -> np.ndarray:
        assert users.tolist() == asked
        return tea_in_second_place(users)

    inside = Inside(("own",), lambda users, row, event: np.zeros((len(row), 1), bool), lists)
    # ann's list, with tea first, was the ranker's; bob's was that of `repeat`.
    made = published(PUBLISHED).replace({"source": {"model": OURS}})
    frame = evaluate_week(WEEK, made, ["tea"], happened(HAPPENED), *past(KNOWN), inside, rules=rules)
    ideal, ann = DISCOUNT[:2].sum(), DISCOUNT[1 if 0 in asked else 0]
    assert value(frame, UNGATED, "ndcg", "seen") == pytest.approx((ann / ideal + DISCOUNT[1]) / 2, abs=1e-6)


def test_scores_are_held_against_what_all_users_did_active_or_not() -> None:
    lists = published({"ann": "tea", "bob": "tea rye", "zoe": "tea"})
    lists["score"] = [0.9, 0.3, 0.15, 0.3]
    frame = evaluate_week(WEEK, lists, ["tea"], happened({"ann": "tea", "bob": "rye"}), *past(KNOWN))
    squares = [0.1**2, 0.3**2, 0.85**2, 0.3**2]
    assert value(frame, OURS, "brier") == pytest.approx(sum(squares) / 4)
    assert value(frame, OURS, "brier_constant") == pytest.approx(1 / 4)
    assert value(frame, OURS, "predicted:0.2-0.4") == pytest.approx(0.3)
    assert value(frame, OURS, "observed:0.2-0.4") == 0
    assert value(frame, OURS, "observed:0.2-0.4", column="users") == 2
    assert value(frame, OURS, "observed:0.4-1") == 1


def test_shares_say_who_was_served_and_from_which_source() -> None:
    frame = evaluate()
    assert value(frame, OURS, "served") == pytest.approx(2 / 3)
    assert value(frame, OURS, "served", "seen") == 1
    assert value(frame, OURS, "served", "new") == 0
    assert value(frame, OURS, "share_of_source:model") == pytest.approx(1 / 3)
    assert value(frame, OURS, "share_of_source:repeat") == pytest.approx(1 / 3)
    assert value(frame, OURS, "coverage") == 3 / 4  # tea, rye, jam
    assert value(frame, "popular", "coverage") == 1


def test_predictions_may_lack_their_source() -> None:
    frame = evaluate_week(WEEK, published(PUBLISHED).drop(columns="source"), ["tea"], happened(HAPPENED), *past(KNOWN))
    assert not frame.metric.str.startswith("share_of_source").any()


def test_ids_that_are_read_as_codes_are_scored_alike() -> None:
    lists = published({**PUBLISHED, "zoe": "tea oil"}).assign(score=0.2)
    coded = lists.astype({"user_id": "category", "event_id": "category", "source": "category"})
    as_text, as_codes = (
        evaluate_week(WEEK, frame, ["tea", "rye"], happened(HAPPENED), *past(KNOWN)) for frame in (lists, coded)
    )
    pd.testing.assert_frame_equal(as_codes, as_text)


def test_a_lift_is_the_mean_of_the_differences_with_its_paired_interval() -> None:
    frame = evaluate()
    for baseline in BASELINES:
        lift = value(frame, baseline, "ndcg_lift")
        theirs = value(frame, baseline, "ndcg")
        assert lift == pytest.approx(value(frame, OURS, "ndcg") - theirs)
        assert value(frame, baseline, "ndcg_lift_relative") == pytest.approx(lift / theirs)
        assert value(frame, baseline, "ndcg_lift", column="ci_low") <= lift
        assert value(frame, baseline, "ndcg_lift", column="ci_high") >= lift
        assert 0 <= value(frame, baseline, "ndcg_lift_p") <= 1


def test_the_order_of_rows_and_repeated_interactions_change_nothing() -> None:
    predictions, truth = published(PUBLISHED), happened(HAPPENED)
    shuffled = evaluate_week(
        WEEK,
        predictions.sample(frac=1, random_state=1),
        ["tea", "rye"],
        pd.concat([truth, truth]).sample(frac=1, random_state=2),
        *past(KNOWN),
    )
    pd.testing.assert_frame_equal(shuffled, evaluate())


def test_the_same_seed_gives_the_same_table_and_another_seed_other_intervals() -> None:
    rng = np.random.default_rng(0)
    users = [f"user {number}" for number in range(60)]
    known = past([(user, "abcdefgh"[event], 1, 1) for user in users for event in rng.choice(8, 3, replace=False)])
    lists = published({user: " ".join(rng.permutation([*"abcdefgh"])[:5]) for user in users})
    truth = happened({user: " ".join(rng.choice([*"abcdefgh"], 2, replace=False)) for user in users})
    first, again, other = (evaluate_week(WEEK, lists, [], truth, *known, seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again)
    changed = other.compare(first)
    assert {"ci_low", "ci_high"} <= set(changed.columns.get_level_values(0)) <= {"ci_low", "ci_high", "value"}
    assert set(other.metric[changed.value.dropna().index]) <= {"ndcg_lift_p"}


def test_a_week_without_active_users_has_counts_of_zero_and_no_values() -> None:
    frame = evaluate(truth={})
    assert (frame.users == 0).all()
    assert frame[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert set(evaluate().metric) == set(frame.metric)


def test_the_first_week_of_all_is_scored_without_a_history() -> None:
    nothing = past([])
    frame = evaluate_week(WEEK, published({}), [], happened({"ann": "tea"}), *nothing)
    assert value(frame, OURS, "ndcg") == 0
    assert value(frame, CEILING, "ndcg", "new") == 0
    assert np.isnan(value(frame, OURS, "coverage"))


def test_an_id_may_hold_quotes_unicode_and_sql() -> None:
    odd = '\'; DROP TABLE "events" -- é \U0001f375'
    known = past([(odd, odd, 1, 1)])
    predictions = pd.DataFrame({"user_id": [odd], "rank": [1], "event_id": [odd]})
    frame = evaluate_week(WEEK, predictions, [odd], pd.DataFrame({"user_id": [odd], "event_id": [odd]}), *known)
    assert value(frame, OURS, "ndcg") == value(frame, "repeat", "ndcg") == 1


def test_a_prediction_that_left_the_history_since_it_was_published_is_a_miss_and_not_an_error() -> None:
    frame = evaluate({"ann": "gone tea"}, {"ann": "tea"})
    assert value(frame, OURS, "mrr") == 0.5
    assert value(frame, OURS, "coverage") == 1 / 4


def test_a_history_that_is_not_the_week_before_is_refused() -> None:
    for week in (shift(WEEK, 1), shift(WEEK, -1)):
        with pytest.raises(ValueError, match=f"week {week} is scored with the history up to {shift(week, -1)}"):
            evaluate_week(week, published(PUBLISHED), [], happened(HAPPENED), *past(KNOWN))
    history, users, events = past(KNOWN)
    with pytest.raises(ValueError, match="one for one"):
        evaluate_week(WEEK, published(PUBLISHED), [], happened(HAPPENED), history, users[1:], events)


@pytest.mark.parametrize(
    ("rank", "event", "message"),
    [
        (0, "oil", "ranks from 1 to 5"),
        (6, "oil", "ranks from 1 to 5"),
        (1, "oil", "distinct ranks"),
        (3, "tea", "twice"),
    ],
)
def test_predictions_with_bad_ranks_or_repeated_events_are_refused(rank: int, event: str, message: str) -> None:
    more = pd.DataFrame({"user_id": ["ann"], "rank": [rank], "event_id": [event], "source": ["model"]})
    with pytest.raises(ValueError, match=message):
        evaluate_week(WEEK, pd.concat([published(PUBLISHED), more]), [], happened(HAPPENED), *past(KNOWN))


def test_an_interaction_of_the_target_week_cannot_reach_the_baselines() -> None:
    history, users, events = past([*KNOWN, ("ann", "oil", 0, 99)], shift(WEEK, 1))
    cut = history.until(week_number(WEEK) - 1)
    assert (cut.num_users, cut.num_events) == (len(users), len(events))
    frame = evaluate_week(WEEK, published(PUBLISHED), ["tea", "rye"], happened(HAPPENED), cut, users, events)
    pd.testing.assert_frame_equal(frame, evaluate())
    with pytest.raises(ValueError, match="history up to"):
        evaluate_week(WEEK, published(PUBLISHED), [], happened(HAPPENED), history, users, events)
