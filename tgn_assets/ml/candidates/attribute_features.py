"""What side tables say of (user, event) pairs at the close of a week: columns beside the pair evidence.

Of an event: its numbers, each also against what the user usually takes to, and how large a part its category has in the
user's history and in everyone's. Of a user: the numbers, and how far the event is the choice of users of the same
category. All of them are known of an event that appeared yesterday. What is standardised or shared out is so among the
nodes, and by the interactions, that the history knows; NaN is what is not known.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from tgn_assets.ml.candidates.pair_features import PROFILE_HALF_LIFE
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeColumn, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory

POPULARITY_HALF_LIFE = 1.0
PRIOR = 2.0
"""Interactions, distributed as everyone's, that a share is drawn towards the average by."""
NORMAL_IQR = 1.349
"""Distance of the quartiles of a normal distribution, in standard deviations."""

FEATURES = {
    ("event", "number"): ("value", "off_taste"),
    ("event", "time"): ("age", "age_off_taste"),
    ("event", "category"): ("share", "popularity"),
    ("user", "number"): ("value",),
    ("user", "time"): ("age",),
    ("user", "category"): ("lift",),
}
PairFeature = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""[p] values of the pairs with the user positions [p] and the event positions [p]."""


def feature_names(columns: Sequence[AttributeColumn]) -> list[str]:
    """Names of the columns of `AttributeFeatures.features`, in order."""
    return [f"{node}.{name}:{what}" for node, name, kind in columns for what in FEATURES[node, kind]]


class AttributeFeatures:
    """The tables as of `history.week`, beside `PairFeatures`; built once per origin, read for any block of users."""

    def __init__(self, history: InteractionHistory, tables: AttributeTables = NO_ATTRIBUTES) -> None:
        self.history = history
        self._columns: list[PairFeature] = []
        events = tables.event.at(history.event_idx, history.week)
        users = tables.user.at(history.user_idx, history.week)
        makers: dict[tuple[str, str], Callable[[np.ndarray], list[PairFeature]]] = {
            ("event", "number"): self._event_number,
            ("event", "time"): self._event_time,
            ("event", "category"): self._event_category,
            ("user", "number"): self._user_number,
            ("user", "time"): self._user_time,
            ("user", "category"): self._user_category,
        }
        for (node, _, kind), values in zip(tables.columns, [*events.T, *users.T], strict=True):
            self._columns += makers[node, kind](values)

    def features(self, user: np.ndarray, event: np.ndarray) -> np.ndarray:
        """[p, len(feature_names(columns))] float32 for pairs of user position [p] and event position [p]."""
        columns = [column(user, event) for column in self._columns]
        return np.array(columns, np.float32).T if columns else np.zeros((len(user), 0), np.float32)

    @cached_property
    def weight(self) -> np.ndarray:
        """[N] what a row of the history counts by its age."""
        return 0.5 ** (self.history.age / PROFILE_HALF_LIFE)

    def _event_number(self, values: np.ndarray) -> list[PairFeature]:
        of_event = _standardised(values)
        taste = self._mean_of_user(of_event[self.history.event])
        return [lambda _, event: of_event[event], lambda user, event: of_event[event] - taste[user]]

    def _event_time(self, values: np.ndarray) -> list[PairFeature]:
        h = self.history
        of_event = np.arcsinh(h.week + 1 - values)
        # How old the event was when the user took to it: at the close all that was ever touched is old.
        taste = self._mean_of_user(np.arcsinh(h.week + 1 - h.age - values[h.event]))
        return [lambda _, event: of_event[event], lambda user, event: of_event[event] - taste[user]]

    def _event_category(self, values: np.ndarray) -> list[PairFeature]:
        h, code = self.history, _codes(values)
        touched = code[h.event] >= 0
        user, category, weight = h.user[touched], code[h.event[touched]], self.weight[touched]
        size = int(code.max(initial=-1)) + 1
        everyone = _shares(np.bincount(category, weight, size))
        lately = h.count[touched] * 0.5 ** (h.age[touched] / POPULARITY_HALF_LIFE)
        popularity = np.log(_shares(np.bincount(category, lately, size)))
        own, total = _Sums(user, category, size, weight), np.bincount(user, weight, h.num_users)

        def share(user: np.ndarray, event: np.ndarray) -> np.ndarray:
            of = code[event]
            drawn = (own.at(user, of) + PRIOR * _at(everyone, of)) / (total[user] + PRIOR)
            return np.where(of >= 0, drawn, np.nan)

        return [share, lambda _, event: _at(popularity, code[event])]

    def _user_number(self, values: np.ndarray) -> list[PairFeature]:
        of_user = _standardised(values)
        return [lambda user, _: of_user[user]]

    def _user_time(self, values: np.ndarray) -> list[PairFeature]:
        of_user = np.arcsinh(self.history.week + 1 - values)
        return [lambda user, _: of_user[user]]

    def _user_category(self, values: np.ndarray) -> list[PairFeature]:
        h, code = self.history, _codes(values)
        known = code[h.user] >= 0
        category, event, weight = code[h.user[known]], h.event[known], self.weight[known]
        size = int(code.max(initial=-1)) + 1
        expected = _shares(np.bincount(category, weight, size))
        theirs, total = _Sums(event, category, size, weight), np.bincount(event, weight, h.num_events)

        def lift(user: np.ndarray, event: np.ndarray) -> np.ndarray:
            of = code[user]
            share = _at(expected, of)
            return np.log((theirs.at(event, of) + PRIOR * share) / ((total[event] + PRIOR) * share))

        return [lift]

    def _mean_of_user(self, values: np.ndarray) -> np.ndarray:
        """[U] mean of the `values` [N] of a user's interactions, the latest weighing most."""
        h, known = self.history, ~np.isnan(values)
        total = np.bincount(h.user[known], self.weight[known], h.num_users)
        summed = np.bincount(h.user[known], self.weight[known] * values[known], h.num_users)
        return np.divide(summed, total, out=np.full(h.num_users, np.nan), where=total > 0)


class _Sums:
    """Sums of `weight` by (row, column), for columns below `width`."""

    def __init__(self, row: np.ndarray, column: np.ndarray, width: int, weight: np.ndarray) -> None:
        self.width = width
        self.key, place = np.unique(row * width + column, return_inverse=True)
        self.sum = np.bincount(place, weight, len(self.key))

    def at(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """[p] the sums at (row, column); zero where there is none."""
        if not len(self.key):
            return np.zeros(len(row))
        wanted = row * self.width + column
        at = np.searchsorted(self.key, wanted).clip(max=len(self.key) - 1)
        return np.where(self.key[at] == wanted, self.sum[at], 0.0)


def _standardised(values: np.ndarray) -> np.ndarray:
    """`values` as distances from their median in robust standard deviations, large ones as their logarithm: a price
    has a long tail."""
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    spread = (high - low) / NORMAL_IQR or known.std() or 1.0
    return np.arcsinh((values - middle) / spread)


def _codes(values: np.ndarray) -> np.ndarray:
    """[n] whole numbers from 0 for the categories that are there; -1 for NaN."""
    known = ~np.isnan(values)
    codes = np.full(len(values), -1)
    codes[known] = np.unique(values[known], return_inverse=True)[1]
    return codes


def _shares(amount: np.ndarray) -> np.ndarray:
    """Each amount's share of all, as if there was one more of each."""
    return (amount + 1) / (amount.sum() + max(len(amount), 1))


def _at(values: np.ndarray, code: np.ndarray) -> np.ndarray:
    """`values[code]`, NaN for code -1."""
    return np.append(values, np.nan)[code]
