"""Sparse user-event arithmetic that the encoder, the candidates and the baselines share."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.parallel import map_threaded

BLOCK = 1_000_000
"""Products in a block of a sparse product: bounds its memory whatever the numbers of users and events."""


def item_similarity(profile: sparse.csr_array, *, neighbours: int, shrinkage: float) -> sparse.csr_array:
    """Weights [E, E] of each event's `neighbours` nearest others in `profile` [U, E]; a row adds up to 1, or is empty.

    Nearest by cosine, with `shrinkage` added to its denominator: two events that share one user, long ago, are not each
    other's best neighbour.

    >>> profile = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    >>> item_similarity(profile, neighbours=100, shrinkage=0.0).toarray().round(2).tolist()
    [[0.0, 0.59, 0.41], [0.59, 0.0, 0.41], [0.5, 0.5, 0.0]]
    """
    events = profile.shape[1]
    norm = np.sqrt(sums(profile.indices, profile.data**2, events))
    by_event = sparse.csr_array(profile.T)
    products = by_event.astype(bool).astype(np.int64) @ np.diff(profile.indptr)

    def nearest(block: tuple[int, int]) -> sparse.csr_array:
        low, high = block
        cosine = with_sorted_indices(by_event[low:high] @ profile)
        event = low + row_of(cosine)
        cosine.data /= norm[event] * norm[cosine.indices] + shrinkage
        cosine.data[event == cosine.indices] = 0
        cosine.eliminate_zeros()
        cosine = top_n_per_row(cosine, neighbours)
        cosine.data /= cosine.sum(axis=1)[row_of(cosine)]
        return cosine

    parts = [sparse.csr_array((0, events)), *map_threaded(nearest, split_by_cost(products))]
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def with_sorted_indices(matrix: sparse.csr_array) -> sparse.csr_array:
    """`matrix` with each row sorted by column: two transpositions take linear time, and sorting does not.

    >>> matrix = sparse.csr_array((np.array([5, 6]), np.array([2, 0]), np.array([0, 2])), (1, 3))
    >>> with_sorted_indices(matrix).indices.tolist()
    [0, 2]
    """
    return sparse.csr_array(sparse.csc_array(matrix))


def top_n_per_row(matrix: sparse.csr_array, limit: int) -> sparse.csr_array:
    """The `limit` largest entries of each row, the first of equal ones.

    >>> top_n_per_row(sparse.csr_array(np.array([[3, 1, 2], [0, 4, 4]])), 1).toarray().tolist()
    [[3, 0, 0], [0, 4, 0]]
    """
    size = np.diff(matrix.indptr)
    kept = np.ones(matrix.nnz, bool)
    octave = np.where(size > limit, np.frexp(size)[1], 0)
    for rows in (np.flatnonzero(octave == width) for width in np.unique(octave[octave > 0])):
        # Rows of similar size share one padded table, so that the padding at most doubles them.
        slot = np.arange(size[rows].max())
        real = slot < size[rows, None]
        entry = (matrix.indptr[rows, None] + slot)[real]
        value = np.full(real.shape, -np.inf)
        value[real] = matrix.data[entry]
        edge = np.partition(value, -limit, axis=1)[:, [-limit]]
        above, equal = value > edge, value == edge
        kept[entry] = (above | (equal & (equal.cumsum(1) <= limit - above.sum(1, keepdims=True))))[real]
    starts = np.append(0, np.cumsum(np.minimum(size, limit)))
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def only_columns(matrix: sparse.csr_array, kept: BoolArray) -> sparse.csr_array:
    """The entries in the columns where `kept` [columns] is True; the shape stays.

    >>> only_columns(sparse.csr_array(np.array([[1, 2], [3, 4]])), np.array([False, True])).toarray().tolist()
    [[0, 2], [0, 4]]
    """
    there = kept[matrix.indices]
    starts = np.append(0, np.cumsum(there))[matrix.indptr]
    return sparse.csr_array((matrix.data[there], matrix.indices[there], starts), shape=matrix.shape)


def row_of(matrix: sparse.csr_array) -> IntArray:
    """[nnz] the row of every entry.

    >>> row_of(sparse.csr_array(np.array([[0, 2], [3, 4]]))).tolist()
    [0, 1, 1]
    """
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def sums(index: NDArray[np.integer[Any]], weight: FloatArray, size: int) -> FloatArray:
    """[size] the sum of `weight` at each of 0 to `size` - 1.

    >>> sums(np.array([2, 0, 2]), np.array([1.0, 2.0, 3.0]), 4).tolist()
    [2.0, 0.0, 4.0, 0.0]
    """
    # bincount of nothing is of integers, whatever the weights.
    return np.bincount(index, weights=weight, minlength=size).astype(float)


def split_by_cost(cost: IntArray, size: int = BLOCK) -> list[tuple[int, int]]:
    """Ranges [low, high) of consecutive rows that cost about `size` each.

    >>> split_by_cost(np.array([4, 4, 9, 1, 1]), size=8)
    [(0, 1), (1, 2), (2, 5)]
    """
    edges = np.flatnonzero(np.diff(np.cumsum(cost) // size, prepend=-1)).tolist()
    return list(pairwise([*edges, len(cost)]))
