"""Next week's list for every user, and the one for users without a history."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.retrieval import CHANNELS, Candidates, RetrievedPairs
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.baselines import BASELINES, filled
from tgn_assets.ml.evaluation.scored_week import RankerDiagnostics
from tgn_assets.ml.linalg.per_user import group_softmax
from tgn_assets.ml.parallel import map_threaded
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import ACTIVITY_SEGMENTS, segment_of
from tgn_assets.ml.ranker.blend import blend_scores
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, attributes_of, load_model
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import load_booster
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView, blocks_of
from tgn_assets.ml.recommend.diversity import RunnerUps, enforce_min_distinct, joined, runner_ups
from tgn_assets.ml.recommend.new_user_list import new_user_list
from tgn_assets.ml.schema import OURS

USERS_PER_BLOCK = 512
"""Users ranked at a time by one thread: what is held in memory is these users' candidates, however many there are."""

UNSCORED_TRIES = 4
"""Lists that are offered an event which is nobody's candidate, to bring more events into the lists."""


@dataclass(frozen=True)
class Recommendations:
    """Lists for the week after `week`, best first; -1 (and a score of zero) where the catalogue is too small.

    A score is the probability that the user interacts with the event in that week: of the ranker, the pair's softmax
    share as calibrated on the newest closed week; of a baseline, how often its lists hit at that rank then. For new
    users, who by then are there, it is how often such lists hit in the last weeks.
    """

    week: int
    users: IntArray  # [n] user positions in the history
    events: IntArray  # [n, k] event positions
    scores: FloatArray  # [n, k]
    source: np.ndarray  # [n] whose list it is: `OURS` or a baseline's name
    new_user_events: IntArray  # [k]
    new_user_scores: FloatArray  # [k]
    new_user_source: str


def recommend(
    history: InteractionHistory,
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    *,
    rules: Rules = OPEN,
    device: str = "cpu",
    progress: LogFn = no_log,
    attributes: AttributeTables = NO_ATTRIBUTES,
) -> Recommendations:
    """Ranks candidates for every user of `history`, block by block.

    `embeddings` are the temporal ones that `ranker` gave the same week. Each segment is served by the source that the
    ranker's baseline fallback chose. Lists are as long as `rules` say, hold only what they allow, and together at least
    `rules.min_distinct` different events. Raises ValueError if history and embeddings are not of one week, or the
    ranker is newer; ArtifactError if `attributes` lacks a column that the ranker was trained on.
    """
    view = PointInTimeView(
        history,
        embedding_history,
        ranker.config,
        device=device,
        rules=rules,
        attributes=attributes_of(ranker, attributes),
    )
    if not embeddings.week == view.week >= ranker.week:
        raise ValueError(
            f"history of {view.week}, ranker of {ranker.week} and embeddings of {embeddings.week} do not fit"
        )
    users, k = np.arange(history.num_users), rules.k
    segment = segment_of(history, users, active_weeks=ranker.config.fallback.active_weeks)
    source = np.array([ranker.fallback.source[name] for name in ACTIVITY_SEGMENTS], dtype=object)[segment]
    events: IntArray = np.full((len(users), k), -1)
    scores: FloatArray = np.zeros((len(users), k))
    spare, lists = list[RunnerUps](), _Ranker(ranker, view, embeddings)
    for block, ranked in lists.blocks(users[source == OURS], progress, "lists"):
        events[block], scores[block] = ranked.events, ranked.scores
        if rules.min_distinct:
            row, event = block[ranked.candidates.row], ranked.candidates.event
            spare.append(runner_ups(row, event, lists.probability(row, ranked.share), events, scores[:, -1]))
    for name in sorted(set(source) - {OURS}):
        chosen = users[source == name]
        # A baseline that leaves out a user's own events may have nothing else left for the user.
        events[chosen] = filled(history, chosen, BASELINES[name](history, chosen, k, rules), rules)
        scores[chosen] = np.where(events[chosen] >= 0, ranker.fallback.rates(k)[segment[chosen]], 0)
    if len(users) and len(np.unique(events[events >= 0])) < rules.min_distinct:
        unscored = _unscored(history, rules, scores)
        events, scores = enforce_min_distinct(events, scores, rules.min_distinct, joined(spare), unscored)
    for_new_users = new_user_list(history, k, rules)
    return Recommendations(
        week=history.week,
        users=users,
        events=events,
        scores=scores,
        source=source,
        new_user_events=for_new_users.events,
        new_user_scores=np.where(for_new_users.events >= 0, for_new_users.hit_rate, 0),
        new_user_source=for_new_users.source,
    )


