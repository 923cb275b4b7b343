"""Look numbers up in an ascending array."""

from typing import Any

import numpy as np

from tgn_assets.ml.arrays import BoolArray, IntArray

ABSENT = -2
"""Stands behind the last known number, where searches for larger ones end; what is looked up is at least -1."""


def key_type(largest: int) -> Any:
    """The narrowest integer type with `largest`: narrow keys are faster to sort, divide and search.

    >>> key_type(2**31 - 1).__name__, key_type(2**31).__name__
    ('int32', 'int64')
    """
    return np.int32 if largest < 2**31 else np.int64


def look_up(known: IntArray, wanted: IntArray) -> tuple[IntArray, BoolArray]:
    """([n] the insertion point of `wanted` [n] in the ascending `known`, [n] whether it is there). -1 is never there.

    >>> at, there = look_up(np.array([2, 5]), np.array([5, 3, -1, 9]))
    >>> at.tolist(), there.tolist()
    ([1, 1, 0, 2], [True, False, False, False])
    """
    at = np.searchsorted(known, wanted)
    return at, np.append(known, ABSENT)[at] == wanted
