"""Exact top-k, for all users at once: of scored pairs, or of the dot products with all events."""

import numpy as np
import torch
from torch import Tensor

GROUP = 64
"""Events whose largest product is looked at first."""
BLOCK_PRODUCTS = 2**25
"""Products held at a time: 128 MiB."""


@torch.no_grad()
def top_products(users: Tensor, events: Tensor, k: int) -> Tensor:
    """[n, min(k, m)] positions of the `events` [m, d] with the largest dot products with each of `users` [n, d].

    Best first; which of two equal products comes first is not said. Exact: the `k` largest lie in the `k` groups of
    events whose maxima are largest, so that only these groups are ordered. Memory does not grow with n.
    """
    groups = -(-len(events) // GROUP)
    if groups <= k:
        return (users @ events.T).topk(min(k, len(events)), dim=1).indices
    padded = torch.cat([events, events.new_zeros(groups * GROUP - len(events), events.shape[1])])
    found = []
    for block in users.split(max(1, BLOCK_PRODUCTS // len(padded))):
        products = block @ padded.T
        products[:, len(events) :] = -torch.inf
        grouped = products.view(len(block), groups, GROUP)
        chosen = grouped.amax(2).topk(k, dim=1).indices
        best = grouped.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1).topk(k, dim=1).indices
        found.append(chosen.gather(1, best // GROUP) * GROUP + best % GROUP)
    return torch.cat(found) if found else torch.zeros(0, k, dtype=torch.int64, device=users.device)


def grouped_top_k(row: np.ndarray, score: np.ndarray, tie: np.ndarray, rows: int, k: int) -> np.ndarray:
    """[rows, k] positions of the `k` pairs with the largest `score` in each group `row`; -1 where it has fewer.

    Equal scores are ordered by `tie`, ascending: a rule that knows nothing of the outcome.
    """
    order = np.lexsort((tie, -score, row))
    start = np.searchsorted(row[order], np.arange(rows + 1))
    rank = np.arange(len(order)) - start[row[order]]
    top = np.full((rows, k), -1)
    best = rank < k
    top[row[order[best]], rank[best]] = order[best]
    return top
