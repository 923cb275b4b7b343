"""Tables over the users, events and (user, event) pairs of a history, which candidates and features come from.

In some logs popularity changes within days, so the age of an interaction in a popularity is exact, not whole weeks.
"""

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.linalg.sparse import blocks, item_similarity, ordered, sums, top_n_per_row
from tgn_assets.ml.parallel import map_threaded

NEGLIGIBLE = 64
"""Half-lives after which an interaction counts less than a rounding error."""
PAIRS_PER_SORT = 20_000
"""Pairs sorted at a time: small sorts stay in the processor's cache."""


class PairTables:
    """Tables as of the close of `history.week`: built once per cut-off, read for any block of users.

    Pairs [P] are the distinct (user, event) pairs of the history, in the order of user, then event.
    """

    def __init__(self, history: InteractionHistory, config: CandidateConfig) -> None:
        self.history, self.config = history, config
        self._build_pairs()
        self._build_popularity()
        self._build_activity()
        self._build_profiles()

    def _build_pairs(self) -> None:
        h, config = self.history, self.config
        key = h.user * h.num_events + h.event
        order = np.argsort(key, kind="stable")  # rows are sorted by week, and those of a pair stay so
        key, week, count = key[order], h.week_no[order], h.count[order]
        start = np.flatnonzero(np.diff(key, prepend=-1))
        self.pair_key = key[start]  # [P] ascending: user position * E + event position
        self.pair_user, self.pair_event = np.divmod(self.pair_key, max(h.num_events, 1))
        age = h.week - week
        ages = np.arange(age.max(initial=0) + 1)

        def decayed(value: FloatArray, half_life: float) -> FloatArray:
            return _run_sums(value * (0.5 ** (ages / half_life))[age], start)

        half_lives = dict.fromkeys([*config.repeat_half_lives, config.repeat_share_half_life])
        self.pair_count = {half_life: decayed(count, half_life) for half_life in half_lives}  # {half-life: [P]}
        logarithm = np.log1p(count)
        self.pair_weight = decayed(logarithm, config.profile_half_life)
        self.pair_recent = decayed(logarithm, config.recent_half_life)
        end = np.append(start[1:], len(key))[: len(start)]
        self.pair_weeks = end - start
        self.pair_first, self.pair_last = week[start], week[end - 1]
        self.user_start = np.searchsorted(self.pair_user, np.arange(h.num_users + 1))
        of_blocks = map_threaded(self._ranks, blocks(np.diff(self.user_start), PAIRS_PER_SORT))
        self.pair_rank = np.concatenate([np.zeros(0, np.int64), *of_blocks])

    def _ranks(self, users: tuple[int, int]) -> IntArray:
        """Rank from 0 of each pair of the user positions [low, high) among the user's pairs, by descending weight."""
        low, high = self.user_start[list(users)]
        user, order = self.pair_user[low:high], self.history.event_order[self.pair_event[low:high]]
        rank = np.empty(high - low, np.int64)
        rank[np.lexsort((order, -self.pair_weight[low:high], user))] = np.arange(low, high) - self.user_start[user]
        return rank

    def _build_popularity(self) -> None:
        h, config = self.history, self.config
        trends = (half_life for pair in config.trend_half_lives for half_life in pair)
        others = (config.popular_half_life, config.steady_half_life, config.affinity_half_life)
        half_lives = dict.fromkeys([*config.popularity_half_lives, *trends, *others])
        self.popularity = {half_life: _popularity(h, half_life) for half_life in half_lives}  # {half-life: [E]}
        self.by_popularity = np.lexsort((h.event_order, -self.popularity[config.popular_half_life]))
        self.by_steady_popularity = np.lexsort((h.event_order, -self.popularity[config.steady_half_life]))
        self.popularity_rank = np.empty(h.num_events)
        self.popularity_rank[self.by_popularity] = np.arange(h.num_events)
        self.log_popularity = np.log1p(self.popularity[config.affinity_half_life])
        self.log_age = np.log1p(h.week - h.first_week_of_event)

    def _build_activity(self) -> None:
        h, config = self.history, self.config
        self.event_silence = h.week - _last_week(h.event, h.week_no, h.num_events)
        self.user_silence = h.week - _last_week(h.user, h.week_no, h.num_users)
        self.user_total = np.bincount(self.pair_user, self.pair_count[config.repeat_share_half_life], h.num_users)
        # Rows are sorted by week, then user: each active week of a user begins with one of these.
        begins = (np.diff(h.week_no, prepend=-1) != 0) | (np.diff(h.user, prepend=-1) != 0)
        self.user_weeks = np.bincount(h.user[begins], minlength=h.num_users)
        self.user_count = np.bincount(h.user, h.count, h.num_users)
        # The means of a user's interactions: the event's popularity now, its age then; and interactions a week.
        weight = 0.5 ** (h.age / config.profile_half_life)
        total = np.maximum(np.bincount(h.user, weight, h.num_users), 1e-9)
        age_then = np.log1p(h.week_no - h.first_week_of_event[h.event])
        self.user_popularity = np.bincount(h.user, weight * self.log_popularity[h.event], h.num_users) / total
        self.user_novelty = np.bincount(h.user, weight * age_then, h.num_users) / total
        self.user_basket = np.bincount(h.user, minlength=h.num_users) / np.maximum(self.user_weeks, 1)

    def _build_profiles(self) -> None:
        h, config = self.history, self.config
        shape = (h.num_users, h.num_events)
        profile, recent = (
            top_n_per_row(
                sparse.csr_array((weight, self.pair_event, self.user_start), shape=shape), config.events_per_user
            )
            for weight in (self.pair_weight, self.pair_recent)
        )
        # A complex number carries both weights through one product.
        self.profile = sparse.csr_array(profile + 1j * recent)
        self.item_similarity = h.derived(
            f"item similarity of {config!r}",
            lambda: item_similarity(profile, neighbours=config.neighbours, shrinkage=config.shrinkage).astype(complex),
        )

    def repeat_rate(self, node: IntArray, size: int) -> FloatArray:
        """[size] share of the (pair, week) occurrences of each `node` [P] that repeat an earlier week, smoothed."""
        repeats, prior = self.pair_weeks - 1, self.config.repeat_rate_prior
        overall = repeats.sum() / max(self.pair_weeks.sum(), 1)
        return (np.bincount(node, repeats, size) + prior * overall) / (np.bincount(node, self.pair_weeks, size) + prior)

    def pairs_of(self, users: IntArray) -> tuple[IntArray, IntArray]:
        """(row in `users`, pair) of all pairs of user positions `users`, by row, then event."""
        return entries_of(self.user_start, users)

    def repeats(self, users: IntArray, limit: int) -> tuple[IntArray, IntArray]:
        """(row in `users`, event position) of each user's own events, the `limit` of the largest weight."""
        row, pair = self.pairs_of(users)
        kept = self.pair_rank[pair] < limit
        return row[kept], self.pair_event[pair[kept]]

    def co_occurrence(self, users: IntArray) -> sparse.csr_array:
        """[n, E] summed similarity of each event to the events of the user's profile.

        The real part weights them by `profile_half_life`, the imaginary part by `recent_half_life`.
        """
        return ordered(self.profile[users] @ self.item_similarity)


