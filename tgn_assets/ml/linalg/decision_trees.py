"""Scores of boosted decision trees for many rows: LightGBM's own numbers, in a fraction of its time.

LightGBM walks down each tree row by row, and the processor guesses most turns wrong. Here a node is asked for all rows
at once: a row that goes right cannot reach the leaves on the left. The first leaf that is left over is the row's.
After Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees",
SIGIR 2015.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tgn_assets.ml.arrays import FloatArray, IntArray

MAX_LEAVES = 16
"""Leaves of a tree, at most: a row's leaves that cannot be reached are the bits of one number."""
ROWS_TOGETHER = 2**15
"""Rows that pass a tree together: what is between its nodes stays in the processor's cache."""
MAX_FLOAT = float(np.finfo(np.float32).max)

_UNREACHED = np.arange(2**MAX_LEAVES)
_FIRST_LEAF = np.log2(~_UNREACHED & (_UNREACHED + 1)).astype(np.uint8)
"""By the bits of the leaves that cannot be reached: the first other one."""


class Tree(NamedTuple):
    """A tree's nodes: (row of `DecisionTrees.feature`, largest value that goes left, bits of the leaves on the left);
    and the values of its leaves, from left to right."""

    nodes: list[tuple[int, np.float32, np.uint16]]
    leaves: FloatArray


@dataclass(frozen=True)
class DecisionTrees:
    """Trees whose values add up to a row's score. What they compare are columns [c], each a feature of the rows."""

    feature: IntArray  # [c]
    if_missing: FloatArray  # [c] float32: stands for NaN
    trees: tuple[Tree, ...]

    def scores(self, features: FloatArray) -> FloatArray:
        """[n] of rows with `features` [n, F] float32: what `lightgbm.Booster.predict` gives, to the last bit, where no
        feature but zero is nearer to zero than 1e-35, which LightGBM takes for zero."""
        score = np.zeros(len(features))
        for low in range(0, len(features), ROWS_TOGETHER):
            columns = features[low : low + ROWS_TOGETHER].T[self.feature]
            missing = np.isnan(columns)
            if missing.any():
                np.copyto(columns, self.if_missing[:, None], where=missing)
            self._add(score[low : low + ROWS_TOGETHER], columns)
        return score

    def _add(self, score: FloatArray, columns: FloatArray) -> None:
        """Adds the trees' values to `score` [n], whose rows have `columns` [c, n]."""
        goes_right = np.empty(len(score), bool)
        unreached, on_the_left = np.empty((2, len(score)), np.uint16)
        for nodes, leaves in self.trees:
            unreached.fill(0)
            for column, threshold, left in nodes:
                np.greater(columns[column], threshold, out=goes_right)
                np.copyto(on_the_left, goes_right)
                np.multiply(on_the_left, left, out=on_the_left)
                np.bitwise_or(unreached, on_the_left, out=unreached)
            score += leaves.take(_FIRST_LEAF.take(unreached))


def decision_trees(model: Mapping[str, Any]) -> DecisionTrees:
    """The trees of `model`, the dump of a `lightgbm.Booster` of numerical features.

    ValueError if a tree has more than `MAX_LEAVES` leaves.
    """
    columns = dict[tuple[int, float], int]()
    trees = tuple(_tree(of["tree_structure"], columns) for of in model["tree_info"])
    feature, if_missing = zip(*columns, strict=True) if columns else ((), ())
    return DecisionTrees(np.array(feature, int), np.array(if_missing, np.float32), trees)


def _tree(root: Mapping[str, Any], columns: dict[tuple[int, float], int]) -> Tree:
    """The tree below the dumped node `root`; enters what it compares, feature and stand-in for NaN, into `columns`."""
    nodes, leaves = list[tuple[int, np.float32, np.uint16]](), list[float]()

    def walk(node: Mapping[str, Any]) -> int:
        """The bits of the leaves of `node`."""
        if "leaf_value" in node:
            leaves.append(node["leaf_value"])
            return 1 << len(leaves) - 1
        left = walk(node["left_child"])
        column = columns.setdefault((node["split_feature"], _stand_in(node)), len(columns))
        nodes.append((column, _at_most(node["threshold"]), np.uint16(left)))
        return left | walk(node["right_child"])

    if walk(root) >= 1 << MAX_LEAVES:
        raise ValueError(f"a tree has {len(leaves)} leaves, more than {MAX_LEAVES}")
    return Tree(nodes, np.array(leaves))


def _stand_in(node: Mapping[str, Any]) -> float:
    """The value that goes where NaN goes at `node`; where training saw no NaN, LightGBM takes zero."""
    if node["missing_type"] == "None":
        return 0.0
    return -np.inf if node["default_left"] else np.inf


def _at_most(threshold: float) -> np.float32:
    """The largest float32 that is not above `threshold`."""
    rounded = np.float32(np.clip(threshold, -MAX_FLOAT, MAX_FLOAT))
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded
