"""Next week's list for every user, and the one for users without a history."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.retrieval import CHANNELS, CandidateGenerator, Candidates, UserShard
from tgn_assets.ml.config import BlendConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.baselines import (
    BaselineTables,
    baseline_lists,
    baseline_tables,
    fill_up,
    popular,
)
from tgn_assets.ml.evaluation.scored_week import RankerDiagnostics
from tgn_assets.ml.linalg.lookup import look_up
from tgn_assets.ml.linalg.per_user import group_softmax
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import ACTIVITY_SEGMENTS, segment_of
from tgn_assets.ml.ranker.blend import blend_scores
from tgn_assets.ml.ranker.calibration import Calibration
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, attributes_of, load_model
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import Boosters, load_boosters
from tgn_assets.ml.ranker.network import TopK
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, LabelledUsers, PointInTimeView, blocks_of
from tgn_assets.ml.recommend.diversity import RunnerUps, concatenated, enforce_min_distinct, find_runner_ups
from tgn_assets.ml.recommend.new_user_list import new_user_list
from tgn_assets.ml.recommend.reason_choice import ReasonChooser, Scorer
from tgn_assets.ml.recommend.reason_lists import WeekReasons, first_true
from tgn_assets.ml.recommend.reasons import POPULAR, ReasonIds, ReasonTable
from tgn_assets.ml.schema import OURS

RANKING_SHARD = 1024
"""Users that one worker ranks at a time, so that memory does not grow with the number of users."""
UNSCORED_TRIES = 4
"""Lists that may take in an event that is no user's candidate, to reach `rules.min_distinct`."""


@dataclass(frozen=True)
class Recommendations:
    """Lists for the week after `week`, best first; -1 (and a score of zero) where the catalogue is too small.

    A score is the probability that the user interacts with the event in that week. The ranker's scores were calibrated
    on the weeks that it was judged on; a baseline's score is its hit rate at that rank in them. The scores of
    the list for new users are the hit rates of such lists in the weeks they were tested on.
    """

    week: int
    users: IntArray  # [n] user positions in the history
    events: IntArray  # [n, k] event positions
    scores: FloatArray  # [n, k]
    source: np.ndarray  # [n] whose list it is: `OURS` or a baseline's name
    new_user_events: IntArray  # [k]
    new_user_scores: FloatArray  # [k]
    new_user_source: str
    reason: ReasonIds  # [n, k] in `reasons`
    new_user_reason: ReasonIds  # [k]
    reasons: ReasonTable


def recommend(
    history: InteractionHistory,
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    *,
    rules: Rules = NO_RULES,
    device: str = "cpu",
    progress: LogFn = no_log,
    attributes: AttributeTables = NO_ATTRIBUTES,
    workers: Workers = THREADS,
) -> Recommendations:
    """Makes a list for every user of `history` that `rules` do not leave out, block by block, and one for new users.

    `embeddings` are the temporal ones that `ranker` made of the same week. The ranker's baseline fallback says which
    source makes the lists of each segment. `rules` set the length of lists, the allowed events and how many different
    events all lists together hold at least. ValueError if `history` and `embeddings` are of different weeks, or the
    ranker is newer; ArtifactError if `attributes` lacks a column that the ranker was trained on.
    """
    view = PointInTimeView(history, embedding_history, ranker.config, device, rules, attributes_of(ranker, attributes))
    if not embeddings.week == view.week >= ranker.week:
        weeks = f"history of {view.week}, ranker of {ranker.week} and embeddings of {embeddings.week}"
        raise ValueError(f"{weeks} do not fit")
    everyone, k = np.arange(history.num_users), rules.k
    users = np.flatnonzero(rules.have_lists(history))
    segment = segment_of(history, everyone, active_weeks=ranker.config.fallback.active_weeks)
    source = np.array([ranker.fallback.source[name] for name in ACTIVITY_SEGMENTS], dtype=object)[segment]
    events: IntArray = np.full((len(everyone), k), -1)
    scores: FloatArray = np.zeros((len(everyone), k))
    reasons = WeekReasons(view, workers)
    reason: ReasonIds = np.full(events.shape, -1, np.int32)
    runner_ups = list[RunnerUps]()
    ranking = _Ranking(ranker, view, embeddings, workers, reasons.chooser)
    for block, lists in ranking.shards(users[source[users] == OURS], progress, "lists"):
        events[block], scores[block] = lists.events, lists.scores
        runner_ups.append(lists.runner_ups)
        reason[block] = reasons.table.add(lists.reasons)
    for name in sorted(set(source) - {OURS}):
        chosen = users[source[users] == name]
        events[chosen] = listed = _of_baseline(name, view, chosen, workers)
        scores[chosen] = np.where(listed >= 0, ranker.fallback.rates(k)[segment[chosen]], 0)
        reason[chosen] = reasons.of_baseline(name, chosen, listed)
    if len(users) and len(np.unique(events[events >= 0])) < rules.min_distinct:
        unscored, before = _unscored_pairs(history, rules, users, scores), events
        events, scores = enforce_min_distinct(events, scores, rules.min_distinct, concatenated(runner_ups), unscored)
        reason = reasons.after_changes(before, events, reason)
    for_new_users = new_user_list(history, k, rules)
    return Recommendations(
        week=history.week,
        users=users,
        events=events[users],
        scores=scores[users],
        source=source[users],
        new_user_events=for_new_users.events,
        new_user_scores=np.where(for_new_users.events >= 0, for_new_users.hit_rate, 0),
        new_user_source=for_new_users.source,
        reason=reason[users],
        new_user_reason=reasons.of_new_users(for_new_users.events),
        reasons=reasons.table,
    )


