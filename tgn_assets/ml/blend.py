"""Several rankers' scores of the same candidates made one, by how far each score stands out from the others."""

import numpy as np


def standardised(row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[p] standard deviations of each score [p] above the mean of its user `row` [p]; zeros where all are equal."""
    size = np.maximum(np.bincount(row), 1)
    off = score - (np.bincount(row, score) / size)[row]
    spread = np.sqrt(np.bincount(row, off**2) / size)[row]
    return np.divide(off, spread, out=np.zeros(len(off)), where=spread > 1e-9)


TREES_SAY = 1 / 2
"""Weight of the trees where the network has one. On weeks before the reported ones this was good on all three logs
(docs/quality.md)."""


def blended(row: np.ndarray, network: np.ndarray, trees: np.ndarray) -> np.ndarray:
    """[p] sum of the standardised scores of the two rankers, the trees' with the weight `TREES_SAY`."""
    return standardised(row, network.astype(float)) + TREES_SAY * standardised(row, trees.astype(float))


def shares(row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[p] softmax of the scores [p] over the candidates of each user `row` [p]."""
    best = np.full(row.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, row, score)
    weight = np.exp(score - best[row])
    return weight / np.bincount(row, weight)[row]
