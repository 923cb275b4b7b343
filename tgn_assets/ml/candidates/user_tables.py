"""What the rows of some users say about them as of the close of a week: no other user's rows are read."""

from functools import cached_property

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.candidates.event_tables import EventTables
from tgn_assets.ml.candidates.pair_tables import PairTables
from tgn_assets.ml.data.interactions import UserPast
from tgn_assets.ml.linalg.sparse import sums, with_sorted_indices


class UserTables:
    """Tables over the users [n] of `past` and their pairs, beside the `events` of the same history."""

    def __init__(self, past: UserPast, events: EventTables) -> None:
        self.past, self.events, self.pairs = past, events, PairTables(past, events.catalogue, events.config)
        self.size = len(past.users)
        self.first_week, self.last_week = np.zeros((2, self.size), np.int64)
        # Rows of a user are sorted by week: the last one that is written is the newest, or in reverse the oldest.
        self.last_week[past.row] = past.week_no
        self.first_week[past.row[::-1]] = past.week_no[::-1]
        begins = (np.diff(past.week_no, prepend=-1) != 0) | (np.diff(past.row, prepend=-1) != 0)
        self.weeks = np.bincount(past.row[begins], minlength=self.size)
        self.rows = np.bincount(past.row, minlength=self.size)
        self.count = past.sums(past.count)

    @cached_property
    def repeat_total(self) -> FloatArray:
        """[n] the sum of the pairs' counts by `repeat_share_half_life`."""
        return sums(self.pairs.user, self.pairs.count(self.events.config.repeat_share_half_life), self.size)

    @cached_property
    def popularity(self) -> FloatArray:
        """[n] the mean of the events' log popularity now over a user's rows, newer ones weighing more."""
        return self._mean(self.events.log_popularity[self.past.event])

    @cached_property
    def novelty(self) -> FloatArray:
        """[n] the mean of the events' log age at the time, weighted as in `popularity`."""
        return self._mean(np.log1p(self.past.week_no - self.events.catalogue.first_week_of_event[self.past.event]))

    @cached_property
    def basket(self) -> FloatArray:
        """[n] rows a week in which the user was active."""
        return self.rows / np.maximum(self.weeks, 1)

    @cached_property
    def repeat_rate(self) -> FloatArray:
        """[n] share of the user's rows that repeat an earlier week, smoothed."""
        return self.events.smoothed_repeat_rate(self.rows - np.diff(self.pairs.start), self.rows)

    @cached_property
    def co_occurrence(self) -> sparse.csr_array:
        """[n, E] summed similarity of each event to the events of the user's profile.

        The real part weights them by `profile_half_life`, the imaginary part by `recent_half_life`.
        """
        return with_sorted_indices(self.pairs.both_profiles @ self.events.item_similarity)

    def repeats(self, limit: int) -> tuple[IntArray, IntArray]:
        """(row, event position) of each user's own events, the `limit` of the largest weight."""
        kept = self.pairs.rank < limit
        return self.pairs.user[kept], self.pairs.event[kept]

    def _mean(self, values: FloatArray) -> FloatArray:
        weight = 0.5 ** (self.past.age / self.events.config.profile_half_life)
        return self.past.sums(weight * values) / np.maximum(self.past.sums(weight), 1e-9)