def diagnose(
    history: InteractionHistory,
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    *,
    rules: Rules = OPEN,
    device: str = "cpu",
    attributes: AttributeTables = NO_ATTRIBUTES,
    progress: LogFn = no_log,
) -> RankerDiagnostics:
    """For `evaluate_week`: what `recommend` had before the baseline fallback, for the users who were then active."""
    view = PointInTimeView(
        history,
        embedding_history,
        ranker.config,
        device=device,
        rules=rules,
        attributes=attributes_of(ranker, attributes),
    ).ready()

    def found(users: IntArray, row: IntArray, event: IntArray) -> BoolArray:
        return _retrieved_by(view, users, (row, event), progress)

    def lists(users: IntArray) -> IntArray:
        blocks = _Ranker(ranker, view, embeddings).blocks(users, progress, "lists before the fallback")
        return np.concatenate([np.zeros((0, rules.k), np.int64), *(ranked.events for _, ranked in blocks)])

    return RankerDiagnostics(CHANNELS, found, lists)


def _retrieved_by(
    view: PointInTimeView, users: IntArray, pairs: tuple[IntArray, IntArray], progress: LogFn
) -> BoolArray:
    """[m, channels] bool: which channels retrieved the `pairs`, (row in `users` [m], event position [m])."""
    (row, event), num_events = pairs, view.past.num_events
    order = np.argsort(row, kind="stable")
    known = np.zeros((len(row), len(CHANNELS)), bool)
    pace = ProgressReporter(progress, "candidates that active users had", len(users), "user")

    def retrieve(block: IntArray) -> tuple[IntArray, RetrievedPairs]:
        return block, view.retrieve(users[block])

    for block, retrieved in map_threaded(retrieve, blocks_of(np.arange(len(users)), USERS_PER_BLOCK)):
        asked = order[slice(*np.searchsorted(row[order], [block[0], block[-1] + 1]))]
        pace.add(len(block))
        key = retrieved.row * num_events + retrieved.event  # ascending
        wanted = (row[asked] - block[0]) * num_events + event[asked]
        if not len(key):
            continue
        at = np.searchsorted(key, wanted).clip(max=len(key) - 1)
        known[asked] = retrieved.channels[at] & (key[at] == wanted)[:, None]
    return known


class _Ranked(NamedTuple):
    """A block of n users: lists [n, k] with their scores, and the p candidates with their softmax share [p]."""

    candidates: Candidates
    events: IntArray
    scores: FloatArray
    share: FloatArray


class _Ranker:
    """A checkpoint's networks and booster, ready to rank users of `view`, who have the temporal `embeddings`."""

    def __init__(self, checkpoint: RankerCheckpoint, view: PointInTimeView, embeddings: NodeEmbeddings) -> None:
        self.model: Ensemble = load_model(checkpoint, view.device)
        self.booster: lgb.Booster | None = load_booster(checkpoint.booster)
        self.calibration, self.view, self.embeddings = checkpoint.calibration, view.ready(), embeddings

    def blocks(self, users: IntArray, progress: LogFn, what: str) -> Iterator[tuple[IntArray, _Ranked]]:
        """The user positions `users` block by block, in order, each with its lists."""
        pace = ProgressReporter(progress, what, len(users), "user")

        def ranked(block: IntArray) -> tuple[IntArray, _Ranked]:
            return block, self.rank(block)

        for block, made in map_threaded(ranked, blocks_of(users, USERS_PER_BLOCK)):
            yield block, made
            pace.add(len(block))

    def rank(self, users: IntArray) -> _Ranked:
        """One block: an exact top-k of its candidates, then, where these are too few, what is popular."""
        view, k = self.view, self.view.rules.k
        candidates = view.candidates(users)
        row, event = candidates.row, candidates.event
        blend = partial(blend_scores, booster=self.booster, k=k, config=view.config.blend)
        top, score = self.model.predict_top_k(
            candidates, self.embeddings, event_order=view.past.event_order, k=k, rescore=blend
        )
        share = group_softmax(row, score)
        chance = self.probability(np.repeat(users, k), np.append(share, 0.0)[top].ravel()).reshape(top.shape)
        events = filled(view.past, users, np.append(event, -1)[top], view.rules)
        return _Ranked(candidates, events, np.where(events >= 0, chance, 0.0), share)

    def probability(self, users: IntArray, share: FloatArray) -> FloatArray:
        """[p] the probability that the ranker's `share` [p] stands for, of the user positions `users` [p]."""
        if self.calibration is None:
            return share
        user_features = self.view.candidate_generator.pair_features.user_features
        return self.calibration.probability(share, user_features[users])


def _unscored(history: InteractionHistory, rules: Rules, scores: FloatArray) -> IntArray:
    """[m, 2] pairs that widen the lists where no candidate can: popular events first, for the least certain lists."""
    order = filled(history, np.array([-1]), np.full((1, history.num_events), -1), replace(rules, exclude_own=False))[0]
    order = order[order >= 0]
    hesitant = np.argsort(scores[:, -1], kind="stable")
    tries = np.arange(len(order))[:, None] * UNSCORED_TRIES + np.arange(UNSCORED_TRIES)
    pairs = np.column_stack([hesitant[(tries % len(hesitant)).ravel()], np.repeat(order, UNSCORED_TRIES)])
    return pairs[rules.may(history, pairs[:, 0], pairs[:, 1])]
