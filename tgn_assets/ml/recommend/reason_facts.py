"""What can be said truly of a pair as of the close of a week: the numbers that reasons state, and which kinds apply.

All of it is counted in the history. `EventFacts` are of events, made once and shared; `pair_facts` adds the rows of
the users of a shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.candidates.attribute_features import AttributeValues
from tgn_assets.ml.candidates.pair_tables import PairTables, map_user_blocks
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast, entries_of
from tgn_assets.ml.linalg.lookup import look_up
from tgn_assets.ml.linalg.sparse import blocks, row_of, top_n_per_row
from tgn_assets.ml.parallel import map_threaded
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
"""Place in `WINDOWS` of the smallest one for a repeat."""
NEW_WEEKS = 4
"""Newest weeks; an event that was first seen in one of them is new."""
POPULAR_SHARE, POPULAR_PLACES = 0.05, 10
"""An event is popular now if it is among this share of last week's events, or has one of so many first places."""
MIN_CASES = 3
"""Users (or times) below which two events are not said to belong together: fewer are a coincidence, or a person."""
NEIGHBOURS = 50
"""Associated events that are kept of each event."""
SHRINKAGE = 10.0
"""Added to the cosine's denominator, as in `item_similarity`."""
PRODUCTS, ROWS = 2**26, 2**22
"""Most pairs of events of one user, and rows, that associations are counted from: of larger logs a sample of users, so
that they cost the same whatever the log. Counts are lower bounds then."""
MOST_PAIRS = 2**22
"""Pairs of events of one user above which the user is left out."""
MIDNIGHTS = (np.arange(1, 8) / 7).astype(np.float32).astype(float)
"""Weeks from the start of a day to the close of its week, Sunday's first, as `InteractionHistory.since` rounds them."""
DAYS_TO_FIRST_MONDAY = 4
"""Days from 1970-01-01 to Monday of week 0."""


class Association(NamedTuple):
    """Events that belong to each event, the strongest first: those of event e from `start[e]` to `start[e + 1]` - 1."""

    start: IntArray  # [E + 1]
    event: IntArray  # [a] event positions
    cases: IntArray  # [a] users who had both, or times that one came in the week before the other
    sampled: bool  # not all were counted: `cases` are lower bounds


@dataclass(frozen=True)
class EventFacts:
    """What is true of each event [E] at the close of week number `week`."""

    week: int
    users: IntArray  # [E] who ever had it
    window: IntArray  # [E] the smallest of `WINDOWS` in which somebody had it
    window_users: IntArray  # [E] who had it in that window
    place: IntArray  # [E] rank by that, from 1
    popular_now: BoolArray  # [E]
    first_week: IntArray  # [E]
    next_week: Association  # events that came in the week before
    co_occurrence: Association  # events of the same users
    columns: tuple[str, ...]  # names of the categories of events
    category: IntArray  # [len(columns), E] codes; -1 for unknown

    @property
    def sampled(self) -> tuple[int, ...]:
        """The kinds whose counts are lower bounds."""
        both = {NEXT_STEP: self.next_week, TOGETHER: self.co_occurrence}
        return tuple(kind for kind, association in both.items() if association.sampled)


class PairFacts(NamedTuple):
    """What each kind of reason would say of m pairs."""

    true: BoolArray  # [kinds, m] it is true of the pair
    reason: IntArray  # [kinds, m, WIDTH]

    def of(self, kind: IntArray) -> IntArray:
        """[m, WIDTH] the reasons of a kind [m] each."""
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
    attributes: AttributeTables = NO_ATTRIBUTES,
) -> EventFacts:
    """The facts at the close of `history`; associations are those of `allowed` [E] events."""
    users, degree = _users_by_window(history, config)
    there = users > 0
    window = np.where(there.any(0), there.argmax(0), len(WINDOWS) - 1)
    events = np.arange(history.num_events)
    counted, active = users[window, events], int(there[0].sum())
    place = np.empty(len(events), np.int64)
    for width in np.unique(window):
        of_width = window == width
        place[of_width] = 1 + len(events) - np.searchsorted(np.sort(users[width]), counted[of_width], side="right")
    first_places = max(POPULAR_PLACES, POPULAR_SHARE * active)
    names = [column for column in attributes.event.columns if column.kind == "category"]
    values = attributes.event.only(names).at(history.event_idx, history.week)
    codes = [AttributeValues(history.week, config, of_column).code for of_column in values.T]
    co_occurrence, next_week = _associations(history, degree, allowed, config)
    return EventFacts(
        week=history.week,
        users=users[-1],
        window=WINDOWS[window],
        window_users=counted,
        place=place,
        popular_now=(window == 0) & (place <= first_places),
        first_week=history.first_week_of_event,
        next_week=next_week,
        co_occurrence=co_occurrence,
        columns=tuple(column.name for column in names),
        category=np.array(codes, np.int64).reshape(len(names), len(events)),
    )


