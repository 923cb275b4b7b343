"""Side tables: what is known of events and users beside the log, such as a category, a price or a date."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from tgn_assets.ml.weeks import week_number

Node = Literal["event", "user"]
Kind = Literal["number", "time", "category"]
SETTINGS: dict[Node, str] = {"event": "TGN_EVENT_FEATURES", "user": "TGN_USER_FEATURES"}
ALWAYS = -(2**62)
"""The time from which a row without one counts."""
DAY = 86_400_000_000  # microseconds
MONDAY = 4 * DAY  # week number 0 begins on 1970-01-05


class AttributeColumn(NamedTuple):
    """A feature column of the table of `node`, and what its values are taken for."""

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
    """Rows of nodes, by warehouse index, in order of (idx, since). NaN is what is not known."""

    columns: tuple[AttributeColumn, ...] = ()
    idx: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [r]
    since: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [r] microseconds; ALWAYS: timeless
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """[r, C] float64: numbers, times in weeks since week number 0, categories as codes that only tell them apart."""

    def at(self, idx: np.ndarray, week: int) -> np.ndarray:
        """[n, C] what each of the nodes `idx` [n] was at the close of week number `week`: its newest row then."""
        counts = np.flatnonzero(self.since < close_of(week))
        found = np.full((len(idx), len(self.columns)), np.nan)
        if len(counts):
            newest = counts[np.searchsorted(self.idx[counts], idx, side="right") - 1]
            there = self.idx[newest] == idx
            found[there] = self.values[newest[there]]
        return found

    def covered(self, idx: np.ndarray) -> float:
        """Share of the nodes `idx` that have a row."""
        return float(np.isin(idx, self.idx).mean()) if len(idx) else 0.0

    def only(self, columns: Sequence[AttributeColumn]) -> "AttributeTable":
        """The same rows with these of its columns, in this order."""
        at = [self.columns.index(column) for column in columns]
        return replace(self, columns=tuple(columns), values=self.values[:, at])


@dataclass(frozen=True)
class AttributeTables:
    """The tables of events and of users as of a week; `notes` say what a reader should know of them."""

    event: AttributeTable = field(default_factory=AttributeTable)
    user: AttributeTable = field(default_factory=AttributeTable)
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[AttributeColumn, ...]:
        """The columns of both, those of events first."""
        return self.event.columns + self.user.columns

    def lacking(self, columns: Sequence[AttributeColumn]) -> list[AttributeColumn]:
        """Those of `columns` that are not there, or are taken for something else."""
        return [column for column in columns if column not in self.columns]

    def only(self, columns: Sequence[AttributeColumn]) -> "AttributeTables":
        """The tables with `columns` alone, all of which are there."""
        event, user = ([column for column in columns if column.node == node] for node in SETTINGS)
        return replace(self, event=self.event.only(event), user=self.user.only(user))

    def digest(self, users: np.ndarray, events: np.ndarray, week: int) -> str:
        """Of all that the tables say of `users` and `events` (indices) at the close of week number `week`."""
        made_of = hashlib.sha256(repr(self.columns).encode())
        for table, idx in ((self.event, events), (self.user, users)):
            for column, values in zip(table.columns, table.at(idx, week).T, strict=True):
                # A code may be another one once later rows are there: numbered anew, it is not.
                same = pd.factorize(values)[0] if column.kind == "category" else values
                made_of.update(same.tobytes())
        return made_of.hexdigest()

    def coverage(self, users: np.ndarray, events: np.ndarray, week: str) -> pd.DataFrame:
        """table, column, taken_as, known: for each column, the share of `users` or `events` (indices) that has a value
        when `week` closes."""
        rows = []
        for table, idx in ((self.event, events), (self.user, users)):
            known = ~np.isnan(table.at(idx, week_number(week)))
            shares = known.mean(axis=0) if len(idx) else np.zeros(len(table.columns))
            rows += [(*column, float(share)) for column, share in zip(table.columns, shares, strict=True)]
        return pd.DataFrame(rows, columns=["table", "column", "taken_as", "known"])


NO_ATTRIBUTES = AttributeTables()
