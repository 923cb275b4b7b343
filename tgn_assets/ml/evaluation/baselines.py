"""The baselines of every week: popularity, the user's own events, and item-kNN, from the same history as the model.

Lists hold event positions of the history, best first, and -1 where the catalogue has no more. Users are user
positions; -1 stands for a user without history, who gets `popular`. Every tie goes to the event that comes
first in text order, so that a list depends on nothing but the history and the rules of what may be recommended. Inside
this module an event is a *column*: its rank in text order.

To add a baseline, write a function like `repeat` and enter it in `BASELINES`: it is then scored every week and shown
beside the others, may be chosen by the fallback, and serves the users whom the fallback gives it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.pair_tables import map_user_blocks
from tgn_assets.ml.data.interactions import Catalogue, InteractionHistory, UserPast
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.linalg.sparse import (
    item_similarity,
    only_columns,
    row_of,
    split_by_cost,
    sums,
    top_n_per_row,
    with_sorted_indices,
)
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.schema import K

# Weeks after which an interaction counts half. Nothing tunes them: a baseline stays what it is.
POPULAR_HALF_LIFE = 0.3
REPEAT_HALF_LIFE = 8.0
TIE_HALF_LIFE = 1.0
KNN_HALF_LIFE = 8.0
KNN_EVENTS_PER_USER = 200
"""Only a user's heaviest events enter item-kNN: pairs of events cost the square of this for the busiest users."""
KNN_NEIGHBOURS, KNN_SHRINKAGE = 100, 10.0
"""Of `item_similarity`. A baseline is the same whatever `CandidateConfig` says of the ranker's features."""
BASELINE_SHARD = 4096
"""Users whose lists one worker makes at a time."""


@dataclass(frozen=True)
class BaselineTables:
    """What baselines read of the whole log, shared by all users."""

    catalogue: Catalogue
    k: int
    exclude_repeats: bool
    allowed: BoolArray  # [columns] the event may be recommended
    by_popularity: IntArray  # [c] allowed columns, best first
    tie: FloatArray  # [columns] popularity now, at most 1
    similar: sparse.csr_array  # [columns, columns]; empty where item-kNN is not asked for

    def positions(self, columns: IntArray) -> IntArray:
        """Event positions of columns; -1 stays -1."""
        return np.append(np.argsort(self.catalogue.event_order), -1)[columns]


def baseline_tables(history: InteractionHistory, k: int, rules: Rules, *, item_knn: bool = False) -> BaselineTables:
    """The tables as of the close of `history`."""
    allowed = rules.allowed(history)[np.argsort(history.event_order)]
    order = np.argsort(-_counts_by_week(history, POPULAR_HALF_LIFE), kind="stable")
    now = _counts_by_week(history, TIE_HALF_LIFE)
    return BaselineTables(
        history.catalogue,
        k,
        rules.exclude_repeats,
        allowed,
        order[allowed[order]],
        now / now.max(initial=np.finfo(float).tiny),
        history.derived("item_knn", lambda: _similarity(history)) if item_knn else sparse.csr_array((0, 0)),
    )


def popular(history: InteractionHistory, k: int = K, rules: Rules = NO_RULES) -> IntArray:
    """The `k` events of the largest decayed count; a half-life of 0.3 weeks makes it last week's. [k]"""
    tables = baseline_tables(history, k, rules)
    return tables.positions(_fill_ranks(np.full((1, k), -1), tables.by_popularity))[0]


def popular_lists(tables: BaselineTables, past: UserPast) -> IntArray:
    """`popular` for each user, without the user's own events where the rules exclude them. [n, k]"""
    return fill_up(tables, past, np.full((len(past.users), tables.k), -1))


def fill_up(tables: BaselineTables, past: UserPast, lists: IntArray) -> IntArray:
    """`lists` [n, k] of event positions with their empty ranks filled with what is popular. [n, k]"""
    lists, short = lists.copy(), np.flatnonzero((lists < 0).any(1))
    if len(short):
        columns = np.append(tables.catalogue.event_order, -1)[lists[short]]
        taken = _user_events(tables.catalogue, past, past.count)[short] if tables.exclude_repeats else None
        lists[short] = tables.positions(_fill_ranks(columns, tables.by_popularity, taken))
    return lists


