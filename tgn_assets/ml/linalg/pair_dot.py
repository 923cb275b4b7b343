"""Dot products of pairs of vectors, on the CPU without a copy of both vectors for every pair."""

from typing import Any

import torch
from torch import Tensor

from tgn_assets.ml.linalg.csr import csr_tensor, with_transpose


def pair_dot(users: Tensor, events: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """[p] dot products of the vectors `row` [p] of `users` [n, d] with those `column` [p] of `events` [m, d].

    A sampled dense-dense product (SDDMM). Pairs are distinct and ascend by row, then column. Each product is the same
    bytes whatever other pairs there are.

    >>> users, events = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    >>> pair_dot(users, events, torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])).tolist()
    [5.0, 11.0, 17.0]
    """
    if users.is_cpu:
        return _PairDot.apply(users, events, row, column)
    # On a GPU the gradient of index_select is added up in any order; that of users[row] is not, but is sorted for it.
    # Sums elsewhere have no fixed order there either, so that a GPU does not promise the same bytes.
    return (users.index_select(0, row) * events.index_select(0, column)).sum(-1)


class _PairDot(torch.autograd.Function):
    """The entries of users @ events.T at the pairs, and their gradient."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, events: Tensor, row: Tensor, column: Tensor) -> Tensor:
        ctx.save_for_backward(users, events, row, column)
        start = torch.searchsorted(row, torch.arange(len(users) + 1, device=row.device))
        shape = (len(users), len(events))
        wanted = csr_tensor(start, column, users.new_zeros(len(row)), shape)
        return torch.sparse.sampled_addmm(wanted, users, events.T, beta=0.0).values()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        users, events, row, column = ctx.saved_tensors
        matrix, transpose = with_transpose(row, column, grad[0], (len(users), len(events)))
        return matrix @ events, transpose @ users, None, None
