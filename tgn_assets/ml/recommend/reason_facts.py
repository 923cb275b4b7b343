"""The facts about a pair at the close of a week: which kinds of reason are true of it, and the numbers they state.

All of it is counted in the history. `EventFacts` are of events, made once and shared; `pair_facts` adds the rows of
the users of a shard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.candidates.associations import Associations, associations
from tgn_assets.ml.candidates.attribute_features import AttributeValues
from tgn_assets.ml.candidates.pair_tables import PairTables, map_user_blocks
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast, entries_of
from tgn_assets.ml.linalg.lookup import look_up
from tgn_assets.ml.recommend.reasons import (
    ATTRIBUTES,
    KINDS,
    LEARNED,
    NEW,
    NEXT_STEP,
    POPULAR,
    REPEAT,
    TOGETHER,
    VARIETY,
    WIDTH,
)

WINDOWS = np.array([1, 4, 12, 26, 52, 104, 260, 520, 1040, 20_800])
"""Numbers of newest weeks that counts are taken over: the smallest one that holds something."""
REPEAT_WINDOW = 1
"""Index in `WINDOWS` of the smallest one for a repeat."""
NEW_WEEKS = 4
"""Newest weeks; an event that was first seen in one of them is new."""
POPULAR_SHARE, POPULAR_RANKS = 0.05, 10
"""An event is popular now if it is among this share of last week's events, or has one of so many first ranks."""
MIDNIGHTS = (np.arange(1, 8) / 7).astype(np.float32).astype(float)
"""Weeks from the start of a day to the close of its week, Sunday's first, as `InteractionHistory.since` rounds them."""
DAYS_TO_FIRST_MONDAY = 4
"""Days from 1970-01-01 to Monday of week 0."""


@dataclass(frozen=True)
class EventFacts:
    """What is true of each event [E] at the close of week number `week`."""

    week: int
    users: IntArray  # [E] who ever had it
    window: IntArray  # [E] the smallest of `WINDOWS` in which somebody had it
    window_users: IntArray  # [E] who had it in that window
    popularity_rank: IntArray  # [E] rank from 1 by that among the events of the same window
    popular_now: BoolArray  # [E]
    first_week: IntArray  # [E]
    next_week: Associations  # events that came in the week before
    co_occurrence: Associations  # events of the same users
    columns: tuple[str, ...]  # names of the categories of events
    category: IntArray  # [len(columns), E] codes; -1 for unknown

    @property
    def sampled(self) -> tuple[int, ...]:
        """The kinds whose counts are lower bounds."""
        both = {NEXT_STEP: self.next_week, TOGETHER: self.co_occurrence}
        return tuple(kind for kind, association in both.items() if association.sampled)


class PairFacts(NamedTuple):
    """For m pairs: which kinds of reason are true, and the reason of each kind."""

    true: BoolArray  # [kinds, m] it is true of the pair
    reason: IntArray  # [kinds, m, WIDTH]

    def of(self, kind: IntArray) -> IntArray:
        """[m, WIDTH] the reason of kind `kind` [m] of each pair."""
        return self.reason[kind, np.arange(len(kind))]

    def first_of(self, kinds: Sequence[int]) -> IntArray:
        """[m, WIDTH] the reasons of the first of `kinds` that is true; of the last one where none is."""
        true = self.true[list(kinds)]
        true[-1] = True
        return self.of(np.array(kinds)[true.argmax(0)])


def event_facts(
    history: InteractionHistory,
    config: CandidateConfig,
    *,
    allowed: BoolArray,
    attributes: AttributeTables,
) -> EventFacts:
    """The facts at the close of `history`; associations are those of `allowed` [E] events."""
    users, degree = _users_by_window(history, config)
    window = np.where((users > 0).any(0), (users > 0).argmax(0), len(WINDOWS) - 1)
    window_users = users[window, np.arange(history.num_events)]
    rank = np.empty(history.num_events, np.int64)
    for at in np.unique(window):
        of_window = window == at
        more_users = np.searchsorted(np.sort(users[at]), window_users[of_window], side="right")
        rank[of_window] = 1 + history.num_events - more_users
    active_events = int((users[0] > 0).sum())
    columns, category = _event_categories(history, config, attributes)
    co_occurrence, next_week = associations(history, degree, allowed, config)
    return EventFacts(
        week=history.week,
        users=users[-1],
        window=WINDOWS[window],
        window_users=window_users,
        popularity_rank=rank,
        popular_now=(window == 0) & (rank <= max(POPULAR_RANKS, POPULAR_SHARE * active_events)),
        first_week=history.first_week_of_event,
        next_week=next_week,
        co_occurrence=co_occurrence,
        columns=columns,
        category=category,
    )


Fact = tuple[BoolArray, Sequence[IntArray]]
"""([m] whether a kind of reason is true of each pair, [m] each of the kind's parameters)."""


