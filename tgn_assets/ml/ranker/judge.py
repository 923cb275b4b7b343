"""Judge a ranker on the newest closed week, which it has not learned from: baseline fallback and calibration.

Both pool what was found on the weeks judged before, each by the ranker of its time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tgn_assets.ml.arrays import BoolArray, FloatArray
from tgn_assets.ml.candidates.retrieval import CandidateGenerator
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.evaluation.baselines import BASELINES, all_baselines
from tgn_assets.ml.evaluation.judged_week import JudgedWeek, PairedResults, ScoredPairs, pooled_with
from tgn_assets.ml.linalg.per_user import group_softmax
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.ranker.baseline_fallback import (
    ACTIVITY_SEGMENTS,
    BaselineFallback,
    best_baselines,
    choose_per_segment,
    ndcg_of,
    segment_of,
)
from tgn_assets.ml.ranker.blend import blend_scores
from tgn_assets.ml.ranker.calibration import Calibration, Logistic, calibrate, fit_activity
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import Boosters, lambdarank_scores
from tgn_assets.ml.ranker.listwise import hits_of, network_scores
from tgn_assets.ml.ranker.training_set import (
    LabelledUsers,
    PointInTimeView,
    RankingDataset,
    TrainingSet,
    blocks_of,
    labelled_candidates,
    sampled,
    truth_after,
)
from tgn_assets.ml.schema import OURS

USERS_CALIBRATED_TOGETHER = 512
"""Users whose lists one worker makes at a time."""


@dataclass(frozen=True)
class BlendedRanker:
    """The networks and the boosters that are judged."""

    model: Ensemble
    boosters: Boosters

    def blend(self, network: FloatArray, dataset: RankingDataset, k: int, config: RankerConfig) -> FloatArray:
        """[p] blended scores of the candidates of `dataset`, whose networks' scores are `network` [p]."""
        return blend_scores(dataset.candidates, network, boosters=self.boosters, k=k, config=config.blend)


class Judgement(NamedTuple):
    """What follows from the newest closed week, the last of `judged`, and those before. `validation` has each source's
    NDCG@k on it."""

    fallback: BaselineFallback
    calibration: Calibration | None
    validation: dict[str, float]
    judged: tuple[JudgedWeek, ...]


class _CalibrationPairs(NamedTuple):
    """Softmax share, user features and label of the pairs in the lists of some users."""

    share: FloatArray
    user_features: FloatArray
    label: BoolArray


def judge(
    ranker: BlendedRanker,
    past: Sequence[TrainingSet],
    *,
    history: InteractionHistory,
    view: PointInTimeView,
    held_out: RankingDataset,
    earlier: Sequence[JudgedWeek] = (),
    workers: Workers = THREADS,
) -> Judgement:
    """Judges `ranker` on the week after the cut-off `view`, in which the users of `held_out` were active.

    `earlier` are the weeks judged before. Who is active is learned from the `past` training sets. ValueError if one of
    `earlier` is of a later week.
    """
    results, ndcg = _results(ranker, history=history, view=view, held_out=held_out, workers=workers)
    activity, pairs = _scored_pairs(ranker, past, history=history, view=view, workers=workers)
    newest, config = JudgedWeek(view.past.week + 1, results, pairs), view.config
    judged = pooled_with(earlier, newest, weeks=config.fallback.weeks)
    fallback = choose_per_segment(judged, config=config.fallback)
    return Judgement(fallback, calibrate(activity, judged, config=config.calibration), _validation(ndcg), judged)


def judge_baselines(
    *, history: InteractionHistory, view: PointInTimeView, held_out: RankingDataset, workers: Workers
) -> Judgement:
    """The best baseline for each segment of users on the week after `view`, where there is no ranker."""
    results, ndcg = _results(None, history=history, view=view, held_out=held_out, workers=workers)
    return Judgement(best_baselines(results, ndcg), None, _validation(ndcg), ())


def _validation(ndcg: Mapping[str, FloatArray]) -> dict[str, float]:
    return {f"ndcg_{name}": float(values.mean()) for name, values in ndcg.items()}


