"""Scores of candidates relative to those of the same user's other candidates."""

import numpy as np

from tgn_assets.ml.arrays import FloatArray, IntArray


def group_zscore(row: IntArray, score: FloatArray) -> FloatArray:
    """[p] standard deviations of each score [p] above the mean of its user `row` [p]; zeros where all are equal.

    >>> group_zscore(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 5.0, 5.0])).tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    size = np.maximum(np.bincount(row), 1)
    off = score - (np.bincount(row, score) / size)[row]
    spread = np.sqrt(np.bincount(row, off**2) / size)[row]
    return np.divide(off, spread, out=np.zeros(len(off)), where=spread > 1e-9)


def group_softmax(row: IntArray, score: FloatArray) -> FloatArray:
    """[p] softmax of the scores [p] over the candidates of each user `row` [p].

    >>> group_softmax(np.array([0, 0, 1]), np.array([0.0, np.log(3), 9.0])).round(2).tolist()
    [0.25, 0.75, 1.0]
    """
    best = np.full(row.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, row, score)
    weight = np.exp(score - best[row])
    return weight / np.bincount(row, weight)[row]
