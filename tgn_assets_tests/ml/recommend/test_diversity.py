"""More events in the lists, at the least loss."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tgn_assets.ml.recommend.diversity import RunnerUps, concatenated, enforce_min_distinct, find_runner_ups

NONE = np.zeros((0, 2), np.int64)
LISTS = np.array([[0, 1], [0, 1], [2, 1]])
SCORES = np.array([[0.9, 0.4], [0.9, 0.3], [0.9, 0.5]])


def pairs(*given: tuple[int, int, float]) -> RunnerUps:
    row, event, score = zip(*given, strict=True)
    return RunnerUps(np.array(row), np.array(event), np.array(score))


def test_min_distinct_makes_the_cheapest_change() -> None:
    # Event 3 costs .4 - .2 in the first list and .3 - .2 in the second.
    lists, scores = enforce_min_distinct(LISTS, SCORES, 4, pairs((0, 3, 0.2), (1, 3, 0.2), (2, 4, 0.1)), NONE)
    assert lists.tolist() == [[0, 1], [0, 3], [2, 1]]
    assert scores.tolist() == [[0.9, 0.4], [0.9, 0.2], [0.9, 0.5]]
    assert LISTS[1, 1] == 1, "the lists that were given stay as they are"


def test_only_event_of_its_kind_is_kept() -> None:
    lists, _ = enforce_min_distinct(
        np.array([[0, 1], [0, 2]]), np.full((2, 2), 0.5), 9, pairs((0, 3, 0.4), (1, 4, 0.4)), NONE
    )
    assert lists.tolist() == [[0, 1], [0, 2]]


def test_unscored_events_come_last_with_score_zero() -> None:
    lists, scores = enforce_min_distinct(LISTS, SCORES, 5, pairs((1, 3, 0.2)), np.array([[1, 4], [0, 4]]))
    assert lists.tolist() == [[0, 4], [0, 3], [2, 1]]
    assert scores[0].tolist() == [0.9, 0.0]


def test_cheapest_runner_ups_per_event_are_kept() -> None:
    row, event, score = np.array([0, 1, 2, 0]), np.array([3, 3, 3, 1]), np.array([0.1, 0.1, 0.45, 0.4])
    found = find_runner_ups(row, event, score, LISTS, SCORES[:, -1])
    assert list(zip(found.row.tolist(), found.event.tolist(), strict=True)) == [(2, 3), (1, 3), (0, 3)]
    assert concatenated([found, found]).row.tolist() == [2, 1, 0, 2, 1, 0]
    assert len(concatenated([]).row) == 0


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 12), st.integers(0, 1000))
def test_min_distinct_keeps_lists_valid(users: int, k: int, floor: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(8)[:k] for _ in range(users)])
    scores = -np.sort(-rng.random((users, k)))
    row, event = rng.integers(0, users, 30), rng.integers(0, 12, 30)
    spare = find_runner_ups(row, event, rng.random(30) * scores[row, -1], lists, scores[:, -1])
    wide, wide_scores = enforce_min_distinct(lists, scores, floor, spare, np.column_stack([row, event])[:0])
    before, after = len(np.unique(lists)), len(np.unique(wide))
    assert before <= after <= max(before, floor)
    assert (wide[:, 0] == lists[:, 0]).all()
    assert all(len(set(one)) == k for one in wide.tolist())
    assert (np.diff(wide_scores) <= 0).all()
    assert (wide_scores <= scores).all()
