"""A closed week in numbers: its active users, what they did, and every model's lists for them, ours among them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.evaluation.baselines import all_baselines
from tgn_assets.ml.evaluation.evaluation_input import DrawnUsers, EvaluationInput, PublishedResult
from tgn_assets.ml.evaluation.metric_names import CANDIDATES, CEILING, WITHOUT_FALLBACK
from tgn_assets.ml.evaluation.metrics import from_hits, per_user, perfect_lists
from tgn_assets.ml.linalg.lookup import look_up
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_key, week_number


class RankerDiagnostics(NamedTuple):
    """What the ranker had before the baseline fallback, for any users."""

    channels: tuple[str, ...]
    found: Callable[[IntArray, IntArray, IntArray], BoolArray]
    """(user positions [n], row in them [m], event position [m]) of pairs -> [m, channels] bool: the channel retrieved
    the pair as a candidate."""
    lists: Callable[[IntArray], IntArray]
    """User positions [n] -> [n, k] the ranker's own lists: event positions, -1 for an empty rank."""


@dataclass(frozen=True)
class ActiveUsers:
    """The n drawn users who were active in a week, and the m distinct events that they interacted with."""

    position: IntArray  # [n] user position in the history, -1 for a user without a history
    row: IntArray  # [m] the pair's user, of the n
    event: IntArray  # [m] event code: the position in the history, or a higher number for an event unknown before
    reachable: BoolArray  # [m] the event was known, and the rules allowed it for the user

    def __len__(self) -> int:
        return len(self.position)


class RetrievedTruth(NamedTuple):
    """Which of the reachable pairs of users with a history [a] each candidate channel retrieved."""

    names: tuple[str, ...]
    row: IntArray  # [a] row of the pair's user among the active users
    channels: BoolArray  # [a, names]


@dataclass(frozen=True)
class ScoredWeek:
    """What every measure of `week` reads: what was published for everybody, and all models' lists for drawn users."""

    week: str
    history: InteractionHistory
    published: PublishedResult
    drawn: DrawnUsers
    active: ActiveUsers
    lists: dict[str, IntArray]  # model -> [n, k] event codes, -1 for an empty rank
    rules: Rules
    retrieved: RetrievedTruth | None

    @property
    def is_sample(self) -> bool:
        """Whether some active users were not drawn."""
        return len(self.active) < self.published.users

    @cached_property
    def metrics(self) -> dict[str, pd.DataFrame]:
        """Model -> the `RANKING_METRICS` of each drawn user [n, metrics]."""
        return {model: per_user(of_model, self.active.row, self.active.event) for model, of_model in self.lists.items()}

    @cached_property
    def metrics_of_kinds(self) -> pd.DataFrame:
        """The `RANKING_METRICS` of the published lists, a row for each of `published.kinds`."""
        kinds = self.published.kinds
        results = list(zip(kinds.hits, kinds.events, strict=True))
        distinct = {result: at for at, result in enumerate(dict.fromkeys(results))}
        num_relevant = np.array([events for _, events in distinct], np.int64)
        values = from_hits([hits for hits, _ in distinct], num_relevant, self.rules.k)
        return values.iloc[[distinct[result] for result in results]].reset_index(drop=True)

    @cached_property
    def segments(self) -> dict[str, BoolArray]:
        """Which drawn users [n] are in each segment of `segments_of`."""
        drawn, seen = self.drawn, self.active.position >= 0
        has_list = pd.notna(drawn.source)
        return self.segments_of(seen=seen, repeats=drawn.repeats, explores=drawn.explores, has_list=has_list)

    @cached_property
    def segments_of_kinds(self) -> dict[str, BoolArray]:
        """Which of `published.kinds` are in each segment of `segments_of`."""
        kinds = self.published.kinds
        flags = {name: kinds[name].to_numpy(bool) for name in ("seen", "repeats", "explores")}
        return self.segments_of(**flags, has_list=kinds.source.notna().to_numpy())

    def segments_of(
        self, *, seen: BoolArray, repeats: BoolArray, explores: BoolArray, has_list: BoolArray
    ) -> dict[str, BoolArray]:
        """Segment -> which of some users are in it.

        `all`; `seen` with a history; `repeat` with an event of their own past, `explore` with one that is not (a user
        may be in both); `new` without a history; under a policy that leaves out silent users, `left_out` with a history
        and without a list of their own: they were shown the one for new users.
        """
        segments = {"all": np.ones_like(seen), "seen": seen, "repeat": repeats, "explore": explores, "new": ~seen}
        return segments if self.rules.max_silent_weeks is None else segments | {"left_out": seen & ~has_list}


