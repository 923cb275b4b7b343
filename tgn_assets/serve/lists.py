"""One published week in memory, and its lists as JSON."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

Reader = Callable[[slice], list[Any]]
"""From rows to what a column holds in each of them, as JSON."""
STRIDE = 32
"""Every so many-th id is also kept as an object of its own, for the first steps of a search."""


class WeekLists:
    """The lists of one week, from the bytes that `write_compact` wrote; nothing of them is copied.

    The bytes are freed with the last reference to the object: a request that began with it ends with it.
    """

    def __init__(self, data: memoryview) -> None:
        size = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(bytes(data[8 : 8 + size]))
        self.week, self.target_week, self.tag = header["week"], header["target_week"], f'"{header["digest"]}"'
        self.weeks = f'"week":"{self.week}","target_week":"{self.target_week}"'.encode()
        self.users, self.events, self.bytes = header["users"], header["events"], len(data)
        self.new_user_items: bytes = header["new_user_items"].encode()
        arrays = {
            name: data[8 + size + at["begin"] :][: at["bytes"]].cast(at["type"])
            for name, at in header["arrays"].items()
        }
        self._ids, self._starts = _Texts(arrays, "user"), arrays["starts"]
        self._every = [self._ids.encoded(user) for user in range(0, self.users, STRIDE)]
        names = header["columns"]
        self._columns = [
            _numbers(arrays, name) if f"{name}.values" in arrays else _coded(arrays, name) for name in names
        ]
        self._item = b'{"rank":%%d%b}' % b"".join(b',"%b":%%b' % name.encode() for name in names)

    def items(self, user_id: str) -> bytes | None:
        """The list of the user as a JSON array of items; None for a user without one."""
        wanted, ids = user_id.encode(), self._ids
        block = STRIDE * max(bisect_right(self._every, wanted) - 1, 0)
        user = bisect_left(range(min(block + STRIDE, self.users)), wanted, block, key=ids.encoded)
        if user == self.users or ids.encoded(user) != wanted:
            return None
        rows = slice(self._starts[user], self._starts[user + 1])
        columns = (read(rows) for read in self._columns)
        items = [self._item % (rank, *values) for rank, values in enumerate(zip(*columns, strict=True), 1)]
        return b"[%b]" % b",".join(items)


class _Texts:
    """Texts one behind the other, by their number."""

    def __init__(self, arrays: dict[str, memoryview], name: str) -> None:
        self.text, self.offsets = arrays[f"{name}.text"], arrays[f"{name}.offsets"]

    def encoded(self, number: int) -> bytes:
        return bytes(self.text[self.offsets[number] : self.offsets[number + 1]])


def _coded(arrays: dict[str, memoryview], name: str) -> Reader:
    """Reads a column that has codes."""
    codes, text, offsets = arrays[f"{name}.codes"], arrays[f"{name}.text"], arrays[f"{name}.offsets"]
    return lambda rows: [text[offsets[code] : offsets[code + 1]] for code in codes[rows]]


def _numbers(arrays: dict[str, memoryview], name: str) -> Reader:
    """Reads a column that has numbers: what is neither infinite nor NaN."""
    values = arrays[f"{name}.values"]
    return lambda rows: [b"%a" % value if value - value == 0 else b"null" for value in values[rows]]
