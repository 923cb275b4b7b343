"""Scores of candidates beside those of the same user's other candidates."""

import numpy as np


def group_zscore(row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[p] standard deviations of each score [p] above the mean of its user `row` [p]; zeros where all are equal."""
    size = np.maximum(np.bincount(row), 1)
    off = score - (np.bincount(row, score) / size)[row]
    spread = np.sqrt(np.bincount(row, off**2) / size)[row]
    return np.divide(off, spread, out=np.zeros(len(off)), where=spread > 1e-9)


def group_softmax(row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[p] softmax of the scores [p] over the candidates of each user `row` [p]."""
    best = np.full(row.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, row, score)
    weight = np.exp(score - best[row])
    return weight / np.bincount(row, weight)[row]
