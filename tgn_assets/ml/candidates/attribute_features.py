"""Features of (user, event) pairs at the close of a week that come from the attribute tables.

`REGISTRY` holds every feature, name and computation together, by the node and the kind of the column. To add one, add
an entry there. All of them are known of an event that appeared yesterday. Values are standardized, and shares are
taken, over the nodes and interactions that the history knows; NaN is what is not known.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeColumn, AttributeTables, Kind, Node
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast
from tgn_assets.ml.linalg.lookup import look_up

NORMAL_IQR = 1.349
"""Distance between the quartiles of a normal distribution, in standard deviations."""

PairFeature = Callable[[UserPast, IntArray, IntArray], FloatArray]
"""[p] values of the pairs of a row [p] in the users of a `UserPast` and an event position [p]."""


@dataclass(frozen=True)
class AttributeValues:
    """One column of a table as of the close of `week`: `values` [n], of all events or of all users."""

    week: int
    config: CandidateConfig
    values: FloatArray

    @cached_property
    def standardized(self) -> FloatArray:
        """[n] robust z-scores, as their inverse hyperbolic sine: prices have a long tail."""
        known = self.values[~np.isnan(self.values)]
        if not len(known):
            return self.values
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
        scale = (high - low) / NORMAL_IQR or known.std() or 1.0
        return np.arcsinh((self.values - middle) / scale)

    @cached_property
    def age(self) -> FloatArray:
        """[n] weeks from the time to the close of the week, as their inverse hyperbolic sine."""
        return np.arcsinh(self.week + 1 - self.values)

    def weight(self, age: FloatArray) -> FloatArray:
        """Decayed weights of rows of that age in weeks."""
        return 0.5 ** (age / self.config.profile_half_life)

    @cached_property
    def code(self) -> IntArray:
        """[n] categories numbered from 0; -1 for NaN."""
        known = ~np.isnan(self.values)
        codes = np.full(len(self.values), -1)
        codes[known] = np.unique(self.values[known], return_inverse=True)[1]
        return codes

    @property
    def categories(self) -> int:
        """How many of them there are."""
        return int(self.code.max(initial=-1)) + 1

    def shares(self, node: IntArray, weight: FloatArray) -> FloatArray:
        """[categories] share of each in the `weight` [N] of the history's rows, whose nodes are `node` [N]."""
        code = self.code[node]
        amount = np.bincount(code[code >= 0], weight[code >= 0], self.categories)
        return (amount + 1) / (amount.sum() + max(len(amount), 1))  # as if there was one more of each

    def user_mean(self, past: UserPast, values: FloatArray) -> FloatArray:
        """[n] weighted mean of `values` [m] over the rows of each user."""
        known = ~np.isnan(values)
        weight = np.where(known, self.weight(past.age), 0)
        total, summed = past.sums(weight), past.sums(weight * np.where(known, values, 0))
        return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)


def _event_value_affinity(column: AttributeValues, _: InteractionHistory) -> PairFeature:
    """The event's number less the mean of the user's events."""
    value = column.standardized
    return lambda past, row, event: value[event] - column.user_mean(past, value[past.event])[row]


def _event_time_affinity(column: AttributeValues, _: InteractionHistory) -> PairFeature:
    """The event's age less the mean age of the user's events, when the user interacted with them."""

    def affinity(past: UserPast, row: IntArray, event: IntArray) -> FloatArray:
        age_then = np.arcsinh(past.week + 1 - past.age - column.values[past.event])
        return column.age[event] - column.user_mean(past, age_then)[row]

    return affinity


def _event_category_share(column: AttributeValues, h: InteractionHistory) -> PairFeature:
    """Share of the event's category in the user's interactions, smoothed by its share in everyone's."""
    code, prior = column.code, column.config.category_prior
    everyone = column.shares(h.event, column.weight(h.age))

    def share(past: UserPast, row: IntArray, event: IntArray) -> FloatArray:
        own = _CategorySums(past.row, code[past.event], column.weight(past.age), (len(past.users), column.categories))
        return (own.at(row, code[event]) + prior * _at(everyone, code[event])) / (own.total[row] + prior)

    return share


