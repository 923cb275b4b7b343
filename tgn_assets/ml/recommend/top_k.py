"""Next week's list for every user, and the one for users that nobody has met yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.candidates.retrieval import CHANNELS, Candidates, RetrievedPairs
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation import baselines
from tgn_assets.ml.evaluation.baselines import filled
from tgn_assets.ml.evaluation.evaluate import RankerDiagnostics
from tgn_assets.ml.linalg.per_user import group_softmax
from tgn_assets.ml.parallel import map_threaded
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import ACTIVITY_SEGMENTS, segment_of
from tgn_assets.ml.ranker.blend import blend_scores
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, attributes_of, load_model
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import load_booster
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView, blocks_of
from tgn_assets.ml.recommend.cold_start import newcomer_list
from tgn_assets.ml.recommend.diversity import RunnerUps, enforce_min_distinct, joined, runner_ups
from tgn_assets.ml.schema import OURS

USERS_PER_BLOCK = 512
"""Users ranked at a time by one thread: what is held in memory is these users' candidates, however many there are."""

UNSCORED_TRIES = 4
"""Lists that are offered an event which is nobody's candidate, to bring more events into the lists."""


@dataclass(frozen=True)
class Recommendations:
    """Lists for the week after `week`, best first; -1 (and a score of zero) where the catalogue is too small.

    A score is the probability that the user touches the event in that week: of the ranker, its share of the user's
    attention as calibrated on the newest closed week; of a baseline, how often its lists hit at that rank then. For new
    users, who by then are there, it is how often such lists hit in the last weeks.
    """

    week: int
    users: np.ndarray  # [n] user positions in the history
    events: np.ndarray  # [n, k] event positions
    scores: np.ndarray  # [n, k]
    source: np.ndarray  # [n] whose list it is: `OURS` or a baseline's name
    new_user_events: np.ndarray  # [k]
    new_user_scores: np.ndarray  # [k]
    new_user_source: str


def recommend(
    history: InteractionHistory,
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    rules: Rules = OPEN,
    device: str = "cpu",
    progress: LogFn = no_log,
    attributes: AttributeTables = NO_ATTRIBUTES,
) -> Recommendations:
    """Ranks candidates for every user of `history`, block by block.

    `embeddings` are the temporal ones that `ranker` gave the same week. Each segment is served by the source that the
    ranker's gate chose. Lists are as long as `rules` say, hold only what they allow, and together as many events as
    they demand. Raises ValueError if history and embeddings are not of one week, or the ranker is newer;
    ArtifactError if `attributes` lacks a column that the ranker learnt from.
    """
    view, k = (
        PointInTimeView(
            history,
            embedding_history,
            ranker.config,
            device=device,
            rules=rules,
            attributes=attributes_of(ranker, attributes),
        ),
        rules.k,
    )
    if not embeddings.week == view.week >= ranker.week:
        raise ValueError(
            f"history of {view.week}, ranker of {ranker.week} and embeddings of {embeddings.week} do not fit"
        )
    users = np.arange(history.num_users)
    segment = segment_of(history, users, active_weeks=ranker.config.fallback.active_weeks)
    source = np.array([ranker.fallback.source[name] for name in ACTIVITY_SEGMENTS], dtype=object)[segment]
    events, scores = np.full((len(users), k), -1), np.zeros((len(users), k))
    model, trees, spare = load_model(ranker, device), load_booster(ranker.booster), list[RunnerUps]()
    ours, view = users[source == OURS], view.ready()
    pace = ProgressReporter(progress, "lists", len(ours), "user")

    def ranked_block(block: np.ndarray) -> tuple[np.ndarray, _Ranked]:
        return block, _ranked(model, trees, ranker, view, embeddings, block)

    for block, ranked in map_threaded(ranked_block, blocks_of(ours, USERS_PER_BLOCK)):
        events[block], scores[block] = ranked.events, ranked.scores
        if rules.min_distinct:
            row, event = ranked.candidates.row, ranked.candidates.event
            chance = _probability(ranker, view, block[row], ranked.share)
            spare.append(runner_ups(block[row], event, chance, events, scores[:, -1]))
        pace.add(len(block))
    for name in sorted(set(source) - {OURS}):
        chosen = users[source == name]
        # A rule that leaves out a user's own events may have nothing else left for the user.
        events[chosen] = filled(history, chosen, BASELINES[name](history, chosen, k, rules), rules)
        scores[chosen] = np.where(events[chosen] >= 0, ranker.fallback.rates(k)[segment[chosen]], 0)
    if len(users) and len(np.unique(events[events >= 0])) < rules.min_distinct:
        events, scores = enforce_min_distinct(
            events, scores, rules.min_distinct, joined(spare), _unscored(history, rules, scores)
        )
    newcomers = newcomer_list(history, k, rules)
    return Recommendations(
        week=history.week,
        users=users,
        events=events,
        scores=scores,
        source=source,
        new_user_events=newcomers.events,
        new_user_scores=np.where(newcomers.events >= 0, newcomers.hit_rate, 0),
        new_user_source=newcomers.source,
    )


