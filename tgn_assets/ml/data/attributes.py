"""Attribute tables: what is known of events and users besides the log, such as a category, a price or a date."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.weeks import week_number

Node = Literal["event", "user"]
Kind = Literal["number", "time", "category"]
SETTINGS: dict[Node, str] = {"event": "TGN_EVENT_FEATURES", "user": "TGN_USER_FEATURES"}
ALWAYS = -(2**62)
"""The `since` of a row without a time."""
DAY = 86_400_000_000  # microseconds
MONDAY = 4 * DAY  # week number 0 begins on 1970-01-05


class AttributeColumn(NamedTuple):
    """A column of the table of `node`, and how its values are read."""

    node: Node
    name: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name} of {SETTINGS[self.node]}, a {self.kind}"


def close_of(week: int) -> int:
    """When week number `week` closes, in microseconds since 1970."""
    return MONDAY + (week + 1) * 7 * DAY


@dataclass(frozen=True)
class AttributeTable:
    """Rows of nodes, by warehouse index, sorted by (idx, since); each is valid from `since` on. NaN is unknown."""

    columns: tuple[AttributeColumn, ...] = ()
    idx: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))  # [r]
    since: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))  # [r] microseconds; ALWAYS: timeless
    values: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    """[r, C] float64: numbers, times in weeks since week number 0, categories as arbitrary codes."""

    def at(self, idx: IntArray, week: int) -> FloatArray:
        """[n, C] values of the nodes `idx` [n] (warehouse indices) in their newest row at the close of week `week`."""
        counts = np.flatnonzero(self.since < close_of(week))
        found = np.full((len(idx), len(self.columns)), np.nan)
        if len(counts):
            newest = counts[np.searchsorted(self.idx[counts], idx, side="right") - 1]
            there = self.idx[newest] == idx
            found[there] = self.values[newest[there]]
        return found

    def covered(self, idx: IntArray) -> float:
        """Share of the warehouse indices `idx` that have a row."""
        return float(np.isin(idx, self.idx).mean()) if len(idx) else 0.0

    def only(self, columns: Sequence[AttributeColumn]) -> "AttributeTable":
        """The table with just `columns`, in that order."""
        at = [self.columns.index(column) for column in columns]
        return replace(self, columns=tuple(columns), values=self.values[:, at])


@dataclass(frozen=True)
class AttributeTables:
    """The tables of events and of users; `notes` are warnings about them for the user."""

    event: AttributeTable = field(default_factory=AttributeTable)
    user: AttributeTable = field(default_factory=AttributeTable)
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[AttributeColumn, ...]:
        """The columns of both tables, those of events first."""
        return self.event.columns + self.user.columns

    def lacking(self, columns: Sequence[AttributeColumn]) -> list[AttributeColumn]:
        """The `columns` that are missing or are read as another kind."""
        return [column for column in columns if column not in self.columns]

    def only(self, columns: Sequence[AttributeColumn]) -> "AttributeTables":
        """The tables with just `columns`, none of which may be missing."""
        event, user = ([column for column in columns if column.node == node] for node in SETTINGS)
        return replace(self, event=self.event.only(event), user=self.user.only(user))

    def digest(self, users: IntArray, events: IntArray, week: int) -> str:
        """Hash of all values of the warehouse indices `users` and `events` at the close of week number `week`."""
        made_of = hashlib.sha256(repr(self.columns).encode())
        for table, idx in ((self.event, events), (self.user, users)):
            for column, values in zip(table.columns, table.at(idx, week).T, strict=True):
                # Rows that are valid later may change the codes of categories, not the order in which they appear here.
                same = pd.factorize(values)[0] if column.kind == "category" else values
                made_of.update(same.tobytes())
        return made_of.hexdigest()

    def coverage(self, users: IntArray, events: IntArray, week: str) -> pd.DataFrame:
        """table, column, taken_as, known: of each attribute, the share of `users` or `events` (warehouse indices) that
        have a value at the close of `week`."""
        rows = []
        for table, idx in ((self.event, events), (self.user, users)):
            known = ~np.isnan(table.at(idx, week_number(week)))
            shares = known.mean(axis=0) if len(idx) else np.zeros(len(table.columns))
            rows += [(*column, float(share)) for column, share in zip(table.columns, shares, strict=True)]
        return pd.DataFrame(rows, columns=["table", "column", "taken_as", "known"])


NO_ATTRIBUTES = AttributeTables()
