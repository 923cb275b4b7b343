"""Never worse: which segment of users is served by the ranker, and which by a baseline that did better last week."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.schema import OURS, K

SEGMENTS = ("active", "lapsed")
"""Users with an interaction in the last `ACTIVE_WEEKS` weeks, and the others: known before the target week begins."""
ACTIVE_WEEKS = 4
CONFIDENCE = 0.9
"""Share of bootstrap resamples in which a baseline must win before its lists replace the ranker's.

One week of a small log says little: a lower bar would swap lists for noise.
"""
MIN_USERS = 20
"""Fewer users of a segment say nothing: a bootstrap of so few holds luck for certainty."""
RESAMPLES = 1000
FALLBACK = "repeat"


@dataclass(frozen=True)
class BaselineFallback:
    """`source` names whose list each segment gets; `hit_rate[segment][r]` is the share of all the segment's users, on
    the newest closed week, who touched the event that this source had at rank r + 1."""

    source: dict[str, str]
    hit_rate: dict[str, list[float]]

    def rates(self, k: int) -> np.ndarray:
        """[segments, k] hit rates by rank; of ranks beyond those that were tried, the last one's."""
        tried = np.array([self.hit_rate[name] for name in SEGMENTS])
        return np.pad(tried, ((0, 0), (0, max(0, k - tried.shape[1]))), mode="edge")[:, :k]

    def to_meta(self) -> dict[str, Any]:
        return {"source": self.source, "hit_rate": self.hit_rate}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "BaselineFallback":
        return cls(dict(meta["source"]), dict(meta["hit_rate"]))


def segment_of(history: InteractionHistory, users: np.ndarray) -> np.ndarray:
    """[n] position in `SEGMENTS` of each user position, as of the close of `history.week`."""
    last = np.full(history.num_users, -1)
    np.maximum.at(last, history.user, history.week_no)
    return (last[users] <= history.week - ACTIVE_WEEKS).astype(np.int64)


def ndcg_of(hits: np.ndarray, num_relevant: np.ndarray) -> np.ndarray:
    """[n] NDCG@k of lists given as hits by rank [n, k] for users with `num_relevant` [n] >= 1 relevant events."""
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discount)[np.minimum(num_relevant, hits.shape[1]) - 1]
    return (hits * discount).sum(1) / ideal


def choose_per_segment(
    segment: np.ndarray,
    ndcg: Mapping[str, np.ndarray],
    hits: Mapping[str, np.ndarray],
    came_back: np.ndarray,
    seed: int,
) -> BaselineFallback:
    """The gate from one closed week: per active user, the segment [n], each source's NDCG [n] and hits by rank [n, k];
    `came_back` is the share of each segment's users that were active.

    Ours is published unless a baseline beats it in `CONFIDENCE` of the paired bootstrap resamples of the segment's
    users, `MIN_USERS` of them or more. Where ours is not among the sources, the best baseline is.
    """
    source, hit_rate = {}, {}
    baselines = [name for name in ndcg if name != OURS]
    rng = np.random.default_rng(seed)
    for at, name in enumerate(SEGMENTS):
        here = segment == at
        best = max(baselines, key=lambda b: ndcg[b][here].mean()) if here.any() else FALLBACK
        chosen = best
        if OURS in ndcg:
            won = here.sum() >= MIN_USERS and _share_of_wins(ndcg[best][here] - ndcg[OURS][here], rng) >= CONFIDENCE
            chosen = best if won else OURS
        source[name] = chosen
        hit_rate[name] = _by_rank(hits[chosen][here] * came_back[at])
    return BaselineFallback(source, hit_rate)


def untested_fallback(k: int = K) -> BaselineFallback:
    """The gate where no closed week can be scored yet: habits for everyone who has any, and no claim of a hit rate."""
    return BaselineFallback(dict.fromkeys(SEGMENTS, FALLBACK), {name: [0.0] * k for name in SEGMENTS})


def _share_of_wins(difference: np.ndarray, rng: np.random.Generator) -> float:
    drawn = rng.integers(0, len(difference), (RESAMPLES, len(difference)), dtype=np.int32)
    return float((difference[drawn].mean(1) > 0).mean())


def _by_rank(hits: np.ndarray) -> list[float]:
    """Share of hits at each rank, made non-increasing so that a score never contradicts its rank."""
    if not len(hits):
        return [0.0] * hits.shape[1]
    return np.maximum.accumulate(hits.mean(0)[::-1])[::-1].tolist()
