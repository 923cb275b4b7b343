"""Sparse user-event arithmetic that baselines and candidates share."""

from itertools import pairwise

import numpy as np
from scipy import sparse

from tgn_assets.ml.parallel import map_threaded

NEIGHBOURS = 100
SHRINKAGE = 10.0
"""Added to the cosine's denominator: two events that share one user, long ago, are not each other's best neighbour."""

BLOCK = 1_000_000
"""Products in a block of a sparse product: bounds its memory whatever the numbers of users and events."""


def item_similarity(
    profile: sparse.csr_array, *, neighbours: int = NEIGHBOURS, shrinkage: float = SHRINKAGE
) -> sparse.csr_array:
    """Weights [columns, columns] of each event's nearest others, by shrunk cosine; a row adds up to 1, or is empty."""
    events = profile.shape[1]
    norm = np.sqrt(sums(profile.indices, profile.data**2, events))
    by_event = sparse.csr_array(profile.T)
    products = by_event.astype(bool).astype(np.int64) @ np.diff(profile.indptr)

    def nearest(block: tuple[int, int]) -> sparse.csr_array:
        low, high = block
        near = ordered(by_event[low:high] @ profile)
        event = low + row_of(near)
        near.data /= norm[event] * norm[near.indices] + shrinkage
        near.data[event == near.indices] = 0
        near.eliminate_zeros()
        near = top_n_per_row(near, neighbours)
        near.data /= near.sum(axis=1)[row_of(near)]
        return near

    parts = [sparse.csr_array((0, events)), *map_threaded(nearest, blocks(products))]
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def ordered(matrix: sparse.csr_array) -> sparse.csr_array:
    """The same entries, those of a row by column: transposed twice, which takes linear time, as sorting does not."""
    return sparse.csr_array(sparse.csc_array(matrix))


def top_n_per_row(matrix: sparse.csr_array, limit: int) -> sparse.csr_array:
    """The `limit` largest entries of each row, the first of equal ones."""
    size = np.diff(matrix.indptr)
    kept = np.ones(matrix.nnz, bool)
    octave = np.where(size > limit, np.frexp(size)[1], 0)
    for rows in (np.flatnonzero(octave == width) for width in np.unique(octave[octave > 0])):
        # Rows of similar size share one padded table, so that the padding at most doubles them.
        place = np.arange(size[rows].max())
        real = place < size[rows, None]
        entry = (matrix.indptr[rows, None] + place)[real]
        value = np.full(real.shape, -np.inf)
        value[real] = matrix.data[entry]
        edge = np.partition(value, -limit, axis=1)[:, [-limit]]
        above, equal = value > edge, value == edge
        kept[entry] = (above | (equal & (equal.cumsum(1) <= limit - above.sum(1, keepdims=True))))[real]
    starts = np.append(0, np.cumsum(np.minimum(size, limit)))
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def rows_of(matrix: sparse.csr_array, users: np.ndarray) -> sparse.csr_array:
    """The rows `users` of a matrix, an empty one for -1."""
    users, (rows, columns) = np.asarray(users), matrix.shape
    indptr = np.append(matrix.indptr, matrix.indptr[-1])
    padded = sparse.csr_array((matrix.data, matrix.indices, indptr), shape=(rows + 1, columns))
    return sparse.csr_array(padded[np.where(users < 0, rows, users)])


def only_columns(matrix: sparse.csr_array, kept: np.ndarray) -> sparse.csr_array:
    """The entries in the columns where `kept` [columns] is True."""
    there = kept[matrix.indices]
    starts = np.append(0, np.cumsum(there))[matrix.indptr]
    return sparse.csr_array((matrix.data[there], matrix.indices[there], starts), shape=matrix.shape)


def row_of(matrix: sparse.csr_array) -> np.ndarray:
    """The row of every entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def sums(index: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """The sum of `weight` at each of 0 to `size` - 1."""
    # bincount of nothing is of integers, whatever the weights.
    return np.bincount(index, weights=weight, minlength=size).astype(float)


def blocks(cost: np.ndarray, size: int = BLOCK) -> list[tuple[int, int]]:
    """Ranges of consecutive rows that cost about `size` each."""
    edges = np.flatnonzero(np.diff(np.cumsum(cost) // size, prepend=-1)).tolist()
    return list(pairwise([*edges, len(cost)]))
