"""Candidate retrieval and LightGBM's LambdaRank, as a careful team would write it in a day: LightGBM as documented.

Candidates of a user: repeated items, their item-kNN neighbours and popular items, up to 60 of each. Features of a pair:
recency, frequency, co-occurrence with the user's history, the item's popularity at several half-lives, and the user's
activity. Trains on the last 8 weeks: ranks, as of the start of each, the users active in it and known before.
"""

import sys
import time
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
WEEK = 7 * 86400
WEEKS, LIMIT, NEIGHBOURS, BLOCK = 8, 60, 100, 1024
HALF_LIVES = (1.0, 4.0, 16.0)
POPULARITY_HALF_LIVES = (0.3, 1.0, 4.0)
HISTORY_HALF_LIFE = 8.0


def main(source: str, target: str) -> None:
    log = np.load(source)
    start = time.perf_counter()
    lists, pairs = recommend(log["user"], log["item"], log["ts"], int(log["cut"]))
    np.savez(target, lists=lists, seconds=time.perf_counter() - start, note=f"{pairs:,} training pairs")


def recommend(user: Ints, item: Ints, ts: Ints, week: int) -> tuple[Ints, int]:
    """([users, 5] items for the week that starts at `week`, unix seconds; pairs trained on) from rows before it."""
    rows = pd.DataFrame({"user": user, "item": item, "ts": ts})
    shape = rows.user.max() + 1, rows.item.max() + 1
    features, labels, groups = [], [], []
    for back in range(WEEKS, 0, -1):
        cut = week - back * WEEK
        truth = rows[(rows.ts >= cut) & (rows.ts < cut + WEEK)][["user", "item"]].drop_duplicates()
        past = Past(rows[rows.ts < cut], cut, shape)
        known = np.intersect1d(truth.user, past.rows.user)
        for users in _blocks(known):
            user, item, found = past.candidates(users)
            label = np.isin(user * shape[1] + item, truth.user * shape[1] + truth.item)
            features.append(found)
            labels.append(label)
            groups.append(np.unique(user, return_counts=True)[1])
    pairs = lightgbm.Dataset(np.concatenate(features), np.concatenate(labels), group=np.concatenate(groups))
    model = lightgbm.train({"objective": "lambdarank", "verbose": -1}, pairs)
    past, lists = Past(rows, week, shape), np.full((shape[0], 5), -1)
    for users in _blocks(np.arange(shape[0])):
        user, item, found = past.candidates(users)
        order = np.lexsort((-np.asarray(model.predict(found)), user))
        rank = np.arange(len(user)) - np.searchsorted(user[order], user[order])
        best = rank < 5
        lists[user[order][best], rank[best]] = item[order][best]
    return lists, sum(map(len, labels))


class Past:
    """Features of users, items and pairs as of `cut` (unix seconds), from the `rows` before it."""

    def __init__(self, rows: pd.DataFrame, cut: int, shape: tuple[int, int]) -> None:
        self.rows = rows
        age = ((cut - rows.ts) / WEEK).to_numpy()
        key, where = np.unique(rows.user.to_numpy(np.int64) * shape[1] + rows.item.to_numpy(), return_inverse=True)
        user, item = np.divmod(key, shape[1])
        last, first = np.full(len(key), np.inf), np.zeros(len(key))
        np.minimum.at(last, where, age)
        np.maximum.at(first, where, age)
        counts = [np.bincount(where, 0.5 ** (age / life)) for life in HALF_LIVES]
        self.pair = np.column_stack([np.bincount(where), last, first, *counts])
        self.position = _csr(np.arange(1, len(key) + 1), user, item, shape)  # 0: no such pair
        weight = np.bincount(where, 0.5 ** (age / HISTORY_HALF_LIFE))
        self.own = _csr(weight, user, item, shape)
        item_norm = np.sqrt(np.bincount(item, weight**2, minlength=shape[1])).clip(1e-9)
        unit = self.own @ sparse.diags_array(1 / item_norm)
        self.similar = _heaviest(sparse.csr_matrix(unit.T @ unit), NEIGHBOURS)
        decayed = [np.bincount(rows.item, 0.5 ** (age / life), minlength=shape[1]) for life in POPULARITY_HALF_LIVES]
        seen = np.bincount(item, minlength=shape[1])
        self.item = np.column_stack([*decayed, np.bincount(rows.item, minlength=shape[1]), seen])
        self.popular = np.argsort(-self.item[:, 0], kind="stable")[:LIMIT]
        last_of_user = np.full(shape[0], np.inf)
        np.minimum.at(last_of_user, rows.user, age)
        rows_of = np.bincount(rows.user, minlength=shape[0])
        self.user = np.column_stack([rows_of, np.bincount(user, minlength=shape[0]), last_of_user])

    def candidates(self, users: Ints) -> tuple[Ints, Ints, Floats]:
        """(user, item, features) of all pairs to rank for `users`, sorted by user."""
        near = sparse.csr_matrix(self.own[users] @ self.similar)
        found = [_heaviest(near, LIMIT), _heaviest(self.own[users], LIMIT)]
        everyone = np.arange(len(users))
        rows = [np.repeat(everyone, np.diff(part.indptr)) for part in found]
        keys = [row * near.shape[1] + part.indices for row, part in zip(rows, found, strict=True)]
        keys.append((everyone[:, None] * near.shape[1] + self.popular).ravel())
        row, item = np.divmod(np.unique(np.concatenate(keys)), near.shape[1])
        user = users[row]
        place = np.asarray(self.position[user, item]).ravel() - 1
        pair = np.where((place >= 0)[:, None], self.pair[place], [0, np.nan, np.nan, 0, 0, 0])
        closeness = np.asarray(near[row, item]).ravel()
        return user, item, np.column_stack([pair, closeness, self.item[item], self.user[user]])


def _csr(values: NDArray[Any], row: Ints, column: Ints, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, (row, column)), shape=shape)


def _heaviest(matrix: sparse.csr_matrix, limit: int) -> sparse.csr_matrix:
    """The `limit` largest entries of each row."""
    ends = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    kept = [low + np.argsort(-matrix.data[low:high], kind="stable")[:limit] for low, high in ends]
    row, at = np.repeat(np.arange(matrix.shape[0]), [len(part) for part in kept]), np.concatenate(kept)
    return _csr(matrix.data[at], row, matrix.indices[at], matrix.shape)


def _blocks(users: Ints) -> list[Ints]:
    return [users[at : at + BLOCK] for at in range(0, len(users), BLOCK)]


if __name__ == "__main__":
    main(*sys.argv[1:])
