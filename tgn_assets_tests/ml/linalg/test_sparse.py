"""Similarity of events, worked out by hand."""

import numpy as np
import pytest
from scipy import sparse

from tgn_assets.ml.linalg import sparse as module
from tgn_assets.ml.linalg.sparse import walk_similarity

PROFILE = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 6.0]]))
"""Two users: events 0 and 1, events 0 and 2."""


@pytest.mark.parametrize(
    ("exponent", "row"),
    [
        (0.0, [0, 1 / 2, 2 * 6 / 8]),  # from event 0, user 0 has weight 1 and user 1 weight 2
        (1.0, [0, 1 / 2 / 1, 2 * 6 / 8 / 6]),  # each divided by the weight of the event where the walk ends
    ],
)
def test_walk_prefers_popular_or_obscure_events(exponent: float, row: list[float]) -> None:
    found = walk_similarity(PROFILE, exponent=exponent).toarray()
    np.testing.assert_allclose(found[0], np.array(row) / sum(row))
    np.testing.assert_allclose(found[1:], [[1, 0, 0], [1, 0, 0]])


def test_walk_keeps_the_nearest_events_alone() -> None:
    assert walk_similarity(PROFILE, neighbours=1, exponent=0.0).toarray().tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]


def test_walk_of_events_without_users_is_empty() -> None:
    lonely = sparse.csr_array(np.array([[3.0, 0.0]]))
    assert walk_similarity(lonely, exponent=0.5).nnz == 0
    assert walk_similarity(sparse.csr_array((0, 4)), exponent=0.5).shape == (4, 4)


def test_walk_is_the_same_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = sparse.csr_array(sparse.random_array((30, 12), density=0.3, rng=np.random.default_rng(0)))
    whole = walk_similarity(profile, exponent=0.2).toarray()
    monkeypatch.setattr(module, "blocks", lambda cost: [(at, at + 1) for at in range(len(cost))])
    np.testing.assert_array_equal(walk_similarity(profile, exponent=0.2).toarray(), whole)
