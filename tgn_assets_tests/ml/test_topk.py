import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgn_assets.ml.topk import grouped_top_k, top_products


def test_the_best_pairs_of_each_group_come_first_and_missing_ones_are_minus_one():
    top = grouped_top_k(np.array([1, 0, 1, 1]), np.array([0.2, 5.0, 0.9, 0.5]), np.zeros(4), rows=3, k=2)
    assert top.tolist() == [[1, -1], [2, 3], [-1, -1]]


def test_equal_scores_are_ordered_by_the_tie_rule():
    assert grouped_top_k(np.zeros(3, int), np.ones(3), np.array([2, 0, 1]), rows=1, k=3).tolist() == [[1, 2, 0]]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=60), st.integers(1, 6))
def test_it_equals_sorting_each_group_by_itself(pairs, k):
    row, score = (np.array([pair[i] for pair in pairs], int) for i in range(2))
    top = grouped_top_k(row, score.astype(float), np.arange(len(pairs)), rows=5, k=k)
    for group in range(5):
        expected = sorted((i for i, pair in enumerate(pairs) if pair[0] == group), key=lambda i: (-pairs[i][1], i))[:k]
        assert top[group].tolist() == expected + [-1] * (k - len(expected))


def test_the_largest_products_are_the_same_whatever_the_size_of_a_block(monkeypatch):
    torch.manual_seed(0)
    left, right = torch.randn(7, 3), torch.randn(11, 3)
    expected = (left @ right.T).topk(4, dim=1)
    for products in (1, 30, 1000):
        monkeypatch.setattr("tgn_assets.ml.topk.PRODUCTS", products)
        values, positions = top_products(left, right, 4)
        torch.testing.assert_close(values, expected.values)
        assert positions.tolist() == expected.indices.tolist()
