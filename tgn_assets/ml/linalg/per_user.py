"""Scores of candidates relative to those of the same user's other candidates; the users' rows ascend."""

import numpy as np

from tgn_assets.ml.arrays import FloatArray, IntArray


def group_zscore(row: IntArray, score: FloatArray) -> FloatArray:
    """[p] standard deviations of each score [p] above the mean of its user `row` [p]; zeros where all are equal.

    >>> group_zscore(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 5.0, 5.0])).tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    deviation, std = _deviation_and_std(row, score)
    return divided_by_std(deviation, std[row])


def group_std(row: IntArray, score: FloatArray) -> FloatArray:
    """[n] the standard deviation of the scores [p] of each user `row` [p].

    >>> group_std(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 5.0, 5.0])).tolist()
    [1.0, 0.0]
    """
    return _deviation_and_std(row, score)[1]


def divided_by_std(difference: FloatArray, std: FloatArray) -> FloatArray:
    """[p] score differences in standard deviations [p]; zero where scores do not differ.

    >>> divided_by_std(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
    [0.5, 0.0]
    """
    return np.divide(difference, std, out=np.zeros(len(difference)), where=std > 1e-9)


def _deviation_and_std(row: IntArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """([p] each score minus its user's mean, [n] the user's standard deviation)."""
    first = np.flatnonzero(np.diff(row, prepend=-1))
    size = np.diff(first, append=len(row))
    deviation = score - np.repeat(np.add.reduceat(score, first, dtype=float) / size, size)
    std = np.zeros(row.max(initial=-1) + 1)
    std[row[first]] = np.sqrt(np.add.reduceat(deviation**2, first) / size)
    return deviation, std


def group_softmax(row: IntArray, score: FloatArray) -> FloatArray:
    """[p] softmax of the scores [p] over the candidates of each user `row` [p].

    >>> group_softmax(np.array([0, 0, 1]), np.array([0.0, np.log(3), 9.0])).round(2).tolist()
    [0.25, 0.75, 1.0]
    """
    best = np.full(row.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, row, score)
    weight = np.exp(score - best[row])
    return weight / np.bincount(row, weight)[row]