def pair_facts(facts: EventFacts, past: UserPast, row: IntArray, event: IntArray) -> PairFacts:
    """The facts of m distinct pairs: rows `row` [m] in the users of `past`, event positions `event` [m]."""
    num_events, size = len(facts.users), len(row)
    key = past.row * num_events + past.event
    in_last_week, ever = key[past.week_no == past.week], np.sort(key)  # those of one week ascend
    always = np.ones(size, bool)
    of_kind: Mapping[int, Fact] = {
        REPEAT: _repeats(past, key, row * num_events + event),
        NEXT_STEP: _associated(facts.next_week, in_last_week, row, event, num_events),
        TOGETHER: _associated(facts.co_occurrence, ever, row, event, num_events),
        POPULAR: (
            facts.popular_now[event],
            [facts.window_users[event], facts.window[event], facts.popularity_rank[event]],
        ),
        NEW: (facts.first_week[event] > facts.week - NEW_WEEKS, [facts.first_week[event], facts.users[event]]),
        ATTRIBUTES: _same_category(facts, ever, row, event),
        LEARNED: (always, [facts.users[event]]),
        VARIETY: (always, [facts.users[event]]),
    }
    true = np.zeros((len(KINDS), size), bool)
    reason = np.zeros((len(KINDS), size, WIDTH), np.int64)
    for kind, (is_true, parameters) in of_kind.items():
        true[kind], reason[kind, :, 0] = is_true, kind
        reason[kind, :, 1 : 1 + len(parameters)] = np.column_stack(parameters)
    return PairFacts(true, reason)


def _event_categories(
    history: InteractionHistory, config: CandidateConfig, attributes: AttributeTables
) -> tuple[tuple[str, ...], IntArray]:
    """(names of the categories of events, [names, E] codes; -1 for unknown)."""
    names = [column for column in attributes.event.columns if column.kind == "category"]
    values = attributes.event.only(names).at(history.event_idx, history.week)
    codes = [AttributeValues(history.week, config, of_column).code for of_column in values.T]
    return tuple(column.name for column in names), np.array(codes, np.int64).reshape(len(names), history.num_events)


def _users_by_window(history: InteractionHistory, config: CandidateConfig) -> tuple[IntArray, IntArray]:
    """([windows, E] distinct users of each event in each window, [U] distinct events of each user)."""

    def counted(past: UserPast) -> tuple[IntArray, IntArray]:
        pairs = PairTables(past, history.catalogue, config)
        smallest = np.searchsorted(WINDOWS, history.week - pairs.last + 1)
        of_window = np.bincount(smallest * history.num_events + pairs.event, minlength=size)
        return of_window, np.diff(pairs.start)

    size = len(WINDOWS) * history.num_events
    users, degrees = np.zeros(size, np.int64), [np.zeros(0, np.int64)]
    for of_window, degree in map_user_blocks(counted, history):
        users += of_window
        degrees.append(degree)
    return users.reshape(len(WINDOWS), -1).cumsum(0), np.concatenate(degrees)


def _repeats(past: UserPast, key: IntArray, wanted: IntArray) -> Fact:
    """The user had the event: in how many of the newest weeks, of how many, and on which day last.

    `wanted` [m] are the keys of the pairs, `key` those of the interactions in `past`.
    """
    order = np.argsort(wanted)
    at, asked = look_up(wanted[order], key)
    pair, week = order[at[asked]], past.week_no[asked]
    newest, since = np.full(len(wanted), -1), np.ones(len(wanted))
    newest[pair] = week  # interactions of a pair ascend by week: the newest is written last
    since[pair] = past.age[asked] - (past.week - week)
    smallest = np.maximum(np.searchsorted(WINDOWS, past.week - newest + 1), REPEAT_WINDOW)
    window = WINDOWS[smallest.clip(max=len(WINDOWS) - 1)]
    weeks = np.bincount(pair[week > past.week - window[pair]], minlength=len(wanted))
    day = DAYS_TO_FIRST_MONDAY + 7 * newest + 6 - np.searchsorted(MIDNIGHTS, since)
    return newest >= 0, [weeks, window, day]


def _associated(association: Associations, keys: IntArray, row: IntArray, event: IntArray, num_events: int) -> Fact:
    """The user had an event that is associated with this one: the strongest such event, and its number of cases.

    `keys`, ascending, are row * E + event position of what users had.
    """
    pair, entry = entries_of(association.start, event)
    _, had = look_up(keys, row[pair] * num_events + association.event[entry])
    pairs, first = np.unique(pair[had], return_index=True)
    strongest = entry[had][first]
    other, cases = np.full(len(row), -1), np.zeros(len(row), np.int64)
    other[pairs], cases[pairs] = association.event[strongest], association.cases[strongest]
    return other >= 0, [other, cases]


def _same_category(facts: EventFacts, keys: IntArray, row: IntArray, event: IntArray) -> Fact:
    """The user had another event of the same category: the column in which most are, how many, of how many others.

    `keys` as in `_associated`, with repetitions.
    """
    num_events = len(facts.users)
    if not len(facts.columns):
        return np.zeros(len(row), bool), [np.zeros(len(row), np.int64)] * 3
    pairs = keys[np.diff(keys, prepend=-1) != 0]
    user, had = np.divmod(pairs, num_events)
    _, itself = look_up(pairs, row * num_events + event)
    same = np.zeros((len(facts.columns), len(row)), np.int64)
    for column, code in enumerate(facts.category):
        width = int(code.max(initial=-1)) + 2
        of_user, count = np.unique(user * width + code[had] + 1, return_counts=True)
        at, there = look_up(of_user, row * width + code[event] + 1)
        same[column] = np.where(there & (code[event] >= 0), np.append(count, 0)[at] - itself, 0)
    best, others = same.argmax(0), np.bincount(user, minlength=int(row.max(initial=-1)) + 1)[row] - itself
    most = same[best, np.arange(len(row))]
    return most > 0, [best, most, others]
