"""Next week's list for every user, and the one for users that nobody has met yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tgn_assets.ml import baselines
from tgn_assets.ml.embeddings import NodeEmbeddings
from tgn_assets.ml.frames import Bank, Origin, blocks_of
from tgn_assets.ml.gate import SEGMENTS, segment_of
from tgn_assets.ml.history import History
from tgn_assets.ml.model import UserInteractionPredictor
from tgn_assets.ml.ranker import RankerCheckpoint, load_model
from tgn_assets.ml.schema import OURS, K
from tgn_assets.ml.topk import grouped_top_k

USERS_PER_BLOCK = 2048
"""Users ranked at a time: what is held in memory is this many users' candidates, however many users there are."""


@dataclass(frozen=True)
class Recommendations:
    """Lists for the week after `week`, best first; -1 (and a score of zero) where the catalogue is too small.

    A score of the ranker is the share of the user's expected attention among the candidates (a softmax); one of a
    baseline is how often its lists hit at that rank on the newest closed week.
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
    history: History,
    ranker: RankerCheckpoint,
    bank: Bank,
    embeddings: NodeEmbeddings,
    k: int = K,
    progress: Callable[[str], None] = lambda _: None,
) -> Recommendations:
    """Ranks candidates for every user of `history`, block by block.

    `embeddings` are the temporal ones of the same week. Each segment is served by the source that the ranker's gate
    chose. Raises ValueError if history, ranker and embeddings are not of one week.
    """
    origin = Origin(history, bank, ranker.config)
    if not ranker.week == embeddings.week == origin.week:
        raise ValueError(
            f"history of {origin.week}, ranker of {ranker.week} and embeddings of {embeddings.week} differ"
        )
    users = np.arange(history.num_users)
    segment = segment_of(history, users)
    source = np.array([ranker.gate.source[name] for name in SEGMENTS], dtype=object)[segment]
    events, scores = np.full((len(users), k), -1), np.zeros((len(users), k))
    model, done = load_model(ranker), 0
    for block in blocks_of(users[source == OURS], USERS_PER_BLOCK):
        events[block], scores[block] = _ranked(model, origin, embeddings, block, k)
        done += len(block)
        progress(f"ranked {done:,} of {int((source == OURS).sum()):,} users")
    for name in sorted(set(source) - {OURS}):
        chosen = users[source == name]
        events[chosen] = BASELINES[name](history, chosen, k)
        hit_rate = np.array([ranker.gate.hit_rate[s] for s in SEGMENTS])[segment[chosen]]
        scores[chosen] = np.where(events[chosen] >= 0, hit_rate[:, :k], 0)
    newcomers = baselines.popular(history, k)
    return Recommendations(
        week=history.week,
        users=users,
        events=events,
        scores=scores,
        source=source,
        new_user_events=newcomers,
        new_user_scores=np.where(newcomers >= 0, np.array(ranker.gate.new_hit_rate)[:k], 0),
        new_user_source="popular",
    )


BASELINES: Mapping[str, Callable[[History, np.ndarray, int], np.ndarray]] = {
    "popular": lambda history, users, k: np.tile(baselines.popular(history, k), (len(users), 1)),
    "repeat": baselines.repeat,
    "item_knn": baselines.item_knn,
    "item_knn_new": baselines.item_knn_new,
}


@torch.no_grad()
def _ranked(
    model: UserInteractionPredictor, origin: Origin, embeddings: NodeEmbeddings, users: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """([n, k] events, [n, k] scores) of one block: an exact top-k of its candidates."""
    candidates = origin.recall.candidates(users, origin.config.candidates)
    rows, events = torch.as_tensor(candidates.users[candidates.row]), torch.as_tensor(candidates.event)
    logit = (
        model(embeddings.users[rows], embeddings.events[events], torch.from_numpy(candidates.features)).double().numpy()
    )
    best = np.full(len(users), -np.inf)
    np.maximum.at(best, candidates.row, logit)
    weight = np.exp(logit - best[candidates.row])
    share = weight / np.bincount(candidates.row, weight, len(users))[candidates.row]
    top = grouped_top_k(candidates.row, logit, origin.past.event_order[candidates.event], len(users), k)
    return np.append(candidates.event, -1)[top], np.append(share, 0.0)[top]