def pair_facts(facts: EventFacts, past: UserPast, row: IntArray, event: IntArray) -> PairFacts:
    """The facts of m distinct pairs: places `row` [m] in the users of `past`, event positions `event` [m]."""
    num_events, size = len(facts.users), len(row)
    true = np.zeros((len(KINDS), size), bool)
    reason = np.zeros((len(KINDS), size, WIDTH), np.int64)
    reason[:, :, 0] = np.arange(len(KINDS))[:, None]
    key = past.place * num_events + past.event
    true[REPEAT], reason[REPEAT, :, 1:] = _repeats(past, key, row * num_events + event)
    newest, ever = key[past.week_no == past.week], np.sort(key)  # those of one week ascend
    for kind, association, keys in ((NEXT_STEP, facts.next_week, newest), (TOGETHER, facts.co_occurrence, ever)):
        other, count = _associated(association, keys, row, event, num_events)
        true[kind] = other >= 0
        reason[kind, :, 1], reason[kind, :, 2] = other, count
    true[POPULAR] = facts.popular_now[event]
    reason[POPULAR, :, 1:] = np.column_stack([facts.window_users[event], facts.window[event], facts.place[event]])
    true[NEW] = facts.first_week[event] > facts.week - NEW_WEEKS
    reason[NEW, :, 1:3] = np.column_stack([facts.first_week[event], facts.users[event]])
    true[ATTRIBUTES], reason[ATTRIBUTES, :, 1:] = _categories(facts, ever, row, event)
    true[[LEARNED, VARIETY]] = True
    reason[[LEARNED, VARIETY], :, 1] = facts.users[event]
    return PairFacts(true, reason)


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


def _associations(
    history: InteractionHistory, degree: IntArray, allowed: BoolArray, config: CandidateConfig
) -> tuple[Association, Association]:
    """(events of the same users, events of the same users in the week before), counted from a sample of users if there
    are many."""
    rows = np.diff(history.user_start)
    order = np.random.default_rng(0).permutation(np.flatnonzero((degree > 1) & (degree**2 <= MOST_PAIRS)))
    fits = (np.cumsum(degree[order] ** 2) <= PRODUCTS) & (np.cumsum(rows[order]) <= ROWS)
    chosen = np.sort(order[fits])
    past, num_events = history.of_users(chosen), history.num_events
    pairs = PairTables(past, history.catalogue, config)
    profile = _indicators(pairs.start, pairs.event, num_events)
    co_occurrence = _association(profile, profile, allowed, sampled=len(chosen) < (degree > 1).sum())
    # A basket is what a user had in a week; rows are sorted by user, then week.
    begins = (np.diff(past.place, prepend=-1) != 0) | (np.diff(past.week_no, prepend=-1) != 0)
    start = np.append(np.flatnonzero(begins), len(past.place))
    first = start[:-1]
    size, user, week = np.diff(start), past.place[first], past.week_no[first]
    before = np.flatnonzero((user[1:] == user[:-1]) & (week[1:] == week[:-1] + 1))
    fits = np.cumsum(size[before] * size[before + 1]) <= PRODUCTS
    baskets = _indicators(start, past.event, num_events)
    incomplete = co_occurrence.sampled or not fits.all()
    before = before[fits]
    return co_occurrence, _association(baskets[before], baskets[before + 1], allowed, sampled=incomplete)


def _indicators(start: IntArray, event: IntArray, num_events: int) -> sparse.csr_array:
    """[rows, E] ones at the events of each row."""
    return sparse.csr_array((np.ones(len(event), np.int32), event, start), shape=(len(start) - 1, num_events))


