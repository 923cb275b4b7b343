import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.evaluation import baselines
from tgn_assets.ml.evaluation.baselines import BASELINES, all_baselines, baseline_lists, popular
from tgn_assets.ml.linalg import sparse
from tgn_assets.ml.weeks import shift, week_number

WEEK = "2024-03-04"
EVENTS = "abcdefgh"


Row = tuple[int, str, int, int]
"""user, event, age in weeks, count"""


def history_of(rows: list[Row], week: str = WEEK) -> InteractionHistory:
    """From (user, event, age in weeks, count); an event's index is reversed text order, so the two are not mistaken."""
    frame = pd.DataFrame(rows, columns=["user_idx", "event", "age", "count"])
    order = frame.event.map(EVENTS.index).astype(int)
    return InteractionHistory.from_frame(
        pd.DataFrame(
            {
                "user_idx": frame.user_idx,
                "event_idx": 100 - order,
                "event_order": order,
                "week_no": week_number(WEEK) - frame.age,
                "count": frame["count"],
            }
        ),
        week,
    )


def lists_of(name: str, history: InteractionHistory, users: np.ndarray, k: int = 5) -> np.ndarray:
    return baseline_lists([name], history, users, k)[name]


def names(history: InteractionHistory, lists: np.ndarray) -> list[str]:
    """Lists as words, `.` for an empty place."""
    alphabet = np.array([*(EVENTS[100 - index] for index in history.event_idx), "."])
    return ["".join(alphabet[row]) for row in np.atleast_2d(lists)]


def test_popular_is_decayed_count_with_ties_in_text_order() -> None:
    history = history_of([(0, "d", 0, 2), (0, "c", 0, 2), (1, "e", 0, 3), (1, "a", 1, 9), (2, "b", 2, 9)])
    # a: 9 * 0.5 ** (1 / 0.3) = 0.89 and b: 0.09, both behind a single interaction of last week.
    assert names(history, popular(history)) == ["ecdab"]
    assert names(history, popular(history, 2)) == ["ec"]


def test_repeat_is_decayed_count_filled_with_popular() -> None:
    history = history_of([(0, "a", 8, 3), (0, "b", 0, 1), (1, "c", 0, 5), (1, "d", 0, 4), (1, "b", 16, 1)])
    # User 0: a 3 / 2 before b 1. User 1: c 5, d 4, b 1 / 4. Popular: c, d, b, a.
    assert names(history, lists_of("repeat", history, np.array([0, 1, -1]))) == ["abcd.", "cdba.", "cdba."]


def test_repeat_ties_go_by_popularity_then_text_order() -> None:
    history = history_of([(0, "c", 0, 1), (0, "b", 0, 1), (0, "a", 0, 1), (1, "c", 0, 1)])
    assert names(history, lists_of("repeat", history, np.array([0]), 3)) == ["cab"]


def test_lists_follow_the_order_of_the_users() -> None:
    history = history_of([(0, "a", 0, 1), (1, "b", 0, 1), (2, "c", 0, 1)])
    for name, lists in all_baselines(history, np.array([2, -1, 0, 2])).items():
        each = all_baselines(history, np.arange(3))[name]
        np.testing.assert_array_equal(lists, [each[2], popular(history), each[0], each[2]])