def _results(
    ranker: BlendedRanker | None,
    *,
    history: InteractionHistory,
    view: PointInTimeView,
    held_out: RankingDataset,
    workers: Workers,
) -> tuple[PairedResults, dict[str, FloatArray]]:
    """(what the fallback is chosen from, each source's NDCG@k [n]) of the users of `held_out`."""
    users, past, rules = held_out.candidates.users, view.past, view.rules
    truth = truth_after(history, past)
    positive = truth.user * past.num_events + truth.event
    hits = {
        name: np.isin(users[:, None] * past.num_events + lists, positive) & (lists >= 0)
        for name, lists in all_baselines(past, users, rules.k, rules, workers=workers).items()
    }
    if ranker is not None:
        network, features = network_scores(ranker.model, held_out), held_out.candidates.features
        hits["network"] = hits_of(held_out, network, rules.k)
        hits["lambdarank"] = hits_of(held_out, lambdarank_scores(ranker.boosters, features), rules.k)
        hits[OURS] = hits_of(held_out, ranker.blend(network, held_out, rules.k, view.config), rules.k)
    ndcg = {name: ndcg_of(hit, held_out.num_relevant) for name, hit in hits.items()}
    everyone = segment_of(past, np.arange(past.num_users), active_weeks=view.config.fallback.active_weeks)
    segment = everyone[users]
    members = np.bincount(everyone, minlength=len(ACTIVITY_SEGMENTS))
    active = np.bincount(everyone[truth.num_relevant > 0], minlength=len(ACTIVITY_SEGMENTS))
    drawn = np.bincount(segment, minlength=len(ACTIVITY_SEGMENTS))
    # `held_out` may be a sample of the active users.
    share = (active / np.maximum(drawn * members, 1))[:, None]
    hit_rate = {
        name: share * np.stack([hit[segment == at].sum(0) for at in range(len(ACTIVITY_SEGMENTS))])
        for name, hit in hits.items()
        if name in (OURS, *BASELINES)
    }
    gain = {name: ndcg[name] - ndcg[OURS] for name in BASELINES} if ranker is not None else {}
    return PairedResults(past.user_idx[users].astype(np.int64), segment, gain, hit_rate, members), ndcg


def _scored_pairs(
    ranker: BlendedRanker,
    past: Sequence[TrainingSet],
    *,
    history: InteractionHistory,
    view: PointInTimeView,
    workers: Workers,
) -> tuple[Logistic, ScoredPairs]:
    """(the model of who is active, the pairs on the lists of a sample of all users, whether active or not)."""
    config, truth = view.config.calibration, truth_after(history, view.past)
    features = np.concatenate([training_set.user_features for training_set in past])
    activity = fit_activity(features, np.concatenate([training_set.active for training_set in past]), config=config)

    users = sampled(np.arange(view.past.num_users), config.users, view.config.seed)
    shards = (
        _CalibrationUsers(view.labelled(block, truth), *view.sequence(block))
        for block in blocks_of(users, USERS_CALIBRATED_TOGETHER)
    )
    shared = _CalibrationShared(ranker, view.generator, view.limit, view.event_vectors(), view.rules.k, view.config)
    parts = zip(*workers.map(_calibration_pairs, shared, shards), strict=True)
    share, user_features, label = (np.concatenate(part) for part in parts)
    return activity, ScoredPairs(share, activity.logit(user_features), label.astype(np.int64))


class _CalibrationShared(NamedTuple):
    ranker: BlendedRanker
    generator: CandidateGenerator
    limit: int
    event_vectors: Tensor
    k: int
    config: RankerConfig


class _CalibrationUsers(NamedTuple):
    labelled: LabelledUsers
    sequence: Tensor
    known: Tensor


def _calibration_pairs(shared: _CalibrationShared, users: _CalibrationUsers) -> _CalibrationPairs:
    candidates, label = labelled_candidates((shared.generator, shared.limit), users.labelled)
    size = len(candidates.users)
    dataset = RankingDataset(
        candidates, users.sequence, users.known, shared.event_vectors, label, np.zeros(size, np.int64)
    )
    network = network_scores(shared.ranker.model, dataset)
    score = shared.ranker.blend(network, dataset, shared.k, shared.config)
    top = grouped_top_k(candidates.row, score, candidates.event, size, shared.k)
    top = top[top >= 0]
    user_features = candidates.features[top, shared.generator.user_columns]
    return _CalibrationPairs(group_softmax(candidates.row, score)[top], user_features, label[top])
