"""A closed week in numbers: its active users, what they did, and every model's lists for them, ours among them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.evaluation.baselines import all_baselines
from tgn_assets.ml.evaluation.metric_names import CANDIDATES, CEILING, WITHOUT_FALLBACK
from tgn_assets.ml.evaluation.metrics import per_user, perfect_lists
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_key, week_number


class RankerDiagnostics(NamedTuple):
    """What the ranker had before the baseline fallback, for any users."""

    channels: tuple[str, ...]
    found: Callable[[IntArray, IntArray, IntArray], BoolArray]
    """(user positions [n], row in them [m], event position [m]) of pairs -> [m, channels] bool: the channel retrieved
    the pair as a candidate."""
    lists: Callable[[IntArray], IntArray]
    """User positions [n] -> [n, k] the ranker's own lists: event positions, -1 for an empty place."""


@dataclass(frozen=True)
class ActiveUsers:
    """The n users who were active in a week, and the m distinct events that they interacted with."""

    ids: pd.Index  # [n] ascending
    position: IntArray  # [n] user position in the history, -1 for a user without a history
    row: IntArray  # [m] row of the pair's user in `ids`
    event: IntArray  # [m] event code: the position in the history, or a higher number for an event unknown before
    reachable: BoolArray  # [m] the event was known, and the rules allowed it for the user

    def __len__(self) -> int:
        return len(self.ids)


class RetrievedTruth(NamedTuple):
    """Which of the reachable pairs of users with a history [a] each candidate channel retrieved."""

    names: tuple[str, ...]
    row: IntArray  # [a] row of the pair's user among the active users
    channels: BoolArray  # [a, names]


@dataclass(frozen=True)
class ScoredWeek:
    """What every measure of `week` reads. `predictions` are all published rows, of active users and of others."""

    week: str
    history: InteractionHistory
    predictions: pd.DataFrame
    truth: pd.DataFrame  # distinct (user_id, event_id)
    active: ActiveUsers
    lists: dict[str, IntArray]  # model -> [n, k] event codes, -1 for an empty place
    retrieved: RetrievedTruth | None

    @cached_property
    def metrics(self) -> dict[str, pd.DataFrame]:
        """Model -> the `METRICS` of each active user [n, metrics]."""
        return {model: per_user(of_model, self.active.row, self.active.event) for model, of_model in self.lists.items()}

    @cached_property
    def served(self) -> BoolArray:
        """[n] the active user had a list of their own."""
        return self.active.ids.isin(self.predictions.user_id)

    @cached_property
    def segments(self) -> dict[str, BoolArray]:
        """Which active users [n] are in each segment: `all`; `seen` with a history; `repeat` with an
        event of their own past, `explore` with one that is not (a user may be in both); `new` without a history."""
        active, history = self.active, self.history
        seen = active.position >= 0
        is_active = np.zeros(history.num_users, bool)
        is_active[active.position[seen]] = True
        past = is_active[history.user]
        # A pair is one number: a new user's are negative, and a new event's must not pass for the next user's first.
        known = active.event < history.num_events
        pair = active.position[active.row] * history.num_events + active.event
        own = known & np.isin(pair, history.user[past].astype(np.int64) * history.num_events + history.event[past])
        return {
            "all": np.ones(len(active), bool),
            "seen": seen,
            "repeat": np.bincount(active.row[own], minlength=len(active)) > 0,
            "explore": np.bincount(active.row[~own], minlength=len(active)) > 0,
            "new": ~seen,
        }


