"""Names for the arrays that the whole package passes around.

A node (a user or an event) has two numbers that look alike and must not be mixed up. Its *index* is given once by the
warehouse and never changes. Its *position* is its rank among the nodes known at one point in time: it is only good
together with the `InteractionHistory` that it belongs to.
"""

from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

NodeIndices = NewType("NodeIndices", NDArray[np.int64])
"""Append-only warehouse indices (`users.user_idx`, `events.event_idx`)."""
NodePositions = NewType("NodePositions", NDArray[np.int64])
"""Positions among the nodes of one `InteractionHistory`."""