def _of_baseline(name: str, view: PointInTimeView, users: IntArray, workers: Workers) -> IntArray:
    """[n, k] the lists of the baseline `name` for user positions `users` [n]."""
    history, rules = view.past, view.rules
    listed = baseline_lists([name], history, users, rules.k, rules, workers=workers)[name]
    # A baseline that leaves out a user's own events may have nothing else left for the user.
    short = (listed < 0).any(1)
    listed[short] = fill_up(baseline_tables(history, rules.k, rules), history.of_users(users[short]), listed[short])
    return listed


def diagnose(
    history: InteractionHistory,
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    *,
    rules: Rules = NO_RULES,
    device: str = "cpu",
    attributes: AttributeTables = NO_ATTRIBUTES,
    progress: LogFn = no_log,
    workers: Workers = THREADS,
) -> RankerDiagnostics:
    """What `score_week` asks about the users who were active: candidates by channel, lists before the fallback.

    The arguments are those of `recommend`. ValueError if `embeddings` are of other nodes than `history`; ArtifactError
    if `attributes` lacks a column that the ranker was trained on.
    """
    view = PointInTimeView(history, embedding_history, ranker.config, device, rules, attributes_of(ranker, attributes))
    ranking = _Ranking(ranker, view, embeddings, workers)

    def lists(users: IntArray) -> IntArray:
        shards = ranking.shards(users, progress, "lists before the fallback")
        return np.concatenate([np.zeros((0, rules.k), np.int64), *(of_shard.events for _, of_shard in shards)])

    return RankerDiagnostics(CHANNELS, partial(_channels_of_pairs, view, workers=workers, progress=progress), lists)


def _channels_of_pairs(
    view: PointInTimeView, users: IntArray, row: IntArray, event: IntArray, *, workers: Workers, progress: LogFn
) -> BoolArray:
    """[m, channels] bool: which channels retrieved the pairs of `users[row]` and event position, [m] each."""
    order = np.argsort(row, kind="stable")
    start = np.searchsorted(row[order], np.arange(len(users) + 1))
    retrieved_by = np.zeros((len(row), len(CHANNELS)), bool)
    reporter = ProgressReporter(progress, "candidates that active users had", len(users), "user")
    blocks = list(blocks_of(np.arange(len(users)), RANKING_SHARD))
    pairs_of_block = [order[start[block[0]] : start[block[-1] + 1]] for block in blocks]
    shards = (
        LabelledUsers(view.shard(users[block]), row[pairs] - block[0], event[pairs])
        for block, pairs in zip(blocks, pairs_of_block, strict=True)
    )
    channels_of_shards = workers.map(_channels_of_shard, (view.generator, view.limit), shards)
    for block, pairs, channels in zip(blocks, pairs_of_block, channels_of_shards, strict=True):
        retrieved_by[pairs] = channels
        reporter.add(len(block))
    return retrieved_by


def _channels_of_shard(shared: tuple[CandidateGenerator, int], users: LabelledUsers) -> BoolArray:
    """[m, channels] bool: which channels retrieve the pairs of `users`."""
    generator, limit = shared
    retrieved, num_events = generator.retrieve(users.shard, limit), generator.catalogue.num_events
    key, wanted = retrieved.row * num_events + retrieved.event, users.row * num_events + users.event
    at, there = look_up(key, wanted)
    channels = np.zeros((len(wanted), len(CHANNELS)), bool)
    channels[there] = retrieved.channels[at[there]]
    return channels


class _RankingInputs(NamedTuple):
    """What the users of every shard are ranked with."""

    model: Ensemble
    boosters: Boosters
    calibration: Calibration | None
    generator: CandidateGenerator
    limit: int
    blend: BlendConfig
    events: NodeEmbeddings  # the temporal ones of all events, and of no user
    event_vectors: Tensor  # [E, dim] float32: the same
    popular: BaselineTables
    keep_runner_ups: bool
    reasons: ReasonChooser | None

    def blended(self, candidates: Candidates, network_score: FloatArray) -> FloatArray:
        """[p] the scores that candidates are ranked by."""
        return blend_scores(candidates, network_score, boosters=self.boosters, k=self.popular.k, config=self.blend)

    def probability(self, candidates: Candidates, pairs: IntArray, share: FloatArray) -> FloatArray:
        """[p] calibrated probabilities of the softmax shares [p] of `pairs` [p] of `candidates`."""
        if self.calibration is None:
            return share
        return self.calibration.probability(share, candidates.features[pairs, self.generator.user_columns])


