"""The bar of every week: popularity, the user's own events, and item-kNN, from the same history as the model.

Lists hold event positions of the history, best first, and -1 where the catalogue has no more. `users` are user
positions; -1 stands for a user without history, who gets `popular`. Every tie goes to the event that comes
first in text order, so that a list depends on nothing but the history and the rules of what may be recommended. Inside
this module an event is a *column*: its rank in text order.

To add a baseline, write a function like `repeat` and enter it in `BASELINES`: it is then scored every week, is a
candidate for the fallback, and serves the users whom the fallback gives it.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import sparse

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.linalg.sparse import (
    NEIGHBOURS,
    blocks,
    item_similarity,
    only_columns,
    ordered,
    row_of,
    sums,
    top_n_per_row,
)
from tgn_assets.ml.parallel import map_threaded
from tgn_assets.ml.schema import K

POPULAR_HALF_LIFE = 0.3
REPEAT_HALF_LIFE = 8.0
TIE_HALF_LIFE = 1.0
KNN_HALF_LIFE = 8.0
"""Weeks after which an interaction counts half."""
KNN_EVENTS_PER_USER = 200
"""Only a user's heaviest events enter item-kNN: pairs of events cost the square of this for the busiest users."""
ROWS_PER_BLOCK = 20_000
"""Rows of the history that one thread makes profiles of at a time."""


def popular(history: InteractionHistory, k: int = K, rules: Rules = OPEN) -> IntArray:
    """The `k` events of the largest decayed count; a half-life of 0.3 weeks makes it last week's. [k]"""
    return _positions(history, _fill(np.full((1, k), -1), _by_popularity(history, rules)))[0]


def popular_lists(history: InteractionHistory, users: IntArray, k: int = K, rules: Rules = OPEN) -> IntArray:
    """`popular` for each user, without the user's own events where the rules exclude them. [n, k]"""
    if not rules.exclude_own:
        return np.tile(popular(history, k, rules), (len(users), 1))
    return filled(history, users, np.full((len(users), k), -1), rules)


def filled(history: InteractionHistory, users: IntArray, lists: IntArray, rules: Rules = OPEN) -> IntArray:
    """`lists` [n, k] of event positions with their empty places given to what is popular. [n, k]"""
    lists, short = lists.copy(), np.flatnonzero((lists < 0).any(1))
    if len(short):
        columns = np.append(history.event_order, -1)[lists[short]]
        past = history.of_users(users[short])
        taken = _user_events(past, past.count) if rules.exclude_own else None
        lists[short] = _positions(history, _fill(columns, _by_popularity(history, rules), taken))
    return lists


def repeat(history: InteractionHistory, users: IntArray, k: int = K, rules: Rules = OPEN) -> IntArray:
    """Each user's own events by decayed count, half-life 8 weeks, then `popular`. [n, k]

    Between own events of equal count the one that is more popular now comes first.
    """
    if rules.exclude_own:
        return popular_lists(history, users, k, rules)
    past = history.of_users(users)
    own = _user_events(past, past.count * _decay(history, past.week_no, REPEAT_HALF_LIFE))
    popularity = _popularity(history, TIE_HALF_LIFE)
    own.data += 1e-3 * (popularity / popularity.max(initial=np.finfo(float).tiny))[own.indices]
    own = only_columns(own, _columns(history, rules))
    return _positions(history, _fill(_top(own, k), _by_popularity(history, rules)))


def item_knn(history: InteractionHistory, users: IntArray, k: int = K, rules: Rules = OPEN) -> IntArray:
    """Item-kNN over the time-decayed user-event matrix, the user's own events included, then `popular`. [n, k]

    The matrix holds log(1 + count) of each week, decayed with a half-life of 8 weeks. An event scores its own weight
    for the user, plus the weight of each of the user's events times the shrunk cosine of the two, where an event's 100
    nearest neighbours share a weight of one. After Deshpande and Karypis, "Item-based top-N recommendation
    algorithms", TOIS 2004.
    """
    return _item_knn(history, users, k, rules)["item_knn"]


def item_knn_new(history: InteractionHistory, users: IntArray, k: int = K, rules: Rules = OPEN) -> IntArray:
    """`item_knn` without any of the user's own events: for logs in which nobody does the same thing twice. [n, k]"""
    return _item_knn(history, users, k, rules)["item_knn_new"]


Baseline = Callable[[InteractionHistory, IntArray, int, Rules], IntArray]
"""(history, user positions [n], k, rules) -> lists [n, k] of event positions, full as far as the rules allow."""

BASELINES: Mapping[str, Baseline] = {
    "popular": popular_lists,
    "repeat": repeat,
    "item_knn": item_knn,
    "item_knn_new": item_knn_new,
}
"""The registry of baselines, by their name in `source` and `model` columns."""


