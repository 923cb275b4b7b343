"""Associated events: those that the same users have, or have in consecutive weeks, with the number of cases."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.pair_tables import PairTables
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast
from tgn_assets.ml.linalg.sparse import row_of, split_by_cost, top_n_per_row
from tgn_assets.ml.parallel import map_threaded

MIN_CASES = 3
"""Users (or times) below which two events are not associated: fewer are a coincidence, or a person."""
ASSOCIATIONS_PER_EVENT, ASSOCIATION_SHRINKAGE = 50, 10.0
"""How many are kept of each event, and what is added to the cosine's denominator, as in `item_similarity`."""
MAX_PRODUCTS, MAX_ROWS = 2**26, 2**22
"""Pairs of events of one user, and rows, that are counted: of larger logs a sample of users is, so that the cost does
not grow with the log. Counts are lower bounds then."""
MAX_PRODUCTS_PER_USER = 2**22
"""Pairs of events of one user above which the user is left out."""


class Associations(NamedTuple):
    """The events associated with each event, the strongest first: those of e are `start[e]` to `start[e + 1]` - 1."""

    start: IntArray  # [E + 1]
    event: IntArray  # [a] event positions
    cases: IntArray  # [a] users who had both, or times that one came in the week before the other
    sampled: bool  # not all were counted: `cases` are lower bounds


def associations(
    history: InteractionHistory, degree: IntArray, allowed: BoolArray, config: CandidateConfig
) -> tuple[Associations, Associations]:
    """(events of the same users, events of the same users in the week before) of each of the `allowed` [E] events.

    `degree` [U] is the number of distinct events of each user.
    """
    users = _sampled_users(history, degree)
    past, incomplete = history.of_users(users), len(users) < (degree > 1).sum()
    pairs = PairTables(past, history.catalogue, config)
    profile = _indicators(pairs.start, pairs.event, history.num_events)
    co_occurrence = _strongest(profile, profile, allowed, sampled=incomplete)
    first, second, all_fit = _consecutive_baskets(past, history.num_events)
    return co_occurrence, _strongest(first, second, allowed, sampled=incomplete or not all_fit)


def _sampled_users(history: InteractionHistory, degree: IntArray) -> IntArray:
    """The users with several events, or as many of them, drawn at random, as the limits allow."""
    rows = np.diff(history.user_start)
    counted = (degree > 1) & (degree**2 <= MAX_PRODUCTS_PER_USER)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(counted))
    fits = (np.cumsum(degree[drawn] ** 2) <= MAX_PRODUCTS) & (np.cumsum(rows[drawn]) <= MAX_ROWS)
    return np.sort(drawn[fits])


def _consecutive_baskets(past: UserPast, num_events: int) -> tuple[sparse.csr_array, sparse.csr_array, bool]:
    """([b, E] what users had in a week, [b, E] what the same users had in the next, whether all are within the limit).

    A basket is what one user had in one week.
    """
    begins = (np.diff(past.row, prepend=-1) != 0) | (np.diff(past.week_no, prepend=-1) != 0)
    start = np.append(np.flatnonzero(begins), len(past.row))
    size, user, week = np.diff(start), past.row[start[:-1]], past.week_no[start[:-1]]
    before = np.flatnonzero((user[1:] == user[:-1]) & (week[1:] == week[:-1] + 1))
    fits = np.cumsum(size[before] * size[before + 1]) <= MAX_PRODUCTS
    baskets, kept = _indicators(start, past.event, num_events), before[fits]
    return baskets[kept], baskets[kept + 1], bool(fits.all())


def _indicators(start: IntArray, event: IntArray, num_events: int) -> sparse.csr_array:
    """[rows, E] ones at the events of each row."""
    return sparse.csr_array((np.ones(len(event), np.int32), event, start), shape=(len(start) - 1, num_events))


def _strongest(
    others: sparse.csr_array, events: sparse.csr_array, allowed: BoolArray, *, sampled: bool
) -> Associations:
    """The columns of `others` [S, E] that are associated most with each `allowed` column of `events` [S, E]: by shrunk
    cosine, among those that share a row more often than by chance and in at least `MIN_CASES` rows."""
    (rows, num_events), by_event = others.shape, sparse.csr_array(events.T)
    other_count, event_count = (np.bincount(matrix.indices, minlength=num_events) for matrix in (others, events))

    def of_block(block: tuple[int, int]) -> sparse.csr_array:
        low, high = block
        shared = sparse.csr_array(by_event[low:high] @ others)
        often = np.flatnonzero(shared.data >= MIN_CASES)
        event, other, cases = low + row_of(shared)[often], shared.indices[often], shared.data[often].astype(np.int64)
        above_chance = cases * rows > event_count[event] * other_count[other]
        kept = (other != event) & allowed[event] & above_chance
        event, other = event[kept], other[kept]
        cosine = cases[kept] / _shrunk_norm(event_count[event], other_count[other])
        start = np.searchsorted(event, np.arange(low, high + 1))
        matrix = sparse.csr_array((cosine, other, start), shape=(high - low, num_events))
        return top_n_per_row(matrix, ASSOCIATIONS_PER_EVENT)

    cost = by_event.astype(bool).astype(np.int64) @ np.diff(others.indptr)
    parts = [sparse.csr_array((0, num_events)), *map_threaded(of_block, split_by_cost(cost))]
    cosine = sparse.csr_array(sparse.vstack(parts, format="csr"))
    event, other = row_of(cosine), cosine.indices.astype(np.int64)
    cases = np.rint(cosine.data * _shrunk_norm(event_count[event], other_count[other])).astype(np.int64)
    order = np.lexsort((other, -cosine.data, event))
    return Associations(cosine.indptr.astype(np.int64), other[order], cases[order], bool(sampled))


def _shrunk_norm(one: IntArray, other: IntArray) -> FloatArray:
    """The denominator of the cosine of two indicators with `one` and `other` ones."""
    return np.sqrt(one.astype(float) * other) + ASSOCIATION_SHRINKAGE