class _RankedShard(NamedTuple):
    """The lists [n, k] of a shard of n users; reasons and runner-ups are empty where they are not asked for."""

    events: IntArray
    scores: FloatArray
    reasons: IntArray  # [n, k, WIDTH]
    runner_ups: RunnerUps


class _Ranking:
    """Ranks users of `view` with the networks and the boosters of a checkpoint and the temporal `embeddings`."""

    def __init__(
        self,
        checkpoint: RankerCheckpoint,
        view: PointInTimeView,
        embeddings: NodeEmbeddings,
        workers: Workers,
        reasons: ReasonChooser | None = None,
    ) -> None:
        if not embeddings.fits(view.past.user_idx, view.past.event_idx):
            raise ValueError(f"the embeddings of {embeddings.week} are of other nodes than those of the history")
        self.view, self.embeddings, self.workers = view, embeddings, workers
        self.shared = _RankingInputs(
            load_model(checkpoint, view.device),
            load_boosters(checkpoint.booster),
            checkpoint.calibration,
            view.generator,
            view.limit,
            view.config.blend,
            replace(embeddings, user_idx=embeddings.user_idx[:0], users=embeddings.users[:0]),
            embeddings.events.float(),
            baseline_tables(view.past, view.rules.k, view.rules),
            keep_runner_ups=view.rules.min_distinct > 0,
            reasons=reasons,
        )

    def shards(self, users: IntArray, progress: LogFn, what: str) -> Iterator[tuple[IntArray, _RankedShard]]:
        """Yields the user positions `users` in shards, in order, each with its lists."""
        reporter, blocks = ProgressReporter(progress, what, len(users), "user"), list(blocks_of(users, RANKING_SHARD))
        shards = ((self.view.shard(block), self.embeddings.users[torch.as_tensor(block)]) for block in blocks)
        for block, ranked in zip(blocks, self.workers.map(_rank, self.shared, shards), strict=True):
            yield block, ranked
            reporter.add(len(block))


def _rank(shared: _RankingInputs, users: tuple[UserShard, Tensor]) -> _RankedShard:
    """The lists of one shard with its temporal embeddings [n, dim]: the exact top k of its candidates, filled up with
    popular events where these are too few."""
    shard, temporal = users
    candidates = replace(shared.generator.candidates(shard, shared.limit), users=np.arange(len(temporal)))
    top = shared.model.predict_top_k(
        candidates,
        replace(shared.events, user_idx=torch.arange(len(temporal)), users=temporal),
        event_order=shared.generator.catalogue.event_order,
        k=shared.popular.k,
        rescore=shared.blended,
    )
    share, ranked = group_softmax(candidates.row, top.score), top.pairs >= 0
    scores = np.zeros(top.pairs.shape)
    scores[ranked] = shared.probability(candidates, top.pairs[ranked], share[top.pairs[ranked]])
    listed = np.append(candidates.event, -1)[top.pairs]  # where nothing is ranked, -1 takes the -1 at the end
    events = fill_up(shared.popular, shard.past, listed)
    runner_ups = concatenated([])
    if shared.keep_runner_ups:
        every_score = shared.probability(candidates, np.arange(len(share)), share)
        runner_ups = find_runner_ups(candidates.row, candidates.event, every_score, events, scores[:, -1])
        runner_ups = runner_ups._replace(row=shard.past.users[runner_ups.row])
    reasons = _reasons(shared, candidates, top, users=users, filled_up=np.where(ranked, -1, events))
    return _RankedShard(events, scores, reasons, runner_ups)


def _reasons(
    shared: _RankingInputs, candidates: Candidates, top: TopK, *, users: tuple[UserShard, Tensor], filled_up: IntArray
) -> IntArray:
    """[n, k, WIDTH] the reasons of the lists `top` of `users`, which were filled up with the events `filled_up` [n, k];
    without numbers if reasons are not asked for."""
    if shared.reasons is None:
        return np.zeros((*filled_up.shape, 0), np.int64)
    (shard, temporal), ranked = users, top.pairs >= 0
    reasons = first_true((shared.reasons.facts, (POPULAR,)), (shard.past, filled_up))
    reasons[ranked] = shared.reasons.choose(
        Scorer(shared.model, shared.boosters, shared.blend, shared.event_vectors),
        candidates,
        top.pairs[ranked],
        past=shard.past,
        users=temporal,
        network=top.network_score,
    )
    return reasons


def _unscored_pairs(history: InteractionHistory, rules: Rules, users: IntArray, scores: FloatArray) -> IntArray:
    """[m, 2] pairs (user, event) to reach `rules.min_distinct` where no candidate can.

    Popular events come first; each is offered to the next of the lists of `users` in ascending order of their last
    score.
    """
    events = popular(history, history.num_events, rules)
    events = events[events >= 0]
    by_last_score = users[np.argsort(scores[users, -1], kind="stable")]
    turn = np.arange(len(events) * UNSCORED_TRIES) % len(by_last_score)
    pairs = np.column_stack([by_last_score[turn], np.repeat(events, UNSCORED_TRIES)])
    return pairs[rules.permits(history, pairs[:, 0], pairs[:, 1])]