def _association(
    theirs: sparse.csr_array, wanted: sparse.csr_array, allowed: BoolArray, *, sampled: bool
) -> Association:
    """The events of `theirs` [S, E] that go most with each `allowed` event of `wanted` [S, E]: by shrunk cosine, among
    those that share a row more often than by chance and in `MIN_CASES` rows at least."""
    (cases, num_events), by_event = theirs.shape, sparse.csr_array(wanted.T)
    of_other, of_event = (np.bincount(matrix.indices, minlength=num_events) for matrix in (theirs, wanted))

    def strongest(block: tuple[int, int]) -> sparse.csr_array:
        low, high = block
        shared = sparse.csr_array(by_event[low:high] @ theirs)
        often = np.flatnonzero(shared.data >= MIN_CASES)
        event, other, count = low + row_of(shared)[often], shared.indices[often], shared.data[often].astype(np.int64)
        kept = (other != event) & allowed[event] & (count * cases > of_event[event] * of_other[other])
        event, other = event[kept], other[kept]
        strength = count[kept] / _scale(of_event[event], of_other[other])
        start = np.searchsorted(event, np.arange(low, high + 1))
        strong = sparse.csr_array((strength, other, start), shape=(high - low, num_events))
        return top_n_per_row(strong, NEIGHBOURS)

    products = by_event.astype(bool).astype(np.int64) @ np.diff(theirs.indptr)
    parts = [sparse.csr_array((0, num_events)), *map_threaded(strongest, blocks(products))]
    strong = sparse.csr_array(sparse.vstack(parts, format="csr"))
    event, other = row_of(strong), strong.indices.astype(np.int64)
    count = np.rint(strong.data * _scale(of_event[event], of_other[other])).astype(np.int64)
    order = np.lexsort((other, -strong.data, event))
    return Association(strong.indptr.astype(np.int64), other[order], count[order], bool(sampled))


def _scale(one: IntArray, other: IntArray) -> np.ndarray:
    """The shrunk denominator of a cosine."""
    return np.sqrt(one.astype(float) * other) + SHRINKAGE


def _repeats(past: UserPast, key: IntArray, wanted: IntArray) -> tuple[BoolArray, IntArray]:
    """([m] the pair `wanted` is among the `key` of the rows of `past`, [m, 3] weeks of the last so many, last day)."""
    order = np.argsort(wanted)
    at = np.searchsorted(wanted, key, sorter=order)
    pair = np.append(order, 0)[at.clip(max=len(order) - 1)] if len(order) else np.zeros(len(key), np.int64)
    asked = np.flatnonzero(wanted[pair] == key) if len(order) else np.zeros(0, np.int64)
    pair, week = pair[asked], past.week_no[asked]
    newest, since = np.full(len(wanted), -1), np.ones(len(wanted))
    newest[pair] = week  # rows of a pair ascend by week: the newest is written last
    since[pair] = past.age[asked] - (past.week - week)
    had = newest >= 0
    of = WINDOWS[np.maximum(np.searchsorted(WINDOWS, past.week - newest + 1), REPEAT_WINDOW).clip(max=len(WINDOWS) - 1)]
    weeks = np.bincount(pair[week > past.week - of[pair]], minlength=len(wanted))
    day = DAYS_TO_FIRST_MONDAY + 7 * newest + 6 - np.searchsorted(MIDNIGHTS, since)
    return had, np.column_stack([weeks, of, day])


def _associated(
    association: Association, keys: IntArray, row: IntArray, event: IntArray, num_events: int
) -> tuple[IntArray, IntArray]:
    """([m] the strongest associate of each `event` that its user had, or -1; [m] its count).

    `keys`, ascending, are place * E + event position of what users had.
    """
    place, entry = entries_of(association.start, event)
    wanted = row[place] * num_events + association.event[entry]
    found = np.flatnonzero(look_up(keys, wanted)[1])
    pair, first = np.unique(place[found], return_index=True)
    strongest = entry[found[first]]
    other, count = np.full(len(row), -1), np.zeros(len(row), np.int64)
    other[pair], count[pair] = association.event[strongest], association.cases[strongest]
    return other, count


def _categories(facts: EventFacts, keys: IntArray, row: IntArray, event: IntArray) -> tuple[BoolArray, IntArray]:
    """([m] the user had another event of the same category, [m, 3] the column in which most are, how many, of how many
    other events); `keys` as in `_associated`, with repetitions."""
    num_events = len(facts.users)
    if not len(facts.columns):
        return np.zeros(len(row), bool), np.zeros((len(row), 3), np.int64)
    pairs = keys[np.diff(keys, prepend=-1) != 0]
    user, had = np.divmod(pairs, num_events)
    _, itself = look_up(pairs, row * num_events + event)
    same = np.zeros((len(facts.columns), len(row)), np.int64)
    for column, code in enumerate(facts.category):
        width = int(code.max(initial=-1)) + 2
        of_user, number = np.unique(user * width + code[had] + 1, return_counts=True)
        wanted = row * width + code[event] + 1
        at, there = look_up(of_user, wanted)
        same[column] = np.where(there & (code[event] >= 0), np.append(number, 0)[at] - itself, 0)
    best, others = same.argmax(0), np.bincount(user, minlength=int(row.max(initial=-1)) + 1)[row] - itself
    most = same[best, np.arange(len(row))]
    return most > 0, np.column_stack([best, most, others])
