"""Pair evidence: what a history says about each (user, candidate event) pair at the close of its week.

Part of it is the user's own past with the event (how often, how lately, at what cadence), the rest is what stands near:
co-occurrence with the user's recent events, popularity now and its trend, the habits of the user and of the event, and
how the event compares with what the user usually takes to: the well-known or the obscure, the new or the old. What is
popular changes within days in some logs, so ages of popularity are counted to the moment, not to the week.
"""

import numpy as np
from scipy import sparse

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.linalg.sparse import blocks, item_similarity, ordered, top_n_per_row
from tgn_assets.ml.parallel import map_threaded

OWN_HALF_LIVES = (1.0, 4.0, 16.0, 64.0)
POPULARITY_HALF_LIVES = (0.07, 0.15, 0.3, 1.0, 4.0, 16.0)
TREND_HALF_LIVES = ((0.15, 1.0), (0.3, 4.0))
PROFILE_HALF_LIFE, RECENT_HALF_LIFE = 8.0, 1.0
NOTHING = 64
"""Half-lives after which an interaction counts less than rounding does."""
PAIRS_PER_SORT = 20_000
"""Pairs put in order at a time: sorted all at once they would move through memory, not through what is near."""
EVENTS_PER_USER = 200  # a heavier user's oldest interests would make the square of co-occurrence explode

OWN_FEATURES = (
    *(f"own_count_{h:g}w" for h in OWN_HALF_LIVES),
    "own_share",
    "own_weeks",
    "own_recency",
    "own_silence",
    "repeat_cadence",
    "own_reciprocal_rank",
)
NEAR_FEATURES = ("cooccurrence", "cooccurrence_recent", "cooccurrence_share")
EVENT_FEATURES = (
    *(f"popularity_{h:g}w" for h in POPULARITY_HALF_LIVES),
    *(f"popularity_trend_{short:g}w_{long:g}w" for short, long in TREND_HALF_LIVES),
    "popularity_rank",
    "event_age",
    "event_silence",
    "event_repeat_rate",
)
USER_FEATURES = ("user_count", "user_events", "user_silence", "user_age", "user_weeks", "user_repeat_rate")
TASTE_FEATURES = ("user_popularity", "user_novelty", "user_basket", "popularity_off_taste", "novelty_off_taste")
FEATURES = (*OWN_FEATURES, *NEAR_FEATURES, *EVENT_FEATURES, *USER_FEATURES, *TASTE_FEATURES)
"""Names of the columns of `PairFeatures.features`, in order."""


