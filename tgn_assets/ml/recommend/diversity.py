"""A floor under the number of different events in a week's lists, at the least loss of score.

At the last ranks of lists, an event that many lists hold is replaced by one that no list holds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tgn_assets.ml.arrays import FloatArray, IntArray


class RunnerUps(NamedTuple):
    """Pairs that came after a user's list: user row, event position and score, in no particular order."""

    row: IntArray
    event: IntArray
    score: FloatArray


PER_EVENT = 8
"""Runners-up that are kept for each event: the ones that lose least."""


def find_runner_ups(
    row: IntArray, event: IntArray, score: FloatArray, lists: IntArray, last_score: FloatArray
) -> RunnerUps:
    """The scored pairs [p] outside of their user's list that would cost that list the least: a few for each event.

    `lists` [n, k] are event positions, `last_score` [n] the score at a list's last rank.
    """
    outside = ~(lists[row] == event[:, None]).any(1)
    row, event, score = row[outside], event[outside], score[outside]
    order = np.lexsort((row, last_score[row] - score, event))
    event = event[order]
    nth = np.arange(len(event)) - np.searchsorted(event, event)
    kept = order[nth < PER_EVENT]
    return RunnerUps(row[kept], event[nth < PER_EVENT], score[kept])


def concatenated(parts: Sequence[RunnerUps]) -> RunnerUps:
    """The pairs of all blocks of users together."""
    empty = RunnerUps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return RunnerUps(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))


def enforce_min_distinct(
    lists: IntArray, scores: FloatArray, floor: int, pairs: RunnerUps, others: IntArray
) -> tuple[IntArray, FloatArray]:
    """`lists` [n, k] and `scores` with at least `floor` different events, as far as they can hold them.

    Greedily, the cheapest change first: the event at a list's last rank, if another list holds it too, is replaced by
    one of `pairs` that no list holds yet. Then come `others`, pairs [m, 2] of (row, event) without a score of their
    own, in their order. The event at the first rank stays, and each list's last rank changes before the one above it.
    """
    lists, scores = lists.copy(), scores.copy()
    events = 1 + max(part.max(initial=0) for part in (lists, pairs.event, others[:, 1]))
    held = np.bincount(lists[lists >= 0], minlength=events)
    missing = floor - int((held > 0).sum())
    for rank in range(lists.shape[1] - 1, 0, -1):
        if missing <= 0:
            break
        cost = scores[pairs.row, rank] - pairs.score
        order = np.lexsort((pairs.row, pairs.event, cost))
        scored = zip(pairs.row[order].tolist(), pairs.event[order].tolist(), pairs.score[order].tolist(), strict=True)
        unscored = ((row, event, 0.0) for row, event in others.tolist())
        changed: set[int] = set()
        for row, event, score in (*scored, *unscored):
            old = lists[row, rank]
            if missing <= 0:
                break
            if held[event] or row in changed or old < 0 or held[old] < 2:
                continue
            # A list stays in the order of its scores.
            lists[row, rank], scores[row, rank] = event, min(score, scores[row, rank])
            held[old] -= 1
            held[event] += 1
            changed.add(row)
            missing -= 1
        for row in changed:
            order_of = np.argsort(-scores[row, rank:], kind="stable") + rank
            lists[row, rank:], scores[row, rank:] = lists[row, order_of], scores[row, order_of]
    return lists, scores
