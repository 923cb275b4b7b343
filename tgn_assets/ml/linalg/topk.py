"""Exact top-k, for all users at once: of scored pairs, or of the dot products with all events."""

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.arrays import FloatArray, IntArray

GROUP = 64
"""Events whose largest product is looked at first."""
PRODUCTS = 2**23
"""Products held at a time where all of them are ordered: 32 MiB."""
TILE_USERS, TILE_EVENTS = 256, 4096
"""Products are computed in tiles of this size: 4 MiB, which stay in the processor's cache."""


@torch.no_grad()
def top_products(users: Tensor, events: Tensor, k: int) -> Tensor:
    """[n, min(k, m)] positions of the `events` [m, d] with the largest dot products with each of `users` [n, d].

    In any order; which of two equal products is taken is not specified. Exact: the `k` largest lie in the `k` groups
    of events whose maxima are largest, so that only these groups are ordered. Memory does not grow with n times m.

    >>> top_products(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 9.0], [3.0, 0.0], [2.0, 5.0]]), 2).tolist()
    [[1, 2]]
    """
    (size, dim), groups = events.shape, -(-len(events) // GROUP)
    if k * GROUP * dim > size:  # to compute the products of the groups again would cost more than to order all
        blocks = users.split(max(1, PRODUCTS // max(size, 1)))
        return torch.cat([_largest(block @ events.T, min(k, size)) for block in blocks])
    filled = torch.arange(groups * GROUP, device=events.device).clamp(max=size - 1)  # the last event fills its group up
    padded = events[filled]
    found = [torch.zeros(0, k, dtype=torch.int64, device=events.device)]
    for block in users.split(TILE_USERS):
        tiles = ((block @ tile.T).unflatten(1, (-1, GROUP)).amax(2) for tile in padded.split(TILE_EVENTS))
        chosen = torch.cat(list(tiles), dim=1).topk(k, dim=1).indices
        products = (padded.view(groups, GROUP, -1)[chosen] @ block[:, None, :, None]).flatten(1)
        position = (chosen[:, :, None] * GROUP + torch.arange(GROUP, device=users.device)).flatten(1)
        best = products.masked_fill(position >= size, -torch.inf).topk(k, dim=1).indices
        found.append(position.gather(1, best))
    return torch.cat(found)


def _largest(values: Tensor, k: int) -> Tensor:
    """[n, k] positions of the `k` largest `values` [n, m] of each row. On a CPU NumPy finds the k-th faster."""
    if values.is_cpu and 0 < k < values.shape[1]:
        array = values.numpy()
        large = array >= np.partition(array, -k, axis=1)[:, [-k]]
        if large.sum() == k * len(array):  # or else some are as large as the k-th
            return torch.from_numpy(large.nonzero()[1]).view(-1, k)
    return values.topk(k, dim=1).indices


def grouped_top_k(row: IntArray, score: FloatArray, tie: IntArray | FloatArray, rows: int, k: int) -> IntArray:
    """[rows, k] positions of the `k` pairs with the largest `score` in each group `row`; -1 where it has fewer.

    `row` ascends. Equal scores are ordered by `tie`, ascending: a rule that knows nothing of the outcome.

    >>> grouped_top_k(np.array([0, 0, 0, 2]), np.array([1.0, 3.0, 2.0, 5.0]), np.zeros(4), rows=3, k=2).tolist()
    [[1, 2], [-1, -1], [3, -1]]
    """
    eligible = np.flatnonzero(score >= grouped_kth_largest(row, score, rows, k)[row])
    order = eligible[np.lexsort((tie[eligible], -score[eligible], row[eligible]))]
    start = np.searchsorted(row[order], np.arange(rows + 1))
    rank = np.arange(len(order)) - start[row[order]]
    top = np.full((rows, k), -1)
    best = rank < k
    top[row[order[best]], rank[best]] = order[best]
    return top


def grouped_kth_largest(row: IntArray, score: FloatArray, rows: int, k: int) -> FloatArray:
    """[rows] the `k`-th largest `score` of each group `row`, which ascends; -inf where it has fewer, and
    everywhere if none has more.

    >>> grouped_kth_largest(np.array([0, 0, 0, 2]), np.array([1.0, 3.0, 2.0, 5.0]), rows=3, k=2).tolist()
    [2.0, -inf, -inf]
    """
    size = np.bincount(row, minlength=rows)
    if size.max(initial=0) <= k:
        return np.full(rows, -np.inf)
    table = np.full((rows, size.max()), -np.inf)
    table[row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)] = score
    return np.partition(table, -k, axis=1)[:, -k]
