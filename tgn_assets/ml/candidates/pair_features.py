"""Features of (user, candidate event) pairs at the close of a week.

`pair_feature_registry` holds every feature, name and computation together, in the order of the columns. To add one, add
an entry there. Five families differ in what they are computed from, and so in how often:

- repeat: the user's own interactions with the event (how often, how lately, at what cadence). Zero for other pairs.
- co-occurrence: the event's similarity to the user's events.
- event, user: one value per event (popularity, trend) or per user, computed once per cut-off.
- affinity: the event against what the user usually interacts with, the popular or the obscure, the new or the old.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVarTuple, Unpack

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.candidates.event_tables import EventTables, event_tables
from tgn_assets.ml.candidates.user_tables import UserTables
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import Catalogue, InteractionHistory, UserPast
from tgn_assets.ml.linalg.lookup import key_type, look_up

MAX_CADENCE = 4.0
"""Intervals after which an event counts as no more overdue."""
Source = TypeVarTuple("Source")


@dataclass(frozen=True)
class RepeatPairs:
    """Pairs that have interacted: `pair` [h] of the pairs of the tables."""

    tables: UserTables
    pair: IntArray

    def count(self, half_life: float) -> FloatArray:
        """[h] decayed interactions."""
        return self.tables.pairs.count(half_life)[self.pair]

    @cached_property
    def weeks(self) -> IntArray:
        """[h] weeks in which the pair interacted."""
        return self.tables.pairs.weeks[self.pair]

    @cached_property
    def silence(self) -> FloatArray:
        """[h] weeks since the last one."""
        return (self.tables.past.week - self.tables.pairs.last[self.pair]).astype(float)

    def share(self) -> FloatArray:
        """[h] share of the user's interactions."""
        count = self.count(self.tables.events.config.repeat_share_half_life)
        return count / np.maximum(self.tables.repeat_total[self.tables.pairs.user[self.pair]], 1e-9)

    def cadence(self) -> FloatArray:
        """[h] weeks from the last interaction to the week to come, in mean intervals of the pair: due at 1."""
        span = (self.tables.pairs.last - self.tables.pairs.first)[self.pair]
        interval = span / np.maximum(self.weeks - 1, 1)
        return np.where(self.weeks > 1, np.minimum((self.silence + 1) / np.maximum(interval, 1), MAX_CADENCE), 0)


class CoOccurrence(NamedTuple):
    """Summed similarity of the event to the user's profile, [p] each."""

    long: FloatArray  # by `profile_half_life`
    recent: FloatArray  # by `recent_half_life`
    best: FloatArray  # the largest `long` among the candidates of the user


class PairFeatureRegistry(NamedTuple):
    """The features by name, in the order of the columns: first by family, then within it."""

    repeat: Mapping[str, Callable[[RepeatPairs], FloatArray]]
    co_occurrence: Mapping[str, Callable[[CoOccurrence], FloatArray]]
    event: Mapping[str, Callable[[EventTables], FloatArray]]  # [E]
    user: Mapping[str, Callable[[UserTables], FloatArray]]  # [n]
    affinity: Mapping[str, Callable[[UserTables, IntArray, IntArray], FloatArray]]  # of rows and event positions [p]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `PairFeatures.features`, in order."""
        return tuple(name for family in self for name in family)

    @property
    def user_columns(self) -> slice:
        """The columns of `user` among all of them."""
        before = sum(map(len, (self.repeat, self.co_occurrence, self.event)))
        return slice(before, before + len(self.user))


