"""Exact top-k: of scored pairs, for all users at once, and of all products of two sets of vectors."""

import numpy as np
import torch
from torch import Tensor

PRODUCTS = 2**23
"""Products held at a time: 32 MiB."""


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


def top_products(left: Tensor, right: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """([n, k] values, [n, k] positions) of the `k` <= m largest of each row of `left` [n, d] @ `right` [m, d].T; exact.

    A block of rows at a time, so that memory grows neither with n nor with n * m. Which of equal values are taken, and
    in which order, is not defined.
    """
    blocks = left.split(max(1, PRODUCTS // max(len(right), 1)))
    values, positions = zip(*((rows @ right.T).topk(k, dim=1) for rows in blocks), strict=True)
    return torch.cat(values), torch.cat(positions)
