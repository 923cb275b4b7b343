"""The baseline fallback: which segment of users gets the ranker's lists, and which those of a baseline that beat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.config import FallbackConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.evaluation.intervals import p_of_best
from tgn_assets.ml.evaluation.judged_week import JudgedWeek, PairedResults, recency_weights
from tgn_assets.ml.schema import OURS

ACTIVITY_SEGMENTS = ("active", "lapsed")
"""Users with an interaction in the last `FallbackConfig.active_weeks` weeks, and the others."""
DEFAULT_BASELINE = "repeat"
"""The baseline of a segment for which no source could be compared."""


@dataclass(frozen=True)
class BaselineFallback:
    """`source` names whose list each segment gets. `hit_rate[segment][r]` is the share of users who interacted with the
    event at rank r + 1 of that source's list: of all users of the segment, inactive ones included, in the judged weeks.
    """

    source: dict[str, str]
    hit_rate: dict[str, list[float]]

    def rates(self, k: int) -> FloatArray:
        """[segments, k] hit rates by rank; ranks beyond those that were measured have the last one's."""
        return np.array([_of_length(np.array(self.hit_rate[name]), k) for name in ACTIVITY_SEGMENTS])


def segment_of(history: InteractionHistory, users: IntArray, *, active_weeks: int) -> IntArray:
    """[n] position in `ACTIVITY_SEGMENTS` of each user position, as of the close of `history.week`."""
    last = np.full(history.num_users, -1)
    np.maximum.at(last, history.user, history.week_no)
    return (last[users] <= history.week - active_weeks).astype(np.int64)


def ndcg_of(hits: BoolArray | IntArray | FloatArray, num_relevant: IntArray) -> FloatArray:
    """[n] NDCG@k of lists given as hits by rank [n, k] for users with `num_relevant` [n] >= 1 relevant events."""
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discount)[np.minimum(num_relevant, hits.shape[1]) - 1]
    return (hits * discount).sum(1) / ideal


def non_increasing(rates: FloatArray) -> FloatArray:
    """Hit rates [k] made non-increasing, so that a score never contradicts its rank: the closest such rates, which have
    the same sum.

    >>> non_increasing(np.array([0.2, 0.1, 0.3])).round(2).tolist()
    [0.2, 0.2, 0.2]
    """
    return isotonic_regression(rates, increasing=False).x


def choose_per_segment(judged: Sequence[JudgedWeek], *, config: FallbackConfig) -> BaselineFallback:
    """The fallback from the results of the ranker on closed weeks, oldest first.

    The ranker serves a segment unless a baseline beats it with `config.confidence`, whichever of the baselines that is:
    equal rankers are replaced as often as the confidence says, however many there are. Weeks are pooled with a weight
    that fades; a user who was active in several of them counts once. A segment of fewer than `config.min_users` users
    gets what is decided over all users, and keeps the ranker if there are fewer of these, too.
    """
    gains, weight, user, segment = _pooled_gains(judged, config.half_life)
    baselines = list(judged[-1].results.gain)
    of_all = _winner(gains, weight, user, baselines, config)
    source = {}
    for at, name in enumerate(ACTIVITY_SEGMENTS):
        here = segment == at
        small = len(np.unique(user[here])) < config.min_users
        source[name] = of_all if small else _winner(gains[here], weight[here], user[here], baselines, config)
    return BaselineFallback(source, _hit_rates(judged, source, config.half_life))


def best_baselines(results: PairedResults, ndcg: Mapping[str, FloatArray]) -> BaselineFallback:
    """The fallback where there is no ranker: in each segment the baseline with the best NDCG, of `ndcg` [n] by name."""
    source = {}
    for at, name in enumerate(ACTIVITY_SEGMENTS):
        here = results.segment == at
        source[name] = max(ndcg, key=lambda b: ndcg[b][here].mean()) if here.any() else DEFAULT_BASELINE
    rates = {
        name: non_increasing(results.hit_rate[chosen][at]).tolist() for at, (name, chosen) in enumerate(source.items())
    }
    return BaselineFallback(source, rates)


def untested_fallback(k: int) -> BaselineFallback:
    """The fallback where no closed week can be scored yet: a baseline for everyone, with hit rates of zero."""
    source = dict.fromkeys(ACTIVITY_SEGMENTS, DEFAULT_BASELINE)
    return BaselineFallback(source, {name: [0.0] * k for name in ACTIVITY_SEGMENTS})


def _pooled_gains(judged: Sequence[JudgedWeek], half_life: float) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """The weighted gains [n, baselines] of all users of all weeks, and the weight, user and segment [n] of each."""
    results = [one.results for one in judged]
    weight = np.repeat(recency_weights(judged, half_life), [len(one.user) for one in results])
    gain = np.concatenate([np.column_stack(list(one.gain.values())) for one in results]).astype(float)
    user, segment = (np.concatenate([getattr(one, name) for one in results]) for name in ("user", "segment"))
    return gain * weight[:, None], weight, user, segment


def _winner(
    gains: FloatArray, weight: FloatArray, user: IntArray, baselines: Sequence[str], config: FallbackConfig
) -> str:
    """The baseline that beats the ranker with the configured confidence and by the most, or else the ranker."""
    _, cluster = np.unique(user, return_inverse=True)
    size = int(cluster.max(initial=-1)) + 1
    if size < config.min_users:
        return OURS
    *of_users, weights = (np.bincount(cluster, column, size).astype(float) for column in (*gains.T, weight))
    mean, p = p_of_best(np.stack(of_users, axis=1), weights)
    won = [at for at in range(len(baselines)) if p[at] < 1 - config.confidence]
    return baselines[max(won, key=lambda at: mean[at])] if won else OURS


def _hit_rates(judged: Sequence[JudgedWeek], source: Mapping[str, str], half_life: float) -> dict[str, list[float]]:
    """Of each segment, the hit rates by rank of its source over all its users in all weeks."""
    k, found = judged[-1].results.hit_rate[OURS].shape[1], {}
    for at, name in enumerate(ACTIVITY_SEGMENTS):
        hits, users = np.zeros(k), 0.0
        for one, weight in zip(judged, recency_weights(judged, half_life), strict=True):
            members = weight * int(one.results.members[at])
            hits += members * _of_length(one.results.hit_rate[source[name]][at], k)
            users += members
        found[name] = non_increasing(hits / max(users, 1.0)).tolist()
    return found


def _of_length(rates: FloatArray, k: int) -> FloatArray:
    """[k] hit rates by rank; ranks beyond those that were measured have the last one's."""
    return np.pad(rates, (0, max(0, k - len(rates))), mode="edge")[:k]
