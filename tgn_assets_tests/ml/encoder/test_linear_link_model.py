from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.config import LinearLinkConfig
from tgn_assets.ml.encoder import linear_link_model
from tgn_assets.ml.encoder.linear_link_model import LinkVectors, link_vectors
from tgn_assets.ml.weeks import week_number
from tgn_assets_tests.support.worlds import START, Row, habits, history

CONFIG = LinearLinkConfig()
ROWS: list[Row] = [
    ("ann", "tea", 0, 1),
    ("bob", "jam", 0, 1),
    ("ann", "pie", 1, 1),
    ("bob", "jam", 1, 3),
    ("ann", "tea", 2, 2),
]


def next_week(links: LinkVectors) -> FloatArray:
    """[U, E]"""
    return (links.users[:, : CONFIG.rank].float() @ links.events[:, : CONFIG.rank].T).numpy()


def co_occurrence(links: LinkVectors) -> FloatArray:
    """[U, E]"""
    return (links.users[:, CONFIG.rank :].float() @ links.events[:, CONFIG.rank :].T).numpy()


def same(one: LinkVectors, other: LinkVectors) -> bool:
    return torch.equal(one.users, other.users) and torch.equal(one.events, other.events)


def test_next_week_is_ridge_regression_of_a_week_on_those_before() -> None:
    fade = 0.5 ** (1 / CONFIG.half_life)
    one, two, four = np.log(2), np.log(3), np.log(4)
    # Columns are jam, tea, pie. As week 0 closes ann has tea and bob has jam; in week 1 ann takes pie and bob jam. As
    # week 1 closes ann has tea and pie; in week 2 she takes tea, and bob does nothing.
    edges = np.array([[0, one, 0], [one, 0, 0], [0, one * fade, one]])
    edges /= np.sqrt(np.linalg.norm(edges, axis=1, keepdims=True))
    taken = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    usual = np.array([[0.5, 0, 0.5], [0.5, 0, 0.5], [0, 1, 0]])  # ann is all there is in week 2
    weights = np.linalg.solve(edges.T @ edges + CONFIG.next_week_ridge * np.eye(3), edges.T @ (taken - usual))
    now = np.array([[0, one * fade**2 + two, one * fade], [one * fade**2 + four * fade, 0, 0]])
    now /= np.sqrt(np.linalg.norm(now, axis=1, keepdims=True))
    np.testing.assert_allclose(next_week(link_vectors(history(ROWS, 2))), now @ weights, rtol=1e-3, atol=1e-5)


def test_co_occurrence_is_ridge_regression_of_an_event_on_others() -> None:
    one, two, five = np.log(2), np.log(3), np.log(4)
    edges = np.array([[0, one + two, one], [one + five, 0, 0]])  # jam, tea, pie of ann and bob; age does not count
    edges /= np.sqrt(np.linalg.norm(edges, axis=1, keepdims=True))
    weights = np.zeros((3, 3))
    for event in range(3):
        others = [at for at in range(3) if at != event]
        x = edges[:, others]
        weights[others, event] = np.linalg.solve(
            x.T @ x + CONFIG.co_occurrence_ridge * np.eye(2), x.T @ edges[:, event]
        )
    np.testing.assert_allclose(co_occurrence(link_vectors(history(ROWS, 2))), edges @ weights, rtol=1e-3, atol=1e-5)


def test_event_that_comes_after_another_scores_high_for_its_users() -> None:
    rows = [(f"u{at:02}", what, at % 3 + after, 1) for at in range(30) for after, what in enumerate(("tea", "jam"))]
    rows += [(f"v{at:02}", "ale", week, 1) for at in range(30) for week in range(4)]
    rows += [("zoe", "tea", 4, 1), ("yan", "ale", 4, 1)]
    known = history(rows, 4)
    ale, tea, jam = 0, 1, 2  # in the order of the week they came in, then of their names
    yan, zoe = known.num_users - 2, known.num_users - 1
    expected = next_week(link_vectors(known))
    assert expected[zoe].argmax() == jam
    assert expected[zoe, jam] > 0 > expected[yan, jam]
    assert expected[zoe, tea] < expected[zoe, jam] and expected[zoe, ale] < expected[zoe, jam]


def test_user_scores_events_of_its_community_higher() -> None:
    links = link_vectors(history(habits(weeks=12), 11))
    community = (np.arange(40)[:, None] % 2) == (np.arange(20)[None] // 10)
    assert next_week(links)[community].mean() > 0 > next_week(links)[~community].mean()
    assert co_occurrence(links)[community].mean() > 3 * abs(co_occurrence(links)[~community].mean())


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("vwxyz"), st.integers(0, 5), st.integers(1, 3)), max_size=30
    ),
    st.integers(0, 4),
)
def test_link_vectors_do_not_depend_on_later_weeks(rows: list[Row], week: int) -> None:
    now = history([row for row in rows if row[2] <= week], week)
    later = history(rows, 5).as_of(week_number(START) + week)
    assert same(link_vectors(now), link_vectors(later))


@pytest.mark.parametrize(
    "rows", [[], [("ann", "tea", 5, 1)], [("ann", "tea", 0, 1)], [("ann", "tea", week, 1) for week in range(6)]]
)
def test_link_vectors_are_zero_without_anything_to_learn(rows: list[Row]) -> None:
    known = history(rows, 5)
    links = link_vectors(known)
    assert links.users.shape == (known.num_users, 2 * CONFIG.rank) and links.events.shape == (
        known.num_events,
        2 * CONFIG.rank,
    )
    # One user is the mean of its week, what it does is what everybody does; and one event has no other beside it.
    np.testing.assert_allclose(next_week(links), 0, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(co_occurrence(links), 0, rtol=1e-3, atol=1e-5)


def test_same_history_gives_same_bytes() -> None:
    known = history(habits(), 11)
    assert same(link_vectors(known), link_vectors(known))
    twice = link_vectors(replace(known, count=2 * known.count))
    assert not same(link_vectors(known), twice)


def test_rows_edges_and_events_are_capped() -> None:
    known = history(habits(), 11)
    config = LinearLinkConfig(max_rows_per_week=7, max_rows=20, max_events=4, max_neighbours=1)
    user, week = linear_link_model._training_rows(known, config, seed=0)
    assert [int((week == at).sum()) for at in np.unique(week)] == [7, 7, 7]
    assert week.max() == known.week - 1  # the newest week explains nothing yet: what comes after it is not known
    edges = linear_link_model._PastByUser(known, config).neighbourhoods(user, week, config.half_life)
    assert np.diff(edges.indptr).tolist() == [1] * len(user)
    links = link_vectors(known, config)
    assert (links.events.abs().sum(1) > 0).sum() == 4
    assert torch.isfinite(links.users).all()


def test_events_with_link_vectors_are_the_recently_popular() -> None:
    rows: list[Row] = [*((f"u{at}", "old", 0, 1) for at in range(9)), ("ann", "mid", 30, 1), ("ann", "new", 40, 1)]
    config = LinearLinkConfig(max_events=2)
    assert linear_link_model._popular_events(history(rows, 40), config).tolist() == [1, 2]


def test_rank_is_the_width_of_each_part() -> None:
    links = link_vectors(history(ROWS, 2), LinearLinkConfig(rank=3))
    assert links.users.shape == (2, 6) and links.events.shape == (3, 6)
