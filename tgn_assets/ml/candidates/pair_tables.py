"""The (user, event) pairs of some users that have interacted: how often, how lately, with what weight."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import Catalogue, InteractionHistory, UserPast
from tgn_assets.ml.linalg.sparse import split_by_cost, top_n_per_row
from tgn_assets.ml.parallel import map_threaded

Made = TypeVar("Made")

ROWS_PER_BLOCK = 20_000
"""Rows of a history that one thread works through at a time: small sorts stay in the processor's cache."""


def map_user_blocks(make: Callable[[UserPast], Made], history: InteractionHistory) -> Iterator[Made]:
    """Yields `make` of the pasts of all users of `history`, some users at a time and in order, computed in threads."""
    ranges = split_by_cost(np.diff(history.user_start), ROWS_PER_BLOCK)
    return map_threaded(lambda block: make(history.of_users(np.arange(*block))), ranges)


class PairTables:
    """The distinct pairs [P] of `past`, by user, then event; a user is an index in `past.users`."""

    def __init__(self, past: UserPast, catalogue: Catalogue, config: CandidateConfig) -> None:
        self.past, self.catalogue, self.config, self._counts = past, catalogue, config, dict[float, FloatArray]()
        key = past.row * catalogue.num_events + past.event
        order = np.argsort(key, kind="stable")  # rows of a user are sorted by week, and those of a pair stay so
        key, week, self._row_count = key[order], past.week_no[order], past.count[order]
        self._row_age, self._begin = past.week - week, np.flatnonzero(np.diff(key, prepend=-1))
        end = np.append(self._begin[1:], len(key))[: len(self._begin)]
        self.key = key[self._begin]  # [P] ascending: user * E + event position
        self.user, self.event = np.divmod(self.key, max(catalogue.num_events, 1))
        self.weeks = end - self._begin  # [P] weeks in which the pair interacted
        self.first, self.last = week[self._begin], week[end - 1]  # [P] week numbers
        self.start = np.searchsorted(self.user, np.arange(len(past.users) + 1))

    def count(self, half_life: float) -> FloatArray:
        """[P] interactions, halved every `half_life` weeks."""
        if half_life not in self._counts:
            self._counts[half_life] = self._decayed(self._row_count, half_life)
        return self._counts[half_life]

    @cached_property
    def weight(self) -> FloatArray:
        """[P] the sum over the weeks of log(1 + interactions), decayed by `profile_half_life`."""
        return self._decayed(np.log1p(self._row_count), self.config.profile_half_life)

    @cached_property
    def rank(self) -> IntArray:
        """[P] rank from 0 of each pair among the user's, by descending weight."""
        rank, ties = np.empty(len(self.key), np.int64), self.catalogue.event_order[self.event]
        rank[np.lexsort((ties, -self.weight, self.user))] = np.arange(len(self.key)) - self.start[self.user]
        return rank

    @cached_property
    def profile(self) -> sparse.csr_array:
        """[n, E] the weights of each user's `events_per_user` heaviest events."""
        return self._top_n(self.weight)

    @cached_property
    def both_profiles(self) -> sparse.csr_array:
        """[n, E] `profile`, with the profile by `recent_half_life` as imaginary part: one sparse product serves
        both."""
        recent = self._decayed(np.log1p(self._row_count), self.config.recent_half_life)
        return sparse.csr_array(self.profile + 1j * self._top_n(recent))

    def _top_n(self, weight: FloatArray) -> sparse.csr_array:
        shape = (len(self.past.users), self.catalogue.num_events)
        return top_n_per_row(
            sparse.csr_array((weight, self.event, self.start), shape=shape), self.config.events_per_user
        )

    def _decayed(self, values: FloatArray, half_life: float) -> FloatArray:
        if not len(self._begin):
            return np.zeros(0)
        ages = np.arange(self._row_age.max() + 1)
        return np.add.reduceat(values * (0.5 ** (ages / half_life))[self._row_age], self._begin)