def pair_feature_registry(config: CandidateConfig) -> PairFeatureRegistry:
    """Every pair feature. A checkpoint's weights depend on the order: an added or moved feature makes older ones
    incompatible."""
    return PairFeatureRegistry(
        repeat={
            **{f"repeat_count_{h:g}w": partial(_log_count, half_life=h) for h in config.repeat_half_lives},
            "repeat_share": RepeatPairs.share,
            "repeat_weeks": lambda repeats: np.log1p(repeats.weeks),
            "repeat_recency": lambda repeats: 1 / (1 + repeats.silence),
            "repeat_silence": lambda repeats: np.log1p(repeats.silence),
            "repeat_cadence": RepeatPairs.cadence,
            "repeat_reciprocal_rank": lambda repeats: 1 / (1 + repeats.tables.pairs.rank[repeats.pair]),
        },
        co_occurrence={
            "co_occurrence": lambda similarity: np.log1p(similarity.long),
            "co_occurrence_recent": lambda similarity: np.log1p(similarity.recent),
            "co_occurrence_share": lambda similarity: similarity.long / np.maximum(similarity.best, 1e-9),
        },
        event={
            **{f"popularity_{h:g}w": partial(_log_popularity, half_life=h) for h in config.popularity_half_lives},
            **{
                f"popularity_trend_{short:g}w_{long:g}w": partial(_trend, short=short, long=long)
                for short, long in config.trend_half_lives
            },
            "popularity_rank": lambda tables: np.log1p(tables.popularity_rank),
            "event_age": lambda tables: tables.log_age,
            "event_silence": lambda tables: np.log1p(tables.silence),
            "event_repeat_rate": lambda tables: tables.repeat_rate,
        },
        user={
            "user_count": lambda tables: np.log1p(tables.count),
            "user_events": lambda tables: np.log1p(np.diff(tables.pairs.start)),
            "user_silence": lambda tables: np.log1p(tables.past.week - tables.last_week),
            "user_age": lambda tables: np.log1p(tables.past.week - tables.first_week),
            "user_weeks": lambda tables: np.log1p(tables.weeks),
            "user_repeat_rate": lambda tables: tables.repeat_rate,
        },
        affinity={
            "user_popularity": lambda tables, row, _: tables.popularity[row],
            "user_novelty": lambda tables, row, _: tables.novelty[row],
            "user_basket": lambda tables, row, _: tables.basket[row],
            "popularity_affinity": lambda tables, row, e: tables.events.log_popularity[e] - tables.popularity[row],
            "novelty_affinity": lambda tables, row, e: tables.events.log_age[e] - tables.novelty[row],
        },
    )


class PairFeatures:
    """The features of any pairs as of the close of `history.week`; built once per cut-off."""

    def __init__(self, history: InteractionHistory, config: CandidateConfig | None = None) -> None:
        config = config or CandidateConfig()
        self.events, self.registry = event_tables(history, config), pair_feature_registry(config)
        self.event_features = _columns(self.registry.event, self.events)

    @property
    def catalogue(self) -> Catalogue:
        """The events that were known."""
        return self.events.catalogue

    def tables(self, past: UserPast) -> UserTables:
        """The tables of the users of `past`, from their own rows."""
        return UserTables(past, self.events)

    def user_features(self, tables: UserTables) -> FloatArray:
        """[n, len(registry.user)] float32 for each user of `tables`."""
        return _columns(self.registry.user, tables)

    def families(self, tables: UserTables, row: IntArray, event: IntArray) -> list[FloatArray]:
        """[p, F] float32 for each family of `registry`, for pairs (row in the users of `tables`, event position), in
        order."""
        both, best = _values(tables.co_occurrence, row, event), np.zeros(tables.size)
        np.maximum.at(best, row, both.real)
        return [
            self._repeat_features(tables, row, event),
            _columns(self.registry.co_occurrence, CoOccurrence(both.real, both.imag, best[row])),
            np.take(self.event_features, event, axis=0),
            np.take(self.user_features(tables), row, axis=0),
            _columns(self.registry.affinity, tables, row, event),
        ]

    def _repeat_features(self, tables: UserTables, row: IntArray, event: IntArray) -> FloatArray:
        """[p, len(registry.repeat)]: computed for the pairs that have interacted, zero for the others."""
        # The users' own pairs are looked up among the asked ones, of which there are more.
        at, asked = look_up(row * self.catalogue.num_events + event, tables.pairs.key)
        features = np.zeros((len(row), len(self.registry.repeat)), np.float32)
        features[at[asked]] = _columns(self.registry.repeat, RepeatPairs(tables, np.flatnonzero(asked)))
        return features


def _columns(family: Mapping[str, Callable[[Unpack[Source]], FloatArray]], *source: *Source) -> FloatArray:
    """[n, len(family)] float32"""
    first, *others = (feature(*source) for feature in family.values())
    columns = np.empty((len(first), len(family)), np.float32)
    columns[:, 0] = first
    for number, values in enumerate(others, 1):
        columns[:, number] = values
    return columns


def _log_count(repeats: RepeatPairs, *, half_life: float) -> FloatArray:
    return np.log1p(repeats.count(half_life))


def _log_popularity(tables: EventTables, *, half_life: float) -> FloatArray:
    return np.log1p(tables.popularity[half_life])


def _trend(tables: EventTables, *, short: float, long: float) -> FloatArray:
    return np.log(tables.popularity[short] + 0.1) - np.log(tables.popularity[long] + 0.1)


def _values(matrix: sparse.csr_array, row: IntArray, column: IntArray) -> np.ndarray:
    """Entries of a sorted CSR matrix at (row, column); zero where it has none."""
    rows, columns = matrix.shape
    key: Any = key_type(rows * columns)
    stored: Any = np.repeat(np.arange(rows, dtype=key) * key(columns), np.diff(matrix.indptr)) + matrix.indices
    at, there = look_up(stored, (row * columns + column).astype(key))
    values = np.zeros(len(row), matrix.dtype)
    values[there] = matrix.data[at[there]]
    return values
