"""Next week's list for every user, and the one for users without a history."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.retrieval import CHANNELS, Candidates
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
"""Users that one thread ranks at a time, so that memory does not grow with the number of users."""
UNSCORED_TRIES = 4
"""Lists that may take in an event that is no user's candidate, to reach `rules.min_distinct`."""


@dataclass(frozen=True)
class Recommendations:
    """Lists for the week after `week`, best first; -1 (and a score of zero) where the catalogue is too small.

    A score is the probability that the user interacts with the event in that week. The ranker's scores were calibrated
    on the newest closed week; a baseline's score is its hit rate at that rank in that week. The scores of the new-user
    list are the hit rates of such lists in the weeks they were tested on.
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
    """Makes a list for every user of `history` that `rules` do not leave out, block by block, and one for new users.

    `embeddings` are the temporal ones that `ranker` made of the same week. The ranker's baseline fallback says which
    source makes the lists of each segment. `rules` set the length of lists, the allowed events and how many different
    events all lists together hold at least. ValueError if `history` and `embeddings` are of different weeks, or the
    ranker is newer; ArtifactError if `attributes` lacks a column that the ranker was trained on.
    """
    known = attributes_of(ranker, attributes)
    view = PointInTimeView(history, embedding_history, ranker.config, device, rules, known)
    if not embeddings.week == view.week >= ranker.week:
        raise ValueError(
            f"history of {view.week}, ranker of {ranker.week} and embeddings of {embeddings.week} do not fit"
        )
    everyone, users, k = np.arange(history.num_users), np.flatnonzero(rules.have_lists(history)), rules.k
    segment = segment_of(history, everyone, active_weeks=ranker.config.fallback.active_weeks)
    source = np.array([ranker.fallback.source[name] for name in ACTIVITY_SEGMENTS], dtype=object)[segment]
    events: IntArray = np.full((len(everyone), k), -1)
    scores: FloatArray = np.zeros((len(everyone), k))
    spare, lists = list[RunnerUps](), _Ranker(ranker, view, embeddings)
    for block, ranked in lists.blocks(users[source[users] == OURS], progress, "lists"):
        events[block], scores[block] = ranked.events, ranked.scores
        if rules.min_distinct:
            row, event = block[ranked.candidates.row], ranked.candidates.event
            chance = lists.probability(ranked.candidates, np.arange(len(row)), ranked.share)
            spare.append(runner_ups(row, event, chance, events, scores[:, -1]))
    for name in sorted(set(source) - {OURS}):
        chosen = users[source[users] == name]
        # A baseline that leaves out a user's own events may have nothing else left for the user.
        events[chosen] = filled(history, chosen, BASELINES[name](history, chosen, k, rules), rules)
        scores[chosen] = np.where(events[chosen] >= 0, ranker.fallback.rates(k)[segment[chosen]], 0)
    if len(users) and len(np.unique(events[events >= 0])) < rules.min_distinct:
        unscored = _unscored(history, rules, users, scores)
        events, scores = enforce_min_distinct(events, scores, rules.min_distinct, joined(spare), unscored)
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
    """What `evaluate_week` asks about the users who were active: candidates by channel, lists before the fallback."""
    known = attributes_of(ranker, attributes)
    view = PointInTimeView(history, embedding_history, ranker.config, device, rules, known).ready()

    def lists(users: IntArray) -> IntArray:
        blocks = _Ranker(ranker, view, embeddings).blocks(users, progress, "lists before the fallback")
        return np.concatenate([np.zeros((0, rules.k), np.int64), *(ranked.events for _, ranked in blocks)])

    return RankerDiagnostics(CHANNELS, partial(_retrieved_by, view, progress), lists)


def _retrieved_by(view: PointInTimeView, progress: LogFn, users: IntArray, row: IntArray, event: IntArray) -> BoolArray:
    """[m, channels] bool: which channels retrieved the pairs of `users[row]` and event position, [m] each."""
    order, num_events = np.argsort(row, kind="stable"), view.past.num_events
    found = np.zeros((len(row), len(CHANNELS)), bool)
    reporter = ProgressReporter(progress, "candidates that active users had", len(users), "user")
    blocks = blocks_of(np.arange(len(users)), USERS_PER_BLOCK)
    for block, retrieved in map_threaded(lambda block: (block, view.retrieve(users[block])), blocks):
        asked = order[slice(*np.searchsorted(row[order], [block[0], block[-1] + 1]))]
        key = retrieved.row * num_events + retrieved.event  # ascending
        wanted = (row[asked] - block[0]) * num_events + event[asked]
        at = np.searchsorted(key, wanted)
        here = np.append(key, -1)[at] == wanted
        found[asked[here]] = retrieved.channels[at[here]]
        reporter.add(len(block))
    return found


class _Ranked(NamedTuple):
    """The lists [n, k] of a block of n users with their scores, and all p candidates with their softmax shares [p]."""

    candidates: Candidates
    events: IntArray
    scores: FloatArray
    share: FloatArray


class _Ranker:
    """Ranks users of `view` with the networks and the booster of a checkpoint and the temporal `embeddings`."""

    def __init__(self, checkpoint: RankerCheckpoint, view: PointInTimeView, embeddings: NodeEmbeddings) -> None:
        if not embeddings.fits(view.past.user_idx, view.past.event_idx):
            raise ValueError(f"the embeddings of {embeddings.week} are of other nodes than those of the history")
        self.model: Ensemble = load_model(checkpoint, view.device)
        self.booster: lgb.Booster | None = load_booster(checkpoint.booster)
        self.calibration, self.view, self.embeddings = checkpoint.calibration, view.ready(), embeddings

    def blocks(self, users: IntArray, progress: LogFn, what: str) -> Iterator[tuple[IntArray, _Ranked]]:
        """Yields the user positions `users` in blocks, in order, each with its lists."""
        reporter = ProgressReporter(progress, what, len(users), "user")
        for block, ranked in map_threaded(lambda block: (block, self.rank(block)), blocks_of(users, USERS_PER_BLOCK)):
            yield block, ranked
            reporter.add(len(block))

    def rank(self, users: IntArray) -> _Ranked:
        """Ranks one block: the exact top k of its candidates, filled up with popular events where these are too few."""
        view, k = self.view, self.view.rules.k
        candidates = view.candidates(users)
        row, event = candidates.row, candidates.event
        blend = partial(blend_scores, booster=self.booster, k=k, config=view.config.blend)
        top, score = self.model.predict_top_k(
            candidates, self.embeddings, event_order=view.past.event_order, k=k, rescore=blend
        )
        share = group_softmax(row, score)
        there, chance = top >= 0, np.zeros(top.shape)
        chance[there] = self.probability(candidates, top[there], share[top[there]])
        events = filled(view.past, users, np.append(event, -1)[top], view.rules)
        return _Ranked(candidates, events, chance, share)

    def probability(self, candidates: Candidates, pairs: IntArray, share: FloatArray) -> FloatArray:
        """[p] calibrated probabilities of the softmax shares [p] of `pairs` [p] of `candidates`."""
        if self.calibration is None:
            return share
        columns = self.view.candidate_generator.user_columns
        return self.calibration.probability(share, candidates.features[pairs, columns])


def _unscored(history: InteractionHistory, rules: Rules, users: IntArray, scores: FloatArray) -> IntArray:
    """[m, 2] pairs (user, event) to reach `rules.min_distinct` where no candidate can.

    Popular events come first; each is offered to the next of the lists of `users` in ascending order of their last
    score.
    """
    order = filled(history, np.array([-1]), np.full((1, history.num_events), -1), replace(rules, exclude_own=False))[0]
    order = order[order >= 0]
    hesitant = users[np.argsort(scores[users, -1], kind="stable")]
    tries = np.arange(len(order))[:, None] * UNSCORED_TRIES + np.arange(UNSCORED_TRIES)
    pairs = np.column_stack([hesitant[(tries % len(hesitant)).ravel()], np.repeat(order, UNSCORED_TRIES)])
    return pairs[rules.may(history, pairs[:, 0], pairs[:, 1])]