def score_week(
    week: str,
    given: EvaluationInput,
    *,
    history: InteractionHistory,
    diagnostics: RankerDiagnostics | None = None,
    rules: Rules = NO_RULES,
    workers: Workers = THREADS,
) -> ScoredWeek:
    """The lists published for `week`, and those of every other model, beside what the week's users did.

    An active user without a list of their own is scored on the list for new users. `history` is what was known before
    the week: the baselines and the ceiling see nothing else. `rules` are those that the lists were published under, and
    hold for all models. `diagnostics` are what the ranker of the week before had.

    Raises ValueError if `history` is not that of the week before, or lacks a user who was known then, or if a list
    holds a rank or an event twice or a rank outside 1 to k.
    """
    if history.week != week_number(week) - 1:
        raise ValueError(
            f"week {week} is scored with the history up to {shift(week, -1)}, not {week_key(history.week)}"
        )
    drawn = given.drawn
    active, k = active_users(drawn, history, rules), rules.k
    row, event, position = active.row, active.event, active.position
    new_user_list = codes_of(drawn.new_user_list, history)
    lists = {
        OURS: published_lists(
            drawn.lists.assign(event=codes_of(drawn.lists.event_idx, history)), new_user_list, users=len(active), k=k
        ),
        **all_baselines(history, position, k, rules, workers=workers),
        CEILING: perfect_lists(row, event, active.reachable, rows=len(active), k=k),
    }
    retrieved = None
    if diagnostics is not None:
        # What the ranker made is there, unless other events were brought into its lists afterwards.
        as_made = (drawn.source == OURS) & (rules.min_distinct == 0)
        without, others = lists[OURS].copy(), (position >= 0) & ~as_made
        without[others] = diagnostics.lists(position[others])
        lists[WITHOUT_FALLBACK] = without
        retrieved, found = _retrieved(diagnostics, active, new_user_list)
        lists[CANDIDATES] = perfect_lists(row, event, found, rows=len(active), k=k)
    return ScoredWeek(week, history, given.published, drawn, active, lists, rules, retrieved)


def active_users(drawn: DrawnUsers, history: InteractionHistory, rules: Rules) -> ActiveUsers:
    """The drawn users by position in `history`, and their events by code; ValueError if it lacks one of them."""
    position, known = look_up(history.user_idx, drawn.user_idx)
    if not known[drawn.user_idx >= 0].all():
        raise ValueError("the history lacks users whom the warehouse knew at the close of its week")
    row, event = drawn.truth.row.to_numpy(np.int64), codes_of(drawn.truth.event_idx, history)
    position = np.where(known, position, -1)
    reachable = event < history.num_events
    reachable[reachable] = rules.permits(history, position[row[reachable]], event[reachable])
    return ActiveUsers(position, row, event, reachable)


def codes_of(event_idx: pd.Series | IntArray, history: InteractionHistory) -> IntArray:
    """Event codes of warehouse indices: the position in `history`, or a number beyond them; -1 stays -1."""
    event_idx = np.asarray(event_idx, np.int64)
    position, known = look_up(history.event_idx, event_idx)
    return np.where(known, position, np.where(event_idx >= 0, event_idx + history.num_events, -1))


def published_lists(rows: pd.DataFrame, new_user_list: IntArray, *, users: int, k: int) -> IntArray:
    """The lists [users, k] that users were shown, of event codes; -1 for an empty rank.

    `rows` (row, rank, event) are the events of users' own lists; a user without any was shown `new_user_list`. Raises
    ValueError for a rank outside 1 to `k`, a rank that a user has twice or a list for new users of more than `k`.
    """
    rank = rows["rank"].to_numpy(np.int64)
    if not np.isin(rank, np.arange(1, k + 1)).all() or rows.duplicated(["row", "rank"]).any():
        raise ValueError(f"a user's predictions must have distinct ranks from 1 to {k}")
    if len(new_user_list) > k:
        raise ValueError(f"the list for new users has {len(new_user_list)} events, more than {k}")
    lists = np.full((users, k), -1)
    lists[:, : len(new_user_list)] = new_user_list
    lists[rows.row] = -1
    lists[rows.row, rank - 1] = rows.event
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
