"""Interactions up to the close of a week, by dense node positions: what every feature, label and list is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import FloatArray, IntArray, NodeIndices, NodePositions
from tgn_assets.ml.weeks import week_number

if TYPE_CHECKING:
    import duckdb

HISTORY_SQL = """
    WITH u AS (SELECT user_id, user_idx FROM users WHERE first_week <= $week),
         e AS (SELECT event_id, event_idx, row_number() OVER (ORDER BY event_id) - 1 AS event_order
               FROM events WHERE first_week <= $week)
    SELECT user_idx::INTEGER AS user_idx, event_idx::INTEGER AS event_idx, event_order::INTEGER AS event_order,
           (date_diff('day', DATE '1970-01-05', week) // 7)::INTEGER AS week_no, count(*)::FLOAT AS count,
           ((epoch(week + 7) - epoch(max(ts))) / 604800)::FLOAT AS since
    FROM raw_interactions JOIN u USING (user_id) JOIN e USING (event_id)
    WHERE week <= $week
    GROUP BY user_idx, event_idx, event_order, week ORDER BY week_no, user_idx, event_idx
"""
"""Rows of `InteractionHistory.from_frame`, for `$week` (DATE) in a warehouse."""
ORDER = ["week_no", "user_idx", "event_idx"]
Derived = TypeVar("Derived")


@dataclass(frozen=True)
class Catalogue:
    """The events that are known at the close of week `week`."""

    week: int
    event_idx: NodeIndices  # [E] warehouse index of each event position, ascending
    event_order: IntArray  # [E] rank of the event's id in text order: breaks ties
    first_week_of_event: IntArray  # [E] number of the week of its first interaction

    @property
    def num_events(self) -> int:
        """Events E that are known."""
        return len(self.event_idx)


@dataclass(frozen=True)
class InteractionHistory(Catalogue):
    """Interactions up to the close of week `week`, aggregated per (user, event, week).

    A node's *position* is the rank of its append-only index among the nodes that have a row by then. So positions and
    lengths do not depend on nodes that appear later. Rows are kept in 20 bytes: arithmetic on a column of positions or
    weeks needs `astype(np.int64)`.
    """

    user_idx: NodeIndices  # [U] warehouse index of each user position, ascending
    user: NodePositions  # [N] int32 user position of each row; rows are sorted by (week_no, user, event)
    event: NodePositions  # [N] int32 event position of each row
    week_no: IntArray  # [N] int32 week number, <= week
    count: FloatArray  # [N] float32 interactions of that user with that event in that week, >= 1
    since: FloatArray  # [N] float32 weeks from the last of them to the close of that week, in (0, 1]

    @classmethod
    def from_frame(cls, rows: pd.DataFrame, week: str) -> "InteractionHistory":
        """Builds the history as of the week key `week` from the columns that `HISTORY_SQL` gives.

        Without the column since, every interaction counts as of the start of its week. Raises ValueError if a row is
        newer than `week`, so that no caller leaks the future.
        """
        closed = week_number(week)
        if len(rows) and int(rows.week_no.max()) > closed:
            raise ValueError(f"rows newer than week {week} are in its history")
        if not _in_order(*(rows[name].to_numpy(np.int32) for name in ORDER)):
            rows = rows.sort_values(ORDER, kind="stable")
        user_idx, user = dense(rows.user_idx.to_numpy(np.int32), np.int32)
        event_idx, event = dense(rows.event_idx.to_numpy(np.int32), np.int32)
        weeks = rows.week_no.to_numpy(np.int32)
        # Text order among the events known now; a rank among all events ever would leak how many are still to come.
        order = np.empty(len(event_idx), np.int64)
        order[event] = rows.event_order.to_numpy(np.int64)
        since = rows.since if "since" in rows else pd.Series(1.0, rows.index)
        return cls(
            week=closed,
            event_idx=NodeIndices(event_idx),
            event_order=np.argsort(np.argsort(order, kind="stable"), kind="stable"),
            first_week_of_event=_first_week(event, weeks, len(event_idx)),
            user_idx=NodeIndices(user_idx),
            user=NodePositions(user),
            event=NodePositions(event),
            week_no=weeks,
            count=rows["count"].to_numpy(np.float32),
            since=since.to_numpy(np.float32),
        )

    @property
    def catalogue(self) -> Catalogue:
        """What is known of events, without the rows."""
        return Catalogue(self.week, self.event_idx, self.event_order, self.first_week_of_event)

    @property
    def num_users(self) -> int:
        """Users U that are known."""
        return len(self.user_idx)

    @cached_property
    def by_user(self) -> IntArray:
        """[N] rows by user, then week, then event."""
        return np.argsort(self.user, kind="stable").astype(np.int32)

    @cached_property
    def user_start(self) -> IntArray:
        """[U + 1] number of rows of the users before each user position."""
        return np.append(0, np.cumsum(np.bincount(self.user, minlength=self.num_users)))

    def of_users(self, users: IntArray) -> "UserPast":
        """The rows of the user positions `users`; -1 has none."""
        row, entry = entries_of(self.user_start, users)
        kept = self.by_user[entry]
        week_no = self.week_no[kept].astype(np.int64)
        age = self.since[kept].astype(np.float64) + (self.week - week_no)
        event, count = self.event[kept].astype(np.int64), self.count[kept].astype(np.float64)
        return UserPast(self.week, users, row, event, week_no, count, age)

    @cached_property
    def age(self) -> FloatArray:
        """[N] weeks from the row's last interaction to the close of the history's week, > 0."""
        return self.since.astype(np.float64) + (self.week - self.week_no)

    @cached_property
    def first_week_of_user(self) -> IntArray:
        """[U] number of the week of each user's first interaction."""
        return _first_week(self.user, self.week_no, self.num_users)

    def as_of(self, week: int) -> "InteractionHistory":
        """The history as known at the close of week number `week`, with positions of its own; itself if not later."""
        if week >= self.week:
            return self
        return self._week_before if week == self.week - 1 else self._truncate(week)

    @cached_property
    def _week_before(self) -> "InteractionHistory":
        """`as_of` the week before, kept: validation of the ranker and evaluation of last week's lists both read it."""
        return self._truncate(self.week - 1)

    def derived(self, name: str, make: Callable[[], Derived]) -> Derived:
        """`make()`, computed once and kept with the history; it may depend only on that and on what `name` says."""
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]

    @cached_property
    def _derived(self) -> dict[str, Any]:
        return {}

    def _truncate(self, week: int) -> "InteractionHistory":
        cut = int(np.searchsorted(self.week_no, week, side="right"))
        users, user = dense(self.user[:cut], np.int32)
        events, event = dense(self.event[:cut], np.int32)
        return InteractionHistory(
            week=week,
            event_idx=NodeIndices(self.event_idx[events]),
            event_order=np.argsort(np.argsort(self.event_order[events], kind="stable"), kind="stable"),
            first_week_of_event=self.first_week_of_event[events],
            user_idx=NodeIndices(self.user_idx[users]),
            user=NodePositions(user),
            event=NodePositions(event),
            week_no=self.week_no[:cut],
            count=self.count[:cut],
            since=self.since[:cut],
        )

    def in_week(self, week: int) -> tuple[IntArray, IntArray]:
        """Returns the (user positions, event positions) of the distinct pairs that interacted in week number `week`."""
        low, high = np.searchsorted(self.week_no, [week, week + 1])
        return self.user[low:high].astype(np.int64), self.event[low:high].astype(np.int64)