def repeat(tables: BaselineTables, past: UserPast) -> IntArray:
    """Each user's own events by decayed count, half-life 8 weeks, then `popular`. [n, k]

    Between own events of equal count the one that is more popular now comes first.
    """
    if tables.exclude_repeats:
        return popular_lists(tables, past)
    counts = _user_events(tables.catalogue, past, past.count * _decay(past, REPEAT_HALF_LIFE))
    counts.data += 1e-3 * tables.tie[counts.indices]
    counts = only_columns(counts, tables.allowed)
    return tables.positions(_fill_ranks(_top_k(counts, tables.k), tables.by_popularity))


def item_knn(tables: BaselineTables, past: UserPast) -> IntArray:
    """Item-kNN over the time-decayed user-event matrix, the user's own events included, then `popular`. [n, k]

    The matrix holds log(1 + count) of each week, decayed with a half-life of 8 weeks. An event scores its own weight
    for the user, plus the weight of each of the user's events times the shrunk cosine of the two, where an event's 100
    nearest neighbours share a weight of one. After Deshpande and Karypis, "Item-based top-N recommendation
    algorithms", TOIS 2004.
    """
    return _item_knn(tables, past)["item_knn"]


def item_knn_new(tables: BaselineTables, past: UserPast) -> IntArray:
    """`item_knn` without the user's own events: for logs without repeats. [n, k]"""
    return _item_knn(tables, past)["item_knn_new"]


class Baseline(NamedTuple):
    """What makes the lists [n, k] of event positions of the users of a past, full as far as the rules allow; and the
    kinds of `recommend.reasons`, of which the first that is true of a listed event is its reason."""

    lists: Callable[[BaselineTables, UserPast], IntArray]
    reasons: tuple[str, ...]


BASELINES: Mapping[str, Baseline] = {
    "popular": Baseline(popular_lists, ("popular",)),
    "repeat": Baseline(repeat, ("repeat", "popular")),
    "item_knn": Baseline(item_knn, ("repeat", "together", "popular")),
    "item_knn_new": Baseline(item_knn_new, ("together", "popular")),
}
"""The registry of baselines, by their name in `source` and `model` columns."""
OF_ITEM_KNN = ("item_knn", "item_knn_new")
"""Those that need `BaselineTables.similar`."""


