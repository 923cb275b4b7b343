"""One published week in memory, and its lists as JSON."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

Fragment = bytes | memoryview
STRIDE = 32
"""Every so many-th id is also kept as an object of its own, for the first steps of a search."""


class WeekLists:
    """The lists of one week, from the bytes that `write_compact` wrote; nothing of them is copied.

    The bytes are freed with the last reference to the object: a request that began with it ends with it.
    """

    def __init__(self, data: memoryview) -> None:
        size = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(bytes(data[8 : 8 + size]))
        self.week, self.target_week, self.digest = header["week"], header["target_week"], header["digest"]
        self.users, self.events, self.bytes = header["users"], header["events"], len(data)
        self.new_user_items: bytes = header["new_user_items"].encode()
        arrays = {
            name: data[8 + size + at["begin"] :][: at["bytes"]].cast(at["type"])
            for name, at in header["arrays"].items()
        }
        self._ids, self._starts = _Texts(arrays, "user"), arrays["starts"]
        self._every = [self._ids.encoded(user) for user in range(0, self.users, STRIDE)]
        self._columns = [
            (f',"{name}":'.encode(), _numbers(arrays, name) if f"{name}.values" in arrays else _coded(arrays, name))
            for name in header["columns"]
        ]

    def items(self, user_id: str) -> bytes | None:
        """The list of the user as a JSON array of items; None for a user without one."""
        wanted, ids = user_id.encode(), self._ids
        block = STRIDE * max(bisect_right(self._every, wanted) - 1, 0)
        user = bisect_left(range(min(block + STRIDE, self.users)), wanted, block, key=ids.encoded)
        if user == self.users or ids.encoded(user) != wanted:
            return None
        parts: list[Fragment] = []
        for rank, row in enumerate(range(self._starts[user], self._starts[user + 1]), 1):
            parts.append(b',{"rank":%d' % rank)
            for key, value in self._columns:
                parts += (key, value(row))
            parts.append(b"}")
        return b"[%b]" % b"".join(parts)[1:]


class _Texts:
    """Texts one behind the other, by their number."""

    def __init__(self, arrays: dict[str, memoryview], name: str) -> None:
        self.text, self.offsets = arrays[f"{name}.text"], arrays[f"{name}.offsets"]

    def __getitem__(self, number: int) -> memoryview:
        return self.text[self.offsets[number] : self.offsets[number + 1]]

    def encoded(self, number: int) -> bytes:
        return bytes(self.text[self.offsets[number] : self.offsets[number + 1]])


def _coded(arrays: dict[str, memoryview], name: str) -> Callable[[int], Fragment]:
    """What the column holds in a row, as JSON, if it has codes."""
    codes, texts = arrays[f"{name}.codes"], _Texts(arrays, name)
    return lambda row: texts[codes[row]]


def _numbers(arrays: dict[str, memoryview], name: str) -> Callable[[int], Fragment]:
    """The same if it has numbers."""
    values = arrays[f"{name}.values"]

    def number(row: int) -> Fragment:
        value = values[row]
        return repr(value).encode() if value - value == 0 else b"null"  # neither infinite nor NaN

    return number
