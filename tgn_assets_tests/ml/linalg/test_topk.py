import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgn_assets.ml.linalg import topk
from tgn_assets.ml.linalg.topk import GROUP, grouped_top_k, top_products


def test_equal_scores_are_ordered_by_the_tie_rule() -> None:
    assert grouped_top_k(np.zeros(3, int), np.ones(3), np.array([2, 0, 1]), rows=1, k=3).tolist() == [[1, 2, 0]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=60), st.integers(1, 6))
def test_grouped_top_k_equals_sorting_each_group(pairs: list[tuple[int, int]], k: int) -> None:
    pairs.sort(key=lambda pair: pair[0])
    row, score = (np.array([pair[i] for pair in pairs], int) for i in range(2))
    top = grouped_top_k(row, score.astype(float), np.arange(len(pairs)), rows=5, k=k)
    for group in range(5):
        expected = sorted((i for i, pair in enumerate(pairs) if pair[0] == group), key=lambda i: (-pairs[i][1], i))[:k]
        assert top[group].tolist() == expected + [-1] * (k - len(expected))


def vectors(size: int) -> Tensor:
    """Whole numbers, whose products are exact in float32; the last column makes no two rows alike."""
    generator = torch.Generator().manual_seed(size)
    return torch.cat([torch.randint(-9, 9, (size, 8), generator=generator), torch.arange(size)[:, None] / 1024], 1)


@pytest.mark.parametrize("events", [3, GROUP, 5 * GROUP, 5 * GROUP + 1, 60 * GROUP - 1])
@pytest.mark.parametrize("ties", [False, True])
def test_top_products_are_the_largest(events: int, ties: bool) -> None:
    users, candidates = (vectors(size)[:, : 2 if ties else None] for size in (50, events))
    found = top_products(users, candidates, 5)
    assert all(len(set(row)) == min(5, events) for row in found.tolist())
    products = users @ candidates.T
    assert torch.equal(products.gather(1, found).sort().values, products.topk(min(5, events), dim=1).values.flip(1))


def test_negative_products_and_a_partial_last_group() -> None:
    users, candidates = torch.ones(2, 1), -torch.arange(1.0, 9 * GROUP)[:, None].flip(0)
    last = len(candidates) - 1
    assert [sorted(row) for row in top_products(users, candidates, 3).tolist()] == [[last - 2, last - 1, last]] * 2


def test_tile_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    users, candidates = vectors(33), vectors(60 * GROUP)
    whole = top_products(users, candidates, 4)
    monkeypatch.setattr(topk, "TILE_USERS", 7)
    monkeypatch.setattr(topk, "TILE_EVENTS", 3 * GROUP)
    monkeypatch.setattr(topk, "PRODUCTS", 1000)
    assert torch.equal(top_products(users, candidates, 4), whole)
    few = candidates[: 20 * GROUP]
    assert torch.equal(top_products(users, few, 4), (users @ few.T).topk(4, dim=1).indices.sort().values)


def test_no_users_get_no_lists() -> None:
    assert top_products(vectors(0), vectors(60 * GROUP), 4).shape == (0, 4)
