import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgn_assets.ml.linalg.pair_dot import pair_dot


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.floats(0, 1), st.integers(0, 9))
def test_products_and_gradients_equal_those_of_dense_rows(users: int, events: int, share: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, 3, dtype=torch.float64, generator=draw) for size in (users, events))
    row, column = (torch.rand(users, events, generator=draw) < share).nonzero().T.contiguous()
    weight = torch.randn(len(row), dtype=torch.float64, generator=draw)
    results = []
    for sampled in (True, False):
        u, e = (vectors.clone().requires_grad_() for vectors in (left, right))
        products = pair_dot(u, e, row, column) if sampled else (u[row] * e[column]).sum(1)
        (products * weight).sum().backward()
        results.append([products, u.grad, e.grad])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_a_product_is_the_same_bytes_whatever_the_other_pairs(events: int, data: st.DataObject) -> None:
    draw = torch.Generator().manual_seed(events)
    users, met = (torch.randn(size, 65, generator=draw) for size in (4, events))
    row = torch.arange(4).repeat_interleave(events)
    column = torch.arange(events).repeat(4)
    everything = pair_dot(users, met, row, column).view(4, events)
    user, event = data.draw(st.integers(0, 3)), data.draw(st.integers(0, events - 1))
    (alone,) = pair_dot(users[user : user + 1], met, torch.tensor([0]), torch.tensor([event]))
    assert alone == everything[user, event]
