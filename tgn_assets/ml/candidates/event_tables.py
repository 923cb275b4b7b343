"""What the whole log says about events as of the close of a week: computed once, the same for every user.

In some logs popularity changes within days, so the age of an interaction in a popularity is exact, not whole weeks.
"""

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.candidates.pair_tables import PairTables, map_user_blocks
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast
from tgn_assets.ml.linalg.sparse import item_similarity, sums

NEGLIGIBLE = 64
"""Half-lives after which an interaction counts less than a rounding error."""


class EventTables:
    """Tables over the events of `history`, as of its close."""

    def __init__(self, history: InteractionHistory, config: CandidateConfig) -> None:
        self.catalogue, self.config = history.catalogue, config
        trends = (half_life for pair in config.trend_half_lives for half_life in pair)
        others = (config.popular_half_life, config.steady_half_life, config.affinity_half_life)
        half_lives = dict.fromkeys([*config.popularity_half_lives, *trends, *others])
        self.popularity = {
            half_life: _counts_by_age(history, half_life) for half_life in half_lives
        }  # {half-life: [E]}
        ties = history.event_order
        self.by_popularity = np.lexsort((ties, -self.popularity[config.popular_half_life]))
        self.by_steady_popularity = np.lexsort((ties, -self.popularity[config.steady_half_life]))
        self.popularity_rank = np.empty(history.num_events)
        self.popularity_rank[self.by_popularity] = np.arange(history.num_events)
        self.log_popularity = np.log1p(self.popularity[config.affinity_half_life])
        self.log_age = np.log1p(history.week - history.first_week_of_event)
        self.silence = history.week - _last_week(history)
        self._sum_over_users(history)

    def _sum_over_users(self, h: InteractionHistory) -> None:
        """Repeat rates and `item_similarity` [E, E], from the pairs of everyone, made in blocks of users."""
        config = self.config

        def made(past: UserPast) -> tuple[IntArray, sparse.csr_array]:
            pairs = PairTables(past, self.catalogue, config)
            return np.bincount(pairs.event, minlength=h.num_events), pairs.profile

        pairs, profiles = np.zeros(h.num_events, np.int64), [sparse.csr_array((0, h.num_events))]
        for of_block, profile in map_user_blocks(made, h):
            pairs += of_block
            profiles.append(profile)
        rows = np.bincount(h.event, minlength=h.num_events)
        self.overall_repeat_rate = float((len(h.event) - pairs.sum()) / max(len(h.event), 1))
        self.repeat_rate = self.smoothed_repeat_rate(rows - pairs, rows)  # [E]
        similarity = item_similarity(
            sparse.csr_array(sparse.vstack(profiles, format="csr")),
            neighbours=config.neighbours,
            shrinkage=config.shrinkage,
        )
        self.item_similarity = similarity.astype(complex)  # as `PairTables.both_profiles` are

    def smoothed_repeat_rate(self, repeats: IntArray, occurrences: IntArray) -> FloatArray:
        """[n] share of (pair, week) `occurrences` [n] that repeat an earlier week, smoothed by everyone's share."""
        prior = self.config.repeat_rate_prior
        return (repeats + prior * self.overall_repeat_rate) / (occurrences + prior)


def event_tables(history: InteractionHistory, config: CandidateConfig) -> EventTables:
    """The tables of `history`, made once and kept with it."""
    return history.derived(f"event tables of {config!r}", lambda: EventTables(history, config))


def _counts_by_age(h: InteractionHistory, half_life: float) -> FloatArray:
    """[E] interactions with each event, halved every half-life, without those that are negligibly old."""
    low = int(np.searchsorted(h.week_no, h.week - NEGLIGIBLE * half_life))
    age = h.since[low:].astype(np.float64) + (h.week - h.week_no[low:])
    return sums(h.event[low:], h.count[low:] * 0.5 ** (age / half_life), h.num_events)


def _last_week(h: InteractionHistory) -> IntArray:
    """[E] number of the week of each event's newest interaction."""
    last = np.zeros(h.num_events, np.int64)
    last[h.event] = h.week_no  # rows are sorted by week: the newest one is written last
    return last
