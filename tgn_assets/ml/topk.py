"""Exact top-k of scored pairs, for all users at once."""

import numpy as np


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