class PairFeatures:
    """Tables over users, events and pairs as of `history.week`; built once per origin, read for any block of users."""

    def __init__(self, history: InteractionHistory) -> None:
        self.history = history
        self._pairs()
        self._nodes()
        profile, recent = (
            top_n_per_row(self._profile(weight), EVENTS_PER_USER) for weight in (self.pair_weight, self.pair_recent)
        )
        # A complex number carries both weights through one product.
        self.profile = sparse.csr_array(profile + 1j * recent)
        self.item_similarity = history.derived("cooccurrence", lambda: item_similarity(profile).astype(complex))

    def _pairs(self) -> None:
        h = self.history
        key = h.user * h.num_events + h.event
        order = np.argsort(key, kind="stable")  # rows are sorted by week, so that those of a pair stay so
        key, week, count = key[order], h.week_no[order], h.count[order]
        start = np.flatnonzero(np.diff(key, prepend=-1))
        self.pair_key = key[start]  # [P] ascending: user position * E + event position
        self.pair_user, self.pair_event = np.divmod(self.pair_key, max(h.num_events, 1))
        age = h.week - week
        ages = np.arange(age.max(initial=0) + 1)
        self.pair_decayed = {
            half_life: _sums(count * (0.5 ** (ages / half_life))[age], start) for half_life in OWN_HALF_LIVES
        }
        logarithm = np.log1p(count)
        self.pair_weight = _sums(logarithm * (0.5 ** (ages / PROFILE_HALF_LIFE))[age], start)
        self.pair_recent = _sums(logarithm * (0.5 ** (ages / RECENT_HALF_LIFE))[age], start)
        end = np.append(start[1:], len(key))[: len(start)]
        self.pair_weeks = end - start
        self.pair_first, self.pair_last = week[start], week[end - 1]
        self.user_start = np.searchsorted(self.pair_user, np.arange(h.num_users + 1))
        of_blocks = map_threaded(self._ranks, blocks(np.diff(self.user_start), PAIRS_PER_SORT))
        self.pair_rank = np.concatenate([np.zeros(0, np.int64), *of_blocks])

    def _ranks(self, users: tuple[int, int]) -> np.ndarray:
        """Place of each pair of the users from one position to another among the user's pairs, the weightiest first."""
        low, high = self.user_start[list(users)]
        user, order = self.pair_user[low:high], self.history.event_order[self.pair_event[low:high]]
        rank = np.empty(high - low, np.int64)
        rank[np.lexsort((order, -self.pair_weight[low:high], user))] = np.arange(low, high) - self.user_start[user]
        return rank

    def _nodes(self) -> None:
        h = self.history
        popularity = {half_life: _popularity(h, half_life) for half_life in POPULARITY_HALF_LIVES}
        self.by_popularity = np.lexsort((h.event_order, -popularity[0.3]))
        self.by_steady_popularity = np.lexsort((h.event_order, -popularity[4.0]))
        rank = np.empty(h.num_events)
        rank[self.by_popularity] = np.arange(h.num_events)
        self.log_popularity, self.log_age = np.log1p(popularity[16.0]), np.log1p(h.week - h.first_week_of_event)
        self.event_features = np.column_stack(
            [
                *(np.log1p(p) for p in popularity.values()),
                *(np.log(popularity[short] + 0.1) - np.log(popularity[long] + 0.1) for short, long in TREND_HALF_LIVES),
                np.log1p(rank),
                self.log_age,
                np.log1p(h.week - _last_week(h.event, h.week_no, h.num_events)),
                self._repeat_rate(self.pair_event, h.num_events),
            ]
        ).astype(np.float32)
        self.user_total = np.bincount(self.pair_user, self.pair_decayed[16.0], h.num_users)
        self.user_silence = h.week - _last_week(h.user, h.week_no, h.num_users)
        # Rows are sorted by week and user: one of them begins each week that a user was active in.
        begins = (np.diff(h.week_no, prepend=-1) != 0) | (np.diff(h.user, prepend=-1) != 0)
        active_weeks = np.bincount(h.user[begins], minlength=h.num_users)
        self.user_features = np.column_stack(
            [
                np.log1p(np.bincount(h.user, h.count, h.num_users)),
                np.log1p(np.diff(self.user_start)),
                np.log1p(self.user_silence),
                np.log1p(h.week - h.first_week_of_user),
                np.log1p(active_weeks),
                self._repeat_rate(self.pair_user, h.num_users),
            ]
        ).astype(np.float32)
        self._tastes(np.maximum(active_weeks, 1))

    def _tastes(self, active_weeks: np.ndarray) -> None:
        """[U] how popular (now), and how old (then), the events are that each user touched lately, on average, and how
        many a week."""
        h = self.history
        weight = 0.5 ** (h.age / PROFILE_HALF_LIFE)
        total = np.maximum(np.bincount(h.user, weight, h.num_users), 1e-9)
        age_then = np.log1p(h.week_no - h.first_week_of_event[h.event])
        self.user_popularity = np.bincount(h.user, weight * self.log_popularity[h.event], h.num_users) / total
        self.user_novelty = np.bincount(h.user, weight * age_then, h.num_users) / total
        self.user_basket = np.bincount(h.user, minlength=h.num_users) / active_weeks

    def _repeat_rate(self, node: np.ndarray, size: int) -> np.ndarray:
        """Share of a node's (pair, week) occurrences that repeat an earlier week, drawn towards the average by 5."""
        repeats = self.pair_weeks - 1
        overall = repeats.sum() / max(self.pair_weeks.sum(), 1)
        return (np.bincount(node, repeats, size) + 5 * overall) / (np.bincount(node, self.pair_weeks, size) + 5)

    def _profile(self, weight: np.ndarray) -> sparse.csr_array:
        shape = (self.history.num_users, self.history.num_events)
        return sparse.csr_array((weight, self.pair_event, self.user_start), shape=shape)

    def own(self, users: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """(row in `users`, event position) of each user's own events, the `limit` weightiest of each."""
        row, pair = self._pairs_of(users)
        kept = self.pair_rank[pair] < limit
        return row[kept], self.pair_event[pair[kept]]

    def _pairs_of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row in `users`, pair) of all that each user ever touched, by row, then event."""
        size = self.user_start[users + 1] - self.user_start[users]
        row = np.repeat(np.arange(len(users)), size)
        pair = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size) + np.repeat(self.user_start[users], size)
        return row, pair

    def cooccurring(self, users: np.ndarray) -> sparse.csr_array:
        """[n, E] summed similarity of each event to the user's events, which are weighted by a half-life of 8 weeks in
        the real part and of 1 in the imaginary one."""
        return ordered(self.profile[users] @ self.item_similarity)

    def features(self, users: np.ndarray, row: np.ndarray, event: np.ndarray, near: sparse.csr_array) -> np.ndarray:
        """[p, len(FEATURES)] float32 for the pairs (`users[row]`, `event`); `near` is `cooccurring(users)`."""
        user = users[row]
        return np.column_stack(
            [
                self._own_features(users, row, event),
                _near_features(row, event, near),
                self.event_features[event],
                self.user_features[user],
                self._taste_features(user, event),
            ]
        )

    def _taste_features(self, user: np.ndarray, event: np.ndarray) -> np.ndarray:
        popularity, novelty = self.user_popularity[user], self.user_novelty[user]
        columns = [popularity, novelty, self.user_basket[user]]
        columns += [self.log_popularity[event] - popularity, self.log_age[event] - novelty]
        return np.column_stack(columns).astype(np.float32)

    def _own_features(self, users: np.ndarray, row: np.ndarray, event: np.ndarray) -> np.ndarray:
        """[p, len(OWN_FEATURES)]: zero but for the pairs that the user had, the only ones that are computed."""
        own_row, own_pair = self._pairs_of(users)
        size = self.history.num_events
        key, own = row * size + event, own_row * size + self.pair_event[own_pair]
        place = np.searchsorted(own, key).clip(max=len(own) - 1)  # ascending: by row, then event
        had = np.flatnonzero(own[place] == key)
        at, user = own_pair[place[had]], users[row[had]]
        silence = (self.history.week - self.pair_last[at]).astype(float)
        weeks = self.pair_weeks[at]
        gap = (self.pair_last[at] - self.pair_first[at]) / np.maximum(weeks - 1, 1)
        # An event touched every g weeks is due when the week to come is g weeks after its last one.
        due = np.where(weeks > 1, np.minimum((silence + 1) / np.maximum(gap, 1), 4), 0)
        columns = [np.log1p(self.pair_decayed[half_life][at]) for half_life in OWN_HALF_LIVES]
        columns += [
            self.pair_decayed[16.0][at] / np.maximum(self.user_total[user], 1e-9),
            np.log1p(weeks),
            1 / (1 + silence),
            np.log1p(silence),
            due,
            1 / (1 + self.pair_rank[at]),
        ]
        features = np.zeros((len(row), len(OWN_FEATURES)), np.float32)
        features[had] = np.column_stack(columns)
        return features


def _near_features(row: np.ndarray, event: np.ndarray, near: sparse.csr_array) -> np.ndarray:
    both = _values(near, row, event)
    long, short, best = both.real, both.imag, np.zeros(near.shape[0])
    np.maximum.at(best, row, long)
    return np.column_stack([np.log1p(long), np.log1p(short), long / np.maximum(best[row], 1e-9)]).astype(np.float32)


def _values(matrix: sparse.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Entries of a sorted CSR matrix at (row, column); zero where it has none."""
    if not matrix.nnz:
        return np.zeros(len(row))
    width = matrix.shape[1]
    stored = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * width + matrix.indices
    wanted = row * width + column
    at = np.searchsorted(stored, wanted).clip(max=len(stored) - 1)
    return np.where(stored[at] == wanted, matrix.data[at], 0.0)


def _sums(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, start) if len(start) else np.zeros(0)


def _popularity(h: InteractionHistory, half_life: float) -> np.ndarray:
    """[E] interactions with each event, halved every half-life; none that is so old that it would count for nothing."""
    low = int(np.searchsorted(h.week_no, h.week - NOTHING * half_life))
    age = h.week - h.week_no[low:] + h.since[low:]
    return np.bincount(h.event[low:], h.count[low:] * 0.5 ** (age / half_life), h.num_events)


def _last_week(node: np.ndarray, week_no: np.ndarray, size: int) -> np.ndarray:
    last = np.zeros(size, np.int64)
    last[node] = week_no  # rows are sorted by week: the newest one is written last
    return last