def _event_category_popularity(column: AttributeValues, h: InteractionHistory) -> PairFeature:
    """Logarithm of the category's share in everyone's latest interactions."""
    code = column.code
    popularity = np.log(column.shares(h.event, h.count * 0.5 ** (h.age / column.config.category_half_life)))
    return lambda _, _row, event: _at(popularity, code[event])


def _user_category_lift(column: AttributeValues, h: InteractionHistory) -> PairFeature:
    """Logarithm of the share of the user's category among the event's interactions, over its share in everyone's."""
    code, prior = column.code, column.config.category_prior
    weight, shape = column.weight(h.age), (h.num_events, column.categories)
    expected, theirs = column.shares(h.user, weight), _CategorySums(h.event, code[h.user], weight, shape)

    def lift(past: UserPast, row: IntArray, event: IntArray) -> FloatArray:
        of_user = code[past.users[row]]
        share = _at(expected, of_user)
        return np.log((theirs.at(event, of_user) + prior * share) / ((theirs.total[event] + prior) * share))

    return lift


REGISTRY: Mapping[tuple[Node, Kind], Mapping[str, Callable[[AttributeValues, InteractionHistory], PairFeature]]] = {
    ("event", "number"): {
        "value": lambda c, _: lambda _, _row, event: c.standardized[event],
        "affinity": _event_value_affinity,
    },
    ("event", "time"): {"age": lambda c, _: lambda _, _row, event: c.age[event], "age_affinity": _event_time_affinity},
    ("event", "category"): {"share": _event_category_share, "popularity": _event_category_popularity},
    ("user", "number"): {"value": lambda c, _: lambda past, row, _: c.standardized[past.users[row]]},
    ("user", "time"): {"age": lambda c, _: lambda past, row, _: c.age[past.users[row]]},
    ("user", "category"): {"lift": _user_category_lift},
}
"""The features of a column by name, in the order of the columns; what they return holds no row of the history."""


def feature_names(columns: Sequence[AttributeColumn]) -> list[str]:
    """Names of the columns of `AttributeFeatures.features`, in order."""
    return [f"{node}.{name}:{feature}" for node, name, kind in columns for feature in REGISTRY[node, kind]]


class AttributeFeatures:
    """The features of any pairs as of the close of `history.week`; built once per cut-off."""

    def __init__(
        self,
        history: InteractionHistory,
        tables: AttributeTables = NO_ATTRIBUTES,
        config: CandidateConfig | None = None,
    ) -> None:
        config = config or CandidateConfig()
        events = tables.event.at(history.event_idx, history.week)
        users = tables.user.at(history.user_idx, history.week)
        self._features: list[PairFeature] = []
        for (node, _, kind), values in zip(tables.columns, [*events.T, *users.T], strict=True):
            column = AttributeValues(history.week, config, values)
            self._features += [make(column, history) for make in REGISTRY[node, kind].values()]

    def features(self, past: UserPast, row: IntArray, event: IntArray) -> FloatArray:
        """[p, len(feature_names(columns))] float32 for pairs (row in the users of `past` [p], event position [p])."""
        columns = [feature(past, row, event) for feature in self._features]
        return np.array(columns, np.float32).T if columns else np.zeros((len(row), 0), np.float32)


class _CategorySums:
    """The `weight` [m] of rows summed by their `node` [m] and category `code` [m], where it is >= 0; `shape` says how
    many nodes and categories there are. `total` [nodes] are those of each node."""

    def __init__(self, node: IntArray, code: IntArray, weight: FloatArray, shape: tuple[int, int]) -> None:
        known, self.width = code >= 0, shape[1]
        node, weight = node[known], weight[known]
        self.total = np.bincount(node, weight, shape[0])
        self.key, at = np.unique(node * self.width + code[known], return_inverse=True)
        self.sum = np.bincount(at, weight, len(self.key) + 1)  # with a last entry for what is not there

    def at(self, node: IntArray, code: IntArray) -> FloatArray:
        """[p] the sums of nodes [p] and categories [p]; zero where there is none."""
        at, there = look_up(self.key, node * self.width + code)
        return np.where(there, self.sum[at], 0.0)


def _at(values: FloatArray, code: IntArray) -> FloatArray:
    """`values[code]`, NaN for code -1."""
    return np.append(values, np.nan)[code]
