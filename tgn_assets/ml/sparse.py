"""Sparse user-event arithmetic that baselines and candidates share."""

import numpy as np
from scipy import sparse

NEIGHBOURS = 50
BLOCK = 20_000_000
"""Multiply-adds of a sparse product computed at a time, so that memory does not grow with its square."""


def heaviest(matrix: sparse.csr_array, limit: int) -> sparse.csr_array:
    """The `limit` largest entries of each row, the first of equal ones."""
    size = np.diff(matrix.indptr)
    if size.max(initial=0) <= limit:
        return matrix
    row = np.repeat(np.arange(matrix.shape[0]), size)
    by_weight = np.argsort(-matrix.data, kind="stable")
    by_weight = by_weight[np.argsort(row[by_weight], kind="stable")]
    kept = np.sort(by_weight[np.arange(len(row)) - matrix.indptr[row] < limit])
    indptr = np.append(0, np.cumsum(np.minimum(size, limit)))
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def neighbours(profile: sparse.csr_array, limit: int = NEIGHBOURS) -> sparse.csr_array:
    """Cosine similarity [columns, columns] of each column of `profile` to its `limit` nearest others, not itself."""
    norm = np.sqrt(np.bincount(profile.indices, weights=profile.data**2, minlength=profile.shape[1]))
    unit = profile.copy()
    unit.data = unit.data / norm[unit.indices]
    by_column = sparse.csr_array(unit.T)
    cost = by_column.astype(bool).astype(np.int64) @ np.diff(unit.indptr)
    parts = []
    for low, high in blocks(cost):
        cosine = sparse.csr_array(by_column[low:high] @ unit)
        cosine.sort_indices()
        cosine.data[cosine.indices == low + row_of(cosine)] = 0
        cosine.eliminate_zeros()
        parts.append(heaviest(cosine, limit))
    if not parts:
        return sparse.csr_array((profile.shape[1], profile.shape[1]))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def blocks(cost: np.ndarray) -> list[tuple[int, int]]:
    """Consecutive ranges of rows whose costs add up to about `BLOCK`."""
    block = np.cumsum(cost) // BLOCK
    edges = np.flatnonzero(np.diff(block, prepend=-1)).tolist() if len(cost) else []
    return list(zip(edges, [*edges[1:], len(cost)], strict=True)) if edges else []


def row_of(matrix: sparse.csr_array) -> np.ndarray:
    """The row of each stored entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
