"""The list for users without a history: by the kind of popularity that served new users best lately.

In some logs new users interact with what was popular in the last hours, in others with what new users have always begun
with. The newest closed weeks decide: every kind is tested on each of them, with what was known before it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.evaluation.baselines import POPULAR_HALF_LIFE, popular
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.ranker.baseline_fallback import ndcg_of, non_increasing
from tgn_assets.ml.schema import OURS, K

HALF_LIVES = (0.15, 0.3, 1.0, 4.0)
"""Weeks after which an interaction counts half: a day to a month."""
REACH = 10
"""Half-lives for which an interaction counts at least."""
TRIALS = 12
"""Closed weeks on which the kinds of popularity are compared."""
CHOICE_HALF_LIFE, RATE_HALF_LIFE = 8.0, 2.0
"""Weeks after which a trial counts half in the choice of the kind, and in the hit rates: these drift, and it takes
fewer users to know them than to know which kind is the best."""
FILL, FILL_HALF_LIFE = 1e-6, 1.0
"""Weight of an interaction of anyone, for events to which the popularity itself gives no score."""


class Popularity(NamedTuple):
    """A kind of popularity: by everyone's interactions, or by those of users in their first week."""

    half_life: float
    new_users_only: bool


POPULARITIES = tuple(Popularity(half_life, only) for only in (False, True) for half_life in HALF_LIVES)


class NewUserList(NamedTuple):
    """The list for new users, and how often lists that were chosen like it were right in the weeks of the trials."""

    events: IntArray  # [k] event positions, best first; -1 where the catalogue has no more
    source: str
    hit_rate: FloatArray  # [k] share of such lists whose event at that rank the new user interacted with


def new_user_list(history: InteractionHistory, k: int = K, rules: Rules = NO_RULES) -> NewUserList:
    """The list for the week after `history`, by the best of `POPULARITIES` and the baseline `popular`, which wins ties.

    All lists, in all weeks, hold only events that `rules` allow.
    """
    trials, newest = list[tuple[int, BoolArray, IntArray]](), np.zeros((0, k), np.int64)
    for week, newest in _lists_by_week(history, k, rules):
        trial = _trial(history, week, newest) if week < history.week else None
        if trial is not None:
            trials.append((week, *trial))
    if not trials:
        return NewUserList(popular(history, k, rules), "popular", np.zeros(k))
    age = history.week - 1 - np.array([week for week, _, _ in trials])
    of_kinds = 0.5 ** (age / CHOICE_HALF_LIFE)[:, None] * [
        [ndcg_of(of_kind, size).sum() for of_kind in hits] for _, hits, size in trials
    ]
    best = int(np.argmax(of_kinds.sum(0)))
    events = popular(history, k, rules) if best == 0 else newest[best]
    hit_rate = _hit_rates(
        [(hits.sum(1), len(size)) for _, hits, size in trials], of_kinds, 0.5 ** (age / RATE_HALF_LIFE)
    )
    return NewUserList(events, "popular" if best == 0 else OURS, non_increasing(hit_rate))


def _hit_rates(trials: Sequence[tuple[IntArray, int]], ndcg: FloatArray, weight: FloatArray) -> FloatArray:
    """[k] share of hits by rank over t trials, each of the kind that was the best in all other trials: one that was
    the best in the trial as well would look better than it is.

    `trials` are the hits [kinds, k] and the number of users of each, `ndcg` [t, kinds] weighted sums, `weight` [t].
    """
    others = ndcg.sum(0) - ndcg if len(ndcg) > 1 else ndcg
    hits = np.stack([of_trial[kind] for (of_trial, _), kind in zip(trials, others.argmax(1), strict=True)])
    users = np.array([users for _, users in trials])
    return (weight[:, None] * hits).sum(0) / (weight * users).sum()


def _trial(history: InteractionHistory, week: int, lists: IntArray) -> tuple[BoolArray, IntArray] | None:
    """Hits [1 + kinds, n, k] of the `lists` [1 + kinds, k] made at the close of `week` among the n new users of the
    week after, and how many events each of them interacted with [n]; None without new users or without a past."""
    user, event = history.in_week(week + 1)
    new = history.first_week_of_user[user] == week + 1
    _, row, size = np.unique(user[new], return_inverse=True, return_counts=True)
    if not len(size) or not len(history.week_no) or history.week_no[0] > week:
        return None
    width = history.num_events + 1
    relevant = row * width + event[new]
    shown = np.arange(len(size))[:, None] * width + lists[:, None, :]
    return np.isin(shown, relevant) & (lists >= 0)[:, None, :], size


def _lists_by_week(history: InteractionHistory, k: int, rules: Rules) -> Iterator[tuple[int, IntArray]]:
    """Yields each week of the trials and the newest one, with the lists [1 + kinds, k] of `popular` and of each of
    `POPULARITIES` as of its close: rows are read once, week by week, and what was summed of earlier ones fades."""
    first = history.week - TRIALS
    fading = 0.5 ** (1 / np.array([POPULAR_HALF_LIFE, *(kind.half_life for kind in POPULARITIES)]))
    scores = np.zeros((len(fading), history.num_events))
    fill = 1 + POPULARITIES.index(Popularity(FILL_HALF_LIFE, False))
    for week in range(first - int(REACH * max(HALF_LIVES)), history.week + 1):
        scores *= fading[:, None]
        low, high = np.searchsorted(history.week_no, [week, week + 1])
        event, since = history.event[low:high].astype(np.int64), history.since[low:high].astype(float)
        new = history.first_week_of_user[history.user[low:high]] == week
        decayed = {half_life: 0.5 ** (since / half_life) for half_life in HALF_LIVES}
        of_kinds = (decayed[kind.half_life] * (new if kind.new_users_only else 1) for kind in POPULARITIES)
        for score, weight in zip(scores, (history.count[low:high], *of_kinds), strict=True):
            score += np.bincount(event, weight, history.num_events)
        if week >= first:
            known = np.flatnonzero((history.first_week_of_event <= week) & rules.allowed(history, week))
            of_known = scores[:, known]
            of_known[1:] += FILL * of_known[fill]
            tie, row = history.event_order[known], np.zeros(len(known), np.int64)
            best = [grouped_top_k(row, score, tie, 1, k)[0] for score in of_known]
            yield week, np.append(known, -1)[best]