def read_history(con: "duckdb.DuckDBPyConnection", week: str) -> InteractionHistory:
    """Everything known at the close of the week key `week`, from the warehouse `con`."""
    return InteractionHistory.from_frame(con.execute(HISTORY_SQL, {"week": week}).df(), week)


@dataclass(frozen=True)
class UserPast:
    """The interactions of some users up to the close of week `week`: what is computed for one user reads no other's."""

    week: int
    users: IntArray  # [n] user positions
    row: IntArray  # [m] index in `users` of each interaction; they are sorted by row, then week, then event
    event: IntArray  # [m] event positions
    week_no: IntArray  # [m] week numbers
    count: FloatArray  # [m] how often in that week
    age: FloatArray  # [m] weeks from the last time to the close of `week`, > 0

    def sums(self, values: FloatArray) -> FloatArray:
        """[n] the sum of `values` [m] over the interactions of each user."""
        return np.bincount(self.row, values, len(self.users)).astype(float)  # of nothing it is of integers


def entries_of(start: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """(index in `rows`, entry) of all entries of `rows`, where those of row r are `start[r]` to `start[r + 1]` - 1.

    Row -1 has none.

    >>> [part.tolist() for part in entries_of(np.array([0, 2, 2, 5]), np.array([2, -1, 0]))]
    [[0, 0, 0, 2, 2], [2, 3, 4, 0, 1]]
    """
    size = np.append(np.diff(start), 0)[rows]
    index = np.repeat(np.arange(len(rows)), size)
    return index, np.arange(size.sum()) + (start[rows] - np.cumsum(size) + size)[index]


def _in_order(*columns: IntArray) -> bool:
    """Whether rows are sorted by the first column, then the second, and so on, without duplicates."""
    after, equal = np.zeros(max(len(columns[0]) - 1, 0), bool), True
    for column in columns:
        step = np.diff(column)
        after, equal = after | (equal & (step > 0)), equal & (step == 0)
    return bool((after | equal).all())


def _first_week(node: IntArray, week_no: IntArray, size: int) -> IntArray:
    """[size] the week of each node's first row."""
    first = np.empty(size, np.int64)
    first[node[::-1]] = week_no[::-1]  # rows are sorted by week: the oldest one is written last
    return first


def dense(index: IntArray, dtype: type[np.integer[Any]] = np.int64) -> tuple[IntArray, IntArray]:
    """`np.unique(index, return_inverse=True)` without sorting, for indices that leave out few below the largest; the
    inverse is of `dtype`."""
    there = np.zeros(int(index.max(initial=-1)) + 1, bool)
    there[index] = True
    return np.flatnonzero(there), (np.cumsum(there, dtype=dtype) - dtype(1))[index]