def baseline_lists(
    names: Collection[str],
    history: InteractionHistory,
    users: IntArray,
    k: int = K,
    rules: Rules = NO_RULES,
    *,
    workers: Workers = THREADS,
) -> dict[str, IntArray]:
    """The lists [n, k] of the baselines `names` for user positions `users` [n]."""
    tables = baseline_tables(history, k, rules, item_knn=not set(OF_ITEM_KNN).isdisjoint(names))
    pasts = (history.of_users(users[low : low + BASELINE_SHARD]) for low in range(0, len(users), BASELINE_SHARD))
    parts = [dict.fromkeys(names, np.zeros((0, k), np.int64)), *workers.map(_lists_of, (names, tables), pasts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def all_baselines(
    history: InteractionHistory, users: IntArray, k: int = K, rules: Rules = NO_RULES, *, workers: Workers = THREADS
) -> dict[str, IntArray]:
    """The lists [n, k] of every one of `BASELINES`."""
    return baseline_lists(tuple(BASELINES), history, users, k, rules, workers=workers)


def _lists_of(shared: tuple[Collection[str], BaselineTables], past: UserPast) -> dict[str, IntArray]:
    """Both variants of item-kNN come from one pass over neighbours."""
    names, tables = shared
    both = _item_knn(tables, past) if set(OF_ITEM_KNN) <= set(names) else {}
    return {name: both[name] if name in both else BASELINES[name].lists(tables, past) for name in names}


def _item_knn(tables: BaselineTables, past: UserPast) -> dict[str, IntArray]:
    profiles, taken = _profiles(tables.catalogue, past)
    included = np.full((len(past.users), tables.k), -1)
    left_out = included.copy()
    for low, high in split_by_cost(np.diff(profiles.indptr) * KNN_NEIGHBOURS):
        similar = only_columns(with_sorted_indices(profiles[low:high] @ tables.similar), tables.allowed)
        included[low:high] = _top_k(similar + only_columns(profiles[low:high], tables.allowed), tables.k)
        left_out[low:high] = _top_k(similar - similar.multiply(taken[low:high].astype(bool)), tables.k)
    new = tables.positions(_fill_ranks(left_out, tables.by_popularity, taken))
    if tables.exclude_repeats:
        return {"item_knn": new, "item_knn_new": new}
    return {"item_knn": tables.positions(_fill_ranks(included, tables.by_popularity)), "item_knn_new": new}


def _similarity(history: InteractionHistory) -> sparse.csr_array:
    """`item_similarity` [columns, columns] of everyone's profiles."""
    none = sparse.csr_array((0, history.num_events))
    profiles = map_user_blocks(lambda past: _profiles(history, past)[0], history)
    everyone = sparse.csr_array(sparse.vstack([none, *profiles], format="csr"))
    return item_similarity(everyone, neighbours=KNN_NEIGHBOURS, shrinkage=KNN_SHRINKAGE)


def _profiles(catalogue: Catalogue, past: UserPast) -> tuple[sparse.csr_array, sparse.csr_array]:
    """[n, columns] the heaviest events of each user, and all of them."""
    everything = _user_events(catalogue, past, np.log1p(past.count) * _decay(past, KNN_HALF_LIFE))
    return top_n_per_row(everything, KNN_EVENTS_PER_USER), everything


def _decay(of: InteractionHistory | UserPast, half_life: float) -> FloatArray:
    # Age 0 is the newest closed week, the newest that may be known; the target week would have age -1.
    return 0.5 ** ((of.week - of.week_no) / half_life)


def _counts_by_week(history: InteractionHistory, half_life: float) -> FloatArray:
    """[columns] interactions with each event, decayed by whole weeks."""
    weight = history.count * _decay(history, half_life)
    return sums(history.event_order[history.event], weight, history.num_events)


def _user_events(catalogue: Catalogue, past: UserPast, weight: FloatArray) -> sparse.csr_array:
    """The sum of `weight` [m] over the weeks, [users, columns]."""
    users, events = len(past.users), catalogue.num_events
    pairs, pair = np.unique(past.row * events + catalogue.event_order[past.event], return_inverse=True)
    user, column = np.divmod(pairs, max(events, 1))
    starts = np.searchsorted(user, np.arange(users + 1))
    shape = (users, events)
    return sparse.csr_array((sums(pair, weight, len(pairs)), column, starts), shape=shape)


def _top_k(scores: sparse.csr_array, k: int) -> IntArray:
    """The `k` columns of the largest positive scores of each row, the first of equal ones; -1 where there is none."""
    scores = sparse.csr_array(scores)
    scores.sort_indices()
    lists = np.full((scores.shape[0], k), -1)
    size = np.diff(scores.indptr)
    row, starts, length = row_of(scores), scores.indptr[:-1][size > 0], size[size > 0]
    value = scores.data.copy()
    for rank in range(k if len(value) else 0):
        best = np.repeat(np.maximum.reduceat(value, starts), length)
        at_best = np.flatnonzero((value == best) & (value > 0))
        rows, first = np.unique(row[at_best], return_index=True)
        lists[rows, rank] = scores.indices[at_best[first]]
        value[at_best[first]] = 0
    return lists


def _fill_ranks(lists: IntArray, order: IntArray, taken: sparse.csr_array | None = None) -> IntArray:
    """Empty ranks filled, in `order`, with columns that are neither in the list nor in the row of `taken`. [n, k]"""
    lists, k = lists.copy(), lists.shape[1]
    for start in range(0, len(order), 4 * k):
        open_rows = np.flatnonzero(lists[:, -1] < 0)
        if not len(open_rows):
            break
        columns = order[start : start + 4 * k]
        free = ~(lists[open_rows][:, :, None] == columns).any(1)
        if taken is not None:
            free &= taken[open_rows][:, columns].toarray() == 0
        rank = (lists[open_rows] >= 0).sum(1, keepdims=True) + free.cumsum(1) - 1
        row, column = np.nonzero(free & (rank < k))
        lists[open_rows[row], rank[row, column]] = columns[column]
    return lists