BASELINES: Mapping[str, Callable[[InteractionHistory, np.ndarray, int, Rules], np.ndarray]] = {
    "popular": baselines.popular_lists,
    "repeat": baselines.repeat,
    "item_knn": baselines.item_knn,
    "item_knn_new": baselines.item_knn_new,
}


def diagnose(
    history: InteractionHistory,
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    rules: Rules = OPEN,
    device: str = "cpu",
    attributes: AttributeTables = NO_ATTRIBUTES,
    progress: LogFn = no_log,
) -> RankerDiagnostics:
    """For `evaluate_week`: what `recommend` had before the gate, asked for the users that were then active."""
    view = PointInTimeView(
        history,
        embedding_history,
        ranker.config,
        device=device,
        rules=rules,
        attributes=attributes_of(ranker, attributes),
    ).ready()

    def found(users: np.ndarray, row: np.ndarray, event: np.ndarray) -> np.ndarray:
        order = np.argsort(row, kind="stable")
        known = np.zeros((len(row), len(CHANNELS)), bool)
        pace = ProgressReporter(progress, "candidates that active users had", len(users), "user")

        def recalled(block: np.ndarray) -> tuple[np.ndarray, RetrievedPairs]:
            return block, view.retrieve(users[block])

        for block, had in map_threaded(recalled, blocks_of(np.arange(len(users)), USERS_PER_BLOCK)):
            asked = order[slice(*np.searchsorted(row[order], [block[0], block[-1] + 1]))]
            pace.add(len(block))
            key = had.row * history.num_events + had.event  # ascending
            wanted = (row[asked] - block[0]) * history.num_events + event[asked]
            if not len(key):
                continue
            at = np.searchsorted(key, wanted).clip(max=len(key) - 1)
            known[asked] = had.channels[at] & (key[at] == wanted)[:, None]
        return known

    def lists(users: np.ndarray) -> np.ndarray:
        model, trees = load_model(ranker, device), load_booster(ranker.booster)
        made, pace = (
            [np.zeros((0, rules.k), np.int64)],
            ProgressReporter(progress, "lists before the gate", len(users), "user"),
        )
        for events in map_threaded(
            lambda block: _ranked(model, trees, ranker, view, embeddings, block).events,
            blocks_of(users, USERS_PER_BLOCK),
        ):
            made.append(events)
            pace.add(len(events))
        return np.concatenate(made)

    return RankerDiagnostics(CHANNELS, found, lists)


class _Ranked(NamedTuple):
    """One block of n users: lists [n, k] with their scores, and the p candidates with their share of the attention."""

    candidates: Candidates
    events: np.ndarray
    scores: np.ndarray
    share: np.ndarray


def _ranked(
    model: Ensemble,
    trees: lgb.Booster | None,
    ranker: RankerCheckpoint,
    view: PointInTimeView,
    embeddings: NodeEmbeddings,
    users: np.ndarray,
) -> _Ranked:
    """One block: an exact top-k of its candidates, then, where these are too few, what is popular."""
    candidates, k = view.candidates(users), view.rules.k
    row, event = candidates.row, candidates.event
    blend = partial(blend_scores, booster=trees, k=k, config=ranker.config.blend)
    top, score = model.predict_top_k(candidates, embeddings, event_order=view.past.event_order, k=k, rescore=blend)
    share = group_softmax(row, score)
    chance = _probability(ranker, view, np.repeat(users, k), np.append(share, 0.0)[top].ravel()).reshape(top.shape)
    events = filled(view.past, users, np.append(event, -1)[top], view.rules)
    return _Ranked(candidates, events, np.where(events >= 0, chance, 0.0), share)


def _probability(ranker: RankerCheckpoint, view: PointInTimeView, users: np.ndarray, share: np.ndarray) -> np.ndarray:
    """[p] what the ranker's `share` [p] means for the user positions `users` [p]."""
    if ranker.calibration is None:
        return share
    return ranker.calibration.probability(share, view.candidate_generator.pair_features.user_features[users])


def _unscored(history: InteractionHistory, rules: Rules, scores: np.ndarray) -> np.ndarray:
    """[m, 2] pairs that widen the lists where no candidate can: popular events first, for the least certain lists."""
    order = filled(history, np.array([-1]), np.full((1, history.num_events), -1), replace(rules, exclude_own=False))[0]
    order = order[order >= 0]
    hesitant = np.argsort(scores[:, -1], kind="stable")
    tries = np.arange(len(order))[:, None] * UNSCORED_TRIES + np.arange(UNSCORED_TRIES)
    pairs = np.column_stack([hesitant[(tries % len(hesitant)).ravel()], np.repeat(order, UNSCORED_TRIES)])
    return pairs[rules.may(history, pairs[:, 0], pairs[:, 1])]
