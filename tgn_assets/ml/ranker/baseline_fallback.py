"""The baseline fallback: which segment of users gets the ranker's lists, and which those of a baseline that beat it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.config import FallbackConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.schema import OURS, K

ACTIVITY_SEGMENTS = ("active", "lapsed")
"""Users with an interaction in the last `FallbackConfig.active_weeks` weeks, and the others."""
DEFAULT_BASELINE = "repeat"
"""The baseline of a segment for which no source could be compared."""


@dataclass(frozen=True)
class BaselineFallback:
    """`source` names whose list each segment gets; `hit_rate[segment][r]` is the share of all the segment's users, on
    the newest closed week, who interacted with the event that this source had at rank r + 1."""

    source: dict[str, str]
    hit_rate: dict[str, list[float]]

    def rates(self, k: int) -> FloatArray:
        """[segments, k] hit rates by rank; ranks beyond those that were measured have the last one's."""
        measured = np.array([self.hit_rate[name] for name in ACTIVITY_SEGMENTS])
        return np.pad(measured, ((0, 0), (0, max(0, k - measured.shape[1]))), mode="edge")[:, :k]


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


def choose_per_segment(
    segment: IntArray,
    ndcg: Mapping[str, FloatArray],
    hits: Mapping[str, BoolArray],
    *,
    return_rate: FloatArray,
    config: FallbackConfig,
    seed: int,
) -> BaselineFallback:
    """The fallback from one closed week.

    Of its active users: the segment [n], and each source's NDCG [n] and hits by rank [n, k]. `return_rate` [segments]
    is the share of each segment's users who were active. The ranker serves a segment unless a baseline beats it in
    `config.confidence` of the paired bootstrap resamples of `config.min_users` users or more: one week of a small log
    says little. Where the ranker is not among the sources, the best baseline serves.
    """
    source, hit_rate = {}, {}
    baselines = [name for name in ndcg if name != OURS]
    rng = np.random.default_rng(seed)
    for at, name in enumerate(ACTIVITY_SEGMENTS):
        here = segment == at
        best = max(baselines, key=lambda b: ndcg[b][here].mean()) if here.any() else DEFAULT_BASELINE
        chosen = best
        if OURS in ndcg:
            won = (
                here.sum() >= config.min_users
                and _share_of_wins(ndcg[best][here] - ndcg[OURS][here], rng, config.resamples) >= config.confidence
            )
            chosen = best if won else OURS
        source[name] = chosen
        hit_rate[name] = _by_rank(hits[chosen][here] * return_rate[at])
    return BaselineFallback(source, hit_rate)


def untested_fallback(k: int = K) -> BaselineFallback:
    """The fallback where no closed week can be scored yet: a baseline for everyone, with hit rates of zero."""
    source = dict.fromkeys(ACTIVITY_SEGMENTS, DEFAULT_BASELINE)
    return BaselineFallback(source, {name: [0.0] * k for name in ACTIVITY_SEGMENTS})


def _share_of_wins(difference: FloatArray, rng: np.random.Generator, resamples: int) -> float:
    drawn = rng.integers(0, len(difference), (resamples, len(difference)), dtype=np.int32)
    return float((difference[drawn].mean(1) > 0).mean())


def _by_rank(hits: FloatArray) -> list[float]:
    """Share of hits at each rank, made non-increasing so that a score never contradicts its rank."""
    if not len(hits):
        return [0.0] * hits.shape[1]
    return np.maximum.accumulate(hits.mean(0)[::-1])[::-1].tolist()