def score_week(
    week: str,
    predictions: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    new_user_list: list[str],
    history: InteractionHistory,
    user_ids: np.ndarray,
    event_ids: np.ndarray,
    diagnostics: RankerDiagnostics | None = None,
    rules: Rules = OPEN,
) -> ScoredWeek:
    """The lists published for `week`, and those of every other model, beside what the week's users did.

    `predictions` (user_id, rank from 1, event_id, and optionally source and score) and `new_user_list` are what was
    published a week before; an active user without predictions is scored on the list for new users. `truth` (user_id,
    event_id) are the interactions of `week`. `history` is what was known before it, `user_ids` and `event_ids` the text
    ids of its positions: the baselines and the ceiling see nothing else. `rules` are those that the lists were
    published under, and hold for all models. `diagnostics` are what the ranker of the week before had.

    Raises ValueError if `history` is not that of the week before, or does not fit its ids, or if the predictions hold a
    rank or an event twice or a rank outside 1 to k.
    """
    if history.week != week_number(week) - 1:
        raise ValueError(
            f"week {week} is scored with the history up to {shift(week, -1)}, not {week_key(history.week)}"
        )
    if (len(user_ids), len(event_ids)) != (history.num_users, history.num_events):
        raise ValueError("user_ids and event_ids must name the positions of the history, one for one")
    truth = truth[["user_id", "event_id"]].drop_duplicates()
    ids = pd.Index(np.unique(truth.user_id.to_numpy(object)), dtype=object)
    of_active = predictions[predictions.user_id.isin(ids)]
    codes = event_codes(event_ids, of_active.event_id, new_user_list, truth.event_id)
    position = look_up(pd.Index(user_ids, dtype=object), ids)
    row, event = look_up(ids, truth.user_id), look_up(codes, truth.event_id)
    reachable = event < history.num_events
    reachable[reachable] = rules.may(history, position[row[reachable]], event[reachable])
    active = ActiveUsers(ids, position, row, event, reachable)
    lists = {
        OURS: published_lists(of_active, new_user_list, active=ids, events=codes, k=rules.k),
        **all_baselines(history, position, rules.k, rules),
        CEILING: perfect_lists(row, event, reachable, rows=len(ids), k=rules.k),
    }
    retrieved = None
    if diagnostics is not None:
        # What the ranker made is there, unless other events were brought into its lists afterwards.
        as_made = made_by(OURS, of_active, ids) & (rules.min_distinct == 0)
        own, others = lists[OURS].copy(), (position >= 0) & ~as_made
        own[others] = diagnostics.lists(position[others])
        lists[WITHOUT_FALLBACK] = own
        retrieved, found = _retrieved(diagnostics, active, look_up(codes, new_user_list))
        lists[CANDIDATES] = perfect_lists(row, event, found, rows=len(ids), k=rules.k)
    return ScoredWeek(week, history, predictions, truth, active, lists, retrieved)


def event_codes(event_ids: np.ndarray, *others: Iterable[str]) -> pd.Index:
    """Event codes: the positions of the history, then every other id, which nobody could know."""
    known = pd.Index(event_ids, dtype=object)
    rest = pd.Index(np.unique(np.concatenate([np.asarray(ids, dtype=object) for ids in others])), dtype=object)
    return known.append(rest.difference(known))


def look_up(ids: pd.Index, wanted: Iterable[str]) -> IntArray:
    """The position in `ids` of each of `wanted`, -1 where it is missing; a categorical value is looked up once."""
    if isinstance(wanted, pd.Series) and isinstance(wanted.dtype, pd.CategoricalDtype):
        return look_up(ids, wanted.cat.categories)[wanted.cat.codes]
    return ids.get_indexer(pd.Index(wanted, dtype=object))


def published_lists(
    predictions: pd.DataFrame, new_user_list: list[str], *, active: pd.Index, events: pd.Index, k: int
) -> IntArray:
    """The lists [n, k] that the `active` users [n] were shown, as positions in `events`; -1 for an empty place.

    `predictions` are those of active users alone; one without predictions was shown `new_user_list`. Raises ValueError
    for a rank outside 1 to `k`, a rank that a user has twice or a list for new users of more than `k` events.
    """
    rank = predictions["rank"].to_numpy()
    if not np.isin(rank, np.arange(1, k + 1)).all() or predictions.duplicated(["user_id", "rank"]).any():
        raise ValueError(f"a user's predictions must have distinct ranks from 1 to {k}")
    if len(new_user_list) > k:
        raise ValueError(f"the list for new users has {len(new_user_list)} events, more than {k}")
    lists = np.full((len(active), k), -1)
    lists[:, : len(new_user_list)] = look_up(events, new_user_list)
    lists[active.isin(predictions.user_id)] = -1
    lists[look_up(active, predictions.user_id), rank.astype(int) - 1] = look_up(events, predictions.event_id)
    return lists


def _retrieved(
    diagnostics: RankerDiagnostics, active: ActiveUsers, cold_start: IntArray
) -> tuple[RetrievedTruth, BoolArray]:
    """What each channel retrieved of the truth, and which of all its pairs [m] were among the candidates."""
    seen = np.flatnonzero(active.position >= 0)
    asked = active.reachable & (active.position[active.row] >= 0)
    row = active.row[asked]
    channels = diagnostics.found(active.position[seen], np.searchsorted(seen, row), active.event[asked])
    # A user without a history has the list for new users to choose from, and nothing else.
    found = np.isin(active.event, cold_start) & active.reachable
    found[asked] = channels.any(1)
    return RetrievedTruth(diagnostics.channels, row, channels), found


def made_by(source: str, predictions: pd.DataFrame, active: pd.Index) -> BoolArray:
    """[n] the list of each of the `active` users came from `source`; nobody's where the predictions do not say."""
    if "source" not in predictions:
        return np.zeros(len(active), bool)
    return active.isin(predictions.user_id[predictions.source == source])
