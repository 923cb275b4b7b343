"""What judging a ranker on a closed week found, kept with the checkpoint: later weeks pool it.

A week is judged with a ranker that has learned nothing from it, once it has closed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.weeks import week_key, week_number


@dataclass(frozen=True)
class PairedResults:
    """For the n users who were active in the week: the NDCG of each baseline minus that of the ranker."""

    user: IntArray  # [n] warehouse index
    segment: IntArray  # [n] position in `ACTIVITY_SEGMENTS`
    gain: Mapping[str, FloatArray]  # baseline -> [n]
    hit_rate: Mapping[str, FloatArray]  # source -> [segments, k] share of all users with a hit at that rank
    members: IntArray  # [segments] all users, active or not


@dataclass(frozen=True)
class ScoredPairs:
    """The pairs [p] on the lists of a sample of all users, active or not: what the scores said, and what happened."""

    share: FloatArray  # [p] softmax share
    activity: FloatArray  # [p] logit of the user's activity
    label: IntArray  # [p] 1 if the user interacted with the event


@dataclass(frozen=True)
class JudgedWeek:
    """The results of a ranker on week number `week`."""

    week: int
    results: PairedResults
    pairs: ScoredPairs

    def tensors(self) -> dict[str, Tensor]:
        """All of it under names that begin with the week."""
        results, pairs = self.results, self.pairs
        arrays: dict[str, np.ndarray] = {
            "user_idx": results.user,
            "segment": results.segment,
            "members": results.members,
        }
        arrays |= {f"gain.{name}": gain.astype(np.float32) for name, gain in results.gain.items()}
        arrays |= {f"hit_rate.{name}": rate for name, rate in results.hit_rate.items()}
        arrays |= {"share": pairs.share.astype(np.float32), "activity": pairs.activity.astype(np.float32)}
        arrays["label"] = pairs.label.astype(np.int8)
        return {f"{week_key(self.week)}/{name}": torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, week: str, tensors: Mapping[str, Tensor]) -> "JudgedWeek":
        """What `tensors` gave, without the week in the names."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        of_source = {
            kind: {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{kind}.")}
            for kind in ("gain", "hit_rate")
        }
        results = PairedResults(arrays["user_idx"], arrays["segment"], members=arrays["members"], **of_source)
        return cls(week_number(week), results, ScoredPairs(arrays["share"], arrays["activity"], arrays["label"]))


def judged_tensors(judged: Iterable[JudgedWeek]) -> dict[str, Tensor]:
    """The tensors of all weeks."""
    return {name: tensor for one in judged for name, tensor in one.tensors().items()}


def judged_from_tensors(tensors: Mapping[str, Tensor]) -> tuple[JudgedWeek, ...]:
    """What `judged_tensors` gave, oldest first."""
    weeks = dict[str, dict[str, Tensor]]()
    for name, tensor in tensors.items():
        week, _, rest = name.partition("/")
        weeks.setdefault(week, {})[rest] = tensor
    return tuple(JudgedWeek.from_tensors(week, weeks[week]) for week in sorted(weeks))


def pooled_with(judged: Sequence[JudgedWeek], newest: JudgedWeek, *, weeks: int) -> tuple[JudgedWeek, ...]:
    """`newest`, and before it the weeks of `judged` that are at most `weeks` older and compare the same baselines.

    ValueError if one is of a later week: it was not closed when lists were made from `newest`.
    """
    if any(one.week > newest.week for one in judged):
        raise ValueError(f"results of a week after {week_key(newest.week)} were to be pooled with those of that week")
    names = newest.results.gain.keys()
    kept = [one for one in judged if newest.week - weeks < one.week < newest.week and one.results.gain.keys() == names]
    return (*kept, newest)


def recency_weights(judged: Sequence[JudgedWeek], half_life: float) -> list[float]:
    """The weight of each week: 1 for the newest, half of that `half_life` weeks before."""
    return [0.5 ** ((judged[-1].week - one.week) / half_life) for one in judged]