def entries_of(start: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """(place in `rows`, entry) of all entries of `rows`, where those of row r are `start[r]` to `start[r + 1]` - 1.

    >>> [part.tolist() for part in entries_of(np.array([0, 2, 2, 5]), np.array([2, 0]))]
    [[0, 0, 0, 1, 1], [2, 3, 4, 0, 1]]
    """
    size = np.diff(start)[rows]
    place = np.repeat(np.arange(len(rows)), size)
    return place, np.arange(size.sum()) + (start[rows] - np.cumsum(size) + size)[place]


def _run_sums(values: FloatArray, start: IntArray) -> FloatArray:
    """Sums of `values` over the runs that begin at `start`."""
    return np.add.reduceat(values, start) if len(start) else np.zeros(0)


def _popularity(h: InteractionHistory, half_life: float) -> FloatArray:
    """[E] interactions with each event, halved every half-life, without those that are negligibly old."""
    low = int(np.searchsorted(h.week_no, h.week - NEGLIGIBLE * half_life))
    age = h.week - h.week_no[low:] + h.since[low:]
    return sums(h.event[low:], h.count[low:] * 0.5 ** (age / half_life), h.num_events)


def _last_week(node: IntArray, week_no: IntArray, size: int) -> IntArray:
    """[size] the newest week number of each node."""
    last = np.zeros(size, np.int64)
    last[node] = week_no  # rows are sorted by week: the newest one is written last
    return last