def test_item_knn_weights_are_shrunk_cosines() -> None:
    count = round(np.e**3 - 1)
    history = history_of([(0, "a", 0, count), (1, "a", 0, 1), (1, "b", 0, 1), (2, "a", 8, 1), (2, "c", 8, 1)])
    one, heavy = np.log(2), np.log1p(count)
    norm = np.sqrt(heavy**2 + one**2 + (one / 2) ** 2)
    to_b, to_c = one**2 / (norm * one + 1), (one / 2) ** 2 / (norm * one / 2 + 1)
    profiles, _ = baselines._profiles(history, history.of_users(np.arange(3)))
    item_similarity = sparse.item_similarity(profiles, neighbours=100, shrinkage=1.0)
    expected = np.array([[0, to_b / (to_b + to_c), to_c / (to_b + to_c)], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(item_similarity.toarray(), expected)
    assert names(history, lists_of("item_knn", history, np.array([0]), 3)) == ["abc"]
    assert names(history, lists_of("item_knn_new", history, np.array([0]), 3)) == ["bc."]


def test_item_knn_finds_the_users_community() -> None:
    rows = [(user, event, 0, 1) for user in range(4) for event in ("abc" if user < 2 else "def")]
    rows += [(9, "h", 0, 50), (5, "a", 0, 1), (6, "e", 0, 1)]
    history = history_of(rows)
    asked = np.searchsorted(history.user_idx, [5, 6])
    assert names(history, lists_of("item_knn", history, asked, 3)) == ["abc", "edf"]
    # Then popular: h, and the first of a and e that is not their own.
    assert names(history, lists_of("item_knn_new", history, asked, 4)) == ["bche", "dfha"]


@pytest.mark.parametrize("rules", [NO_RULES, Rules(exclude_repeats=True)])
def test_a_baseline_of_similar_events_keeps_its_lists(rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(tables: baselines.BaselineTables, past: UserPast) -> IntArray:
        assert tables.similar.shape == (2, 2)
        return np.zeros((len(past.users), tables.k), np.int64)

    monkeypatch.setattr(baselines, "BASELINES", {**BASELINES, "first": baselines.Baseline(first, ("popular",))})
    monkeypatch.setattr(baselines, "OF_ITEM_KNN", (*baselines.OF_ITEM_KNN, "first"))
    history = history_of([(0, "a", 0, 1), (1, "b", 0, 1)])
    assert all_baselines(history, np.array([0, 1]), 1, rules)["first"].tolist() == [[0], [0]]


def test_item_knn_new_never_lists_an_own_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "KNN_EVENTS_PER_USER", 2)
    history = history_of([(0, event, 0, 1) for event in "abcdefg"] + [(1, "h", 5, 1), (1, "a", 5, 1)])
    assert names(history, lists_of("item_knn_new", history, np.array([0]))) == ["h...."]


def test_every_baseline_of_the_registry_is_made() -> None:
    history = history_of([(0, "a", 0, 1), (0, "b", 3, 2), (1, "c", 0, 1), (1, "a", 1, 1)])
    users = np.array([0, -1, 1])
    lists = all_baselines(history, users, 3)
    assert list(lists) == list(BASELINES)
    for name in BASELINES:
        np.testing.assert_array_equal(lists_of(name, history, users, 3), lists[name])


def test_block_size_does_not_change_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [(int(u), EVENTS[e], int(a), 1) for u, e, a in zip(*rng.integers(0, (30, 8, 6), (150, 3)).T, strict=True)]
    once = pd.DataFrame(rows).drop_duplicates([0, 1, 2]).to_records(index=False).tolist()
    history, again = history_of(once), history_of(once)  # one that has no neighbours yet
    users = np.arange(-1, history.num_users)
    whole = all_baselines(history, users)
    monkeypatch.setattr(sparse, "BLOCK", 10)
    monkeypatch.setattr(baselines, "BASELINE_SHARD", 4)
    for name, lists in all_baselines(again, users).items():
        np.testing.assert_array_equal(lists, whole[name])


def test_top_n_per_row_keeps_first_of_ties() -> None:
    dense = np.array([[1.0, 3, 3, 3, 2], [0, 5, 0, 0, 0], [0, 0, 0, 0, 0], [4, 4, 4, 4, 4]])
    kept = sparse.top_n_per_row(scipy.sparse.csr_array(dense), 2).toarray()
    assert kept.tolist() == [[0, 3, 3, 0, 0], [0, 5, 0, 0, 0], [0, 0, 0, 0, 0], [4, 4, 0, 0, 0]]


def test_ordered_sorts_columns_and_loses_none() -> None:
    rng = np.random.default_rng(0)
    left, right = (scipy.sparse.csr_array(rng.random((30, 30)) * (rng.random((30, 30)) < 0.2)) for _ in range(2))
    product = left @ right
    assert not product.has_sorted_indices
    ordered = sparse.with_sorted_indices(product)
    assert all((np.diff(part) > 0).all() for part in np.split(ordered.indices, ordered.indptr[1:-1]))
    assert (ordered.toarray() == product.toarray()).all()


def test_empty_history_gives_empty_lists() -> None:
    history = history_of([])
    for lists in all_baselines(history, np.array([-1, -1])).values():
        assert lists.tolist() == [[-1] * 5] * 2
    assert all(len(lists) == 0 for lists in all_baselines(history, np.array([], int)).values())


rows_of_a_log = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(EVENTS), st.integers(0, 30), st.integers(1, 9)),
    max_size=40,
    unique_by=lambda row: row[:3],
)


@given(rows_of_a_log, st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_lists_are_full_and_distinct(rows: list[Row], k: int) -> None:
    history = history_of(rows)
    users = np.arange(-1, history.num_users)
    for name, lists in all_baselines(history, users, k).items():
        assert lists.shape == (len(users), k)
        for user, listed in zip(users, lists, strict=True):
            own = set(history.event[history.user == user]) if name == "item_knn_new" else set()
            found = listed[listed >= 0]
            assert len(set(found)) == len(found) == min(k, history.num_events - len(own))
            assert (listed[len(found) :] == -1).all()
            assert not own & set(found)


@given(rows_of_a_log, rows_of_a_log)
@settings(max_examples=15, deadline=None)
def test_baselines_do_not_depend_on_the_future(past: list[Row], future: list[Row]) -> None:
    cutoff = shift(WEEK, -31)
    past = [(user, event, age + 31, count) for user, event, age, count in past]
    known, everything = history_of(past, cutoff), history_of(past + future)
    at_cutoff = everything.as_of(week_number(cutoff))
    users = np.arange(-1, known.num_users)
    for name, lists in all_baselines(at_cutoff, users).items():
        np.testing.assert_array_equal(lists, all_baselines(known, users)[name])


def test_planted_future_row_would_change_lists() -> None:
    past, planted = [(0, "a", 2, 1), (0, "b", 1, 1)], [(0, "h", 0, 99)]
    known, leaked = history_of(past, shift(WEEK, -1)), history_of(past + planted)
    for name in BASELINES:
        clean = all_baselines(leaked.as_of(week_number(WEEK) - 1), np.array([0]))[name]
        np.testing.assert_array_equal(clean, all_baselines(known, np.array([0]))[name])
    assert names(leaked, popular(leaked, 1)) == ["h"]
    with pytest.raises(ValueError, match="newer than week"):
        history_of(planted, shift(WEEK, -1))