def all_baselines(history: InteractionHistory, users: IntArray, k: int = K, rules: Rules = OPEN) -> dict[str, IntArray]:
    """The lists [n, k] of every one of `BASELINES`; both variants of item-kNN come from one pass over neighbours."""
    both = _item_knn(history, users, k, rules)
    return {
        name: both[name] if name in both else baseline(history, users, k, rules) for name, baseline in BASELINES.items()
    }


def _item_knn(history: InteractionHistory, users: IntArray, k: int, rules: Rules) -> dict[str, IntArray]:
    columns, similar = _columns(history, rules), history.derived("item_knn", lambda: _neighbours(history))
    own, taken = _profiles(history, users)
    included = np.full((len(users), k), -1)
    left_out = included.copy()
    for low, high in blocks(np.diff(own.indptr) * NEIGHBOURS):
        near = only_columns(ordered(own[low:high] @ similar), columns)
        included[low:high] = _top(near + only_columns(own[low:high], columns), k)
        left_out[low:high] = _top(near - near.multiply(taken[low:high].astype(bool)), k)
    order = _by_popularity(history, rules)
    new = _positions(history, _fill(left_out, order, taken))
    return {"item_knn": new if rules.exclude_own else _positions(history, _fill(included, order)), "item_knn_new": new}


def _neighbours(history: InteractionHistory) -> sparse.csr_array:
    """`item_similarity` [columns, columns] of everyone's profiles, which are made in blocks of users."""

    def profile(block: tuple[int, int]) -> sparse.csr_array:
        return _profiles(history, np.arange(*block))[0]

    none = sparse.csr_array((0, history.num_events))
    profiles = map_threaded(profile, blocks(np.diff(history.user_start), ROWS_PER_BLOCK))
    return item_similarity(sparse.csr_array(sparse.vstack([none, *profiles], format="csr")))


def _profiles(history: InteractionHistory, users: IntArray) -> tuple[sparse.csr_array, sparse.csr_array]:
    """[n, columns] the heaviest events of each user, and all of them."""
    past = history.of_users(users)
    everything = _user_events(past, np.log1p(past.count) * _decay(history, past.week_no, KNN_HALF_LIFE))
    return top_n_per_row(everything, KNN_EVENTS_PER_USER), everything


def _columns(history: InteractionHistory, rules: Rules) -> BoolArray:
    """[columns] bool: the event may be recommended."""
    return rules.allowed(history)[np.argsort(history.event_order)]


def _decay(history: InteractionHistory, week_no: IntArray, half_life: float) -> FloatArray:
    # Age 0 is the newest closed week, the newest that may be known; the target week would have age -1.
    return 0.5 ** ((history.week - week_no) / half_life)


def _popularity(history: InteractionHistory, half_life: float) -> FloatArray:
    weight = history.count * _decay(history, history.week_no, half_life)
    return sums(history.event_order[history.event], weight, history.num_events)


def _by_popularity(history: InteractionHistory, rules: Rules) -> IntArray:
    order = np.argsort(-_popularity(history, POPULAR_HALF_LIFE), kind="stable")
    return order[_columns(history, rules)[order]]


def _user_events(past: UserPast, weight: FloatArray) -> sparse.csr_array:
    """The sum of `weight` [m] over the weeks, [users, columns]."""
    users, events = len(past.users), past.history.num_events
    pairs, pair = np.unique(past.place * events + past.history.event_order[past.event], return_inverse=True)
    user, column = np.divmod(pairs, max(events, 1))
    starts = np.searchsorted(user, np.arange(users + 1))
    shape = (users, events)
    return sparse.csr_array((sums(pair, weight, len(pairs)), column, starts), shape=shape)


def _top(scores: sparse.csr_array, k: int) -> IntArray:
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


def _fill(lists: IntArray, order: IntArray, taken: sparse.csr_array | None = None) -> IntArray:
    """Empty places given, in `order`, to columns that are neither in the list nor in the row of `taken`. [n, k]"""
    lists, k = lists.copy(), lists.shape[1]
    for start in range(0, len(order), 4 * k):
        open_rows = np.flatnonzero(lists[:, -1] < 0)
        if not len(open_rows):
            break
        columns = order[start : start + 4 * k]
        free = ~(lists[open_rows][:, :, None] == columns).any(1)
        if taken is not None:
            free &= taken[open_rows][:, columns].toarray() == 0
        place = (lists[open_rows] >= 0).sum(1, keepdims=True) + free.cumsum(1) - 1
        row, column = np.nonzero(free & (place < k))
        lists[open_rows[row], place[row, column]] = columns[column]
    return lists


def _positions(history: InteractionHistory, columns: IntArray) -> IntArray:
    """Event positions of columns; -1 stays -1."""
    return np.append(np.argsort(history.event_order), -1)[columns]
