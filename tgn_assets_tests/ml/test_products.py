import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgn_assets.ml.products import PRODUCTS_PER_PAIR, pair_products


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 80), st.integers(0, 9))
def test_a_pair_has_the_product_of_its_vectors_and_they_get_its_gradient(
    users: int, events: int, pairs: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, 3, dtype=torch.float64, generator=draw) for size in (users, events))
    row, column = (torch.randint(size, (pairs,), generator=draw) for size in (users, events))
    weight = torch.randn(pairs, dtype=torch.float64, generator=draw)
    found, expected = [], []
    for make, result in ((pair_products, found), (lambda u, e, r, c: torch.einsum("pd,pd->p", u[r], e[c]), expected)):
        ends = [x.clone().requires_grad_() for x in (left, right)]
        products = make(*ends, row, column)
        (products * weight).sum().backward()
        result += [products, *(end.grad for end in ends)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("events", [2, 2 * PRODUCTS_PER_PAIR + 1])  # all at once, and pair by pair
def test_the_products_of_one_pair_do_not_depend_on_the_other_pairs(events: int) -> None:
    users, met = torch.eye(2), torch.arange(2.0 * events).reshape(events, 2)
    row, column = torch.tensor([1, 0, 1]), torch.tensor([0, events - 1, 1])
    assert pair_products(users, met, row, column).tolist() == [1.0, 2.0 * events - 2, 3.0]
