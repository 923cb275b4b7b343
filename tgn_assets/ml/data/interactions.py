"""What is known at the close of a week: every (user, event, week) that happened up to it, in dense node positions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from tgn_assets.ml.weeks import week_number

HISTORY_SQL = """
    WITH u AS (SELECT user_id, user_idx FROM users WHERE first_week <= $week),
         e AS (SELECT event_id, event_idx, row_number() OVER (ORDER BY event_id) - 1 AS event_order
               FROM events WHERE first_week <= $week)
    SELECT user_idx, event_idx, event_order, date_diff('day', DATE '1970-01-05', week) // 7 AS week_no,
           count(*) AS count, (epoch(week + 7) - epoch(max(ts))) / 604800 AS since
    FROM raw_interactions JOIN u USING (user_id) JOIN e USING (event_id)
    WHERE week <= $week
    GROUP BY user_idx, event_idx, event_order, week ORDER BY week_no, user_idx, event_idx
"""
"""Rows of `InteractionHistory.from_frame`, for `$week` (DATE) in a warehouse."""
ORDER = ["week_no", "user_idx", "event_idx"]
Derived = TypeVar("Derived")


@dataclass(frozen=True)
class InteractionHistory:
    """Interactions up to the close of week `week`, aggregated per (user, event, week).

    Nodes are addressed by *position*: the rank of their append-only index among the nodes that have a row by then,
    so that nothing in a position or a length depends on nodes that appear later.
    """

    week: int
    user_idx: np.ndarray  # [U] warehouse index of each user position, ascending
    event_idx: np.ndarray  # [E] the same for events
    event_order: np.ndarray  # [E] rank of the event's id in text order: the stable tie-break
    user: np.ndarray  # [N] user position of each row; rows are sorted by (week_no, user, event)
    event: np.ndarray  # [N] event position
    week_no: np.ndarray  # [N] week number, <= week
    count: np.ndarray  # [N] interactions of that user with that event in that week, >= 1
    since: np.ndarray  # [N] weeks from the last of them to the close of that week, in (0, 1]

    @classmethod
    def from_frame(cls, rows: pd.DataFrame, week: str) -> "InteractionHistory":
        """From the columns user_idx, event_idx, event_order, week_no, count (`HISTORY_SQL`), as of the week key `week`.

        Without the column since, everything is taken to have happened as its week began. Raises ValueError if a row is
        newer than `week`: a caller's leak is stopped here.
        """
        closed = week_number(week)
        if len(rows) and int(rows.week_no.max()) > closed:
            raise ValueError(f"rows newer than week {week} were handed to its history")
        if not _in_order(*(rows[name].to_numpy(np.int64) for name in ORDER)):
            rows = rows.sort_values(ORDER, kind="stable")
        user_idx, user = dense(rows.user_idx.to_numpy(np.int64))
        event_idx, event = dense(rows.event_idx.to_numpy(np.int64))
        # Text order among the events known now; a rank among all events ever would leak how many are still to come.
        order = np.empty(len(event_idx), np.int64)
        order[event] = rows.event_order.to_numpy(np.int64)
        return cls(
            week=closed,
            user_idx=user_idx,
            event_idx=event_idx,
            event_order=np.argsort(np.argsort(order, kind="stable"), kind="stable"),
            user=user,
            event=event,
            week_no=rows.week_no.to_numpy(np.int64),
            count=rows["count"].to_numpy(np.float64),
            since=rows.since.to_numpy(np.float64) if "since" in rows else np.ones(len(rows)),
        )

    @property
    def num_users(self) -> int:
        return len(self.user_idx)

    @property
    def num_events(self) -> int:
        return len(self.event_idx)

    @cached_property
    def age(self) -> np.ndarray:
        """[N] weeks from the row's last interaction to the close of the history's week, > 0."""
        return self.week - self.week_no + self.since

    @cached_property
    def first_week_of_user(self) -> np.ndarray:
        """[U] the week number each user was first seen in."""
        return _first_week(self.user, self.week_no, self.num_users)

    @cached_property
    def first_week_of_event(self) -> np.ndarray:
        """[E] the week number each event was first seen in."""
        return _first_week(self.event, self.week_no, self.num_events)

    def as_of(self, week: int) -> "InteractionHistory":
        """The same history as it was known at the close of week number `week`, positions renumbered accordingly."""
        if week >= self.week:
            return self
        return self._week_before if week == self.week - 1 else self._truncate(week)

    @cached_property
    def _week_before(self) -> "InteractionHistory":
        # The ranker is tried on what was known then, and last week's lists are evaluated beside it.
        return self._truncate(self.week - 1)

    def derived(self, name: str, make: Callable[[], Derived]) -> Derived:
        """What `make` gives, which must follow from the history alone: made once, and kept as long as the history."""
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]

    @cached_property
    def _derived(self) -> dict[str, Any]:
        return {}

    def _truncate(self, week: int) -> "InteractionHistory":
        cut = int(np.searchsorted(self.week_no, week, side="right"))
        users, user = dense(self.user[:cut])
        events, event = dense(self.event[:cut])
        return InteractionHistory(
            week=week,
            user_idx=self.user_idx[users],
            event_idx=self.event_idx[events],
            event_order=np.argsort(np.argsort(self.event_order[events], kind="stable"), kind="stable"),
            user=user,
            event=event,
            week_no=self.week_no[:cut],
            count=self.count[:cut],
            since=self.since[:cut],
        )

    def in_week(self, week: int) -> tuple[np.ndarray, np.ndarray]:
        """(user, event) positions of the distinct pairs of week number `week`."""
        low, high = np.searchsorted(self.week_no, [week, week + 1])
        return self.user[low:high], self.event[low:high]


def _in_order(*columns: np.ndarray) -> bool:
    """Whether rows ascend by the first column, where it is equal by the second, and so on."""
    after, equal = np.zeros(max(len(columns[0]) - 1, 0), bool), True
    for column in columns:
        step = np.diff(column)
        after, equal = after | (equal & (step > 0)), equal & (step == 0)
    return bool((after | equal).all())


def dense(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `np.unique(index, return_inverse=True)` gives, without sorting: a table holds indices that are dense."""
    there = np.zeros(int(index.max(initial=-1)) + 1, bool)
    there[index] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[index]


def _first_week(node: np.ndarray, week_no: np.ndarray, size: int) -> np.ndarray:
    first = np.empty(size, np.int64)
    first[node[::-1]] = week_no[::-1]  # rows are sorted by week: the oldest one is written last
    return first
