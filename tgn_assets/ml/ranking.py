"""Next week's list for every user, and the one for users that nobody has met yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tgn_assets.ml import baselines
from tgn_assets.ml.blend import blended, shares
from tgn_assets.ml.boosting import tree_scores
from tgn_assets.ml.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation import Inside
from tgn_assets.ml.frames import Bank, Origin, blocks_of
from tgn_assets.ml.gate import SEGMENTS, segment_of
from tgn_assets.ml.history import History
from tgn_assets.ml.model import UserInteractionPredictor
from tgn_assets.ml.newcomers import newcomer_list
from tgn_assets.ml.ranker import RankerCheckpoint, load_model
from tgn_assets.ml.recall import CHANNELS, Candidates
from tgn_assets.ml.schema import OURS, K
from tgn_assets.ml.topk import grouped_top_k

USERS_PER_BLOCK = 2048
"""Users ranked at a time: what is held in memory is this many users' candidates, however many users there are."""


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
    history: History,
    ranker: RankerCheckpoint,
    bank: Bank,
    embeddings: NodeEmbeddings,
    k: int = K,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> Recommendations:
    """Ranks candidates for every user of `history`, block by block.

    `embeddings` are the temporal ones of the same week. Each segment is served by the source that the ranker's gate
    chose. Raises ValueError if history, ranker and embeddings are not of one week.
    """
    origin = Origin(history, bank, ranker.config, device)
    if not ranker.week == embeddings.week == origin.week:
        raise ValueError(
            f"history of {origin.week}, ranker of {ranker.week} and embeddings of {embeddings.week} differ"
        )
    users = np.arange(history.num_users)
    segment = segment_of(history, users)
    source = np.array([ranker.gate.source[name] for name in SEGMENTS], dtype=object)[segment]
    events, scores = np.full((len(users), k), -1), np.zeros((len(users), k))
    model, done = load_model(ranker, device), 0
    for block in blocks_of(users[source == OURS], USERS_PER_BLOCK):
        _, events[block], scores[block] = _ranked(model, ranker, origin, embeddings, block, k)
        done += len(block)
        progress(f"ranked {done:,} of {int((source == OURS).sum()):,} users")
    for name in sorted(set(source) - {OURS}):
        chosen = users[source == name]
        events[chosen] = BASELINES[name](history, chosen, k)
        hit_rate = np.array([ranker.gate.hit_rate[s] for s in SEGMENTS])[segment[chosen]]
        scores[chosen] = np.where(events[chosen] >= 0, hit_rate[:, :k], 0)
    newcomers = newcomer_list(history, k)
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


BASELINES: Mapping[str, Callable[[History, np.ndarray, int], np.ndarray]] = {
    "popular": lambda history, users, k: np.tile(baselines.popular(history, k), (len(users), 1)),
    "repeat": baselines.repeat,
    "item_knn": baselines.item_knn,
    "item_knn_new": baselines.item_knn_new,
}


def look_inside(
    history: History,
    ranker: RankerCheckpoint,
    bank: Bank,
    embeddings: NodeEmbeddings,
    k: int = K,
    device: str = "cpu",
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Inside]:
    """For `evaluate_week`: what `recommend` had before the gate, asked for the users that were then active."""
    origin, model = Origin(history, bank, ranker.config, device), load_model(ranker, device)

    def answer(users: np.ndarray, row: np.ndarray, event: np.ndarray) -> Inside:
        order = np.argsort(row, kind="stable")
        lists, found = np.full((len(users), k), -1), np.zeros((len(row), len(CHANNELS)), bool)
        for block in blocks_of(np.arange(len(users)), USERS_PER_BLOCK):
            candidates, lists[block], _ = _ranked(model, ranker, origin, embeddings, users[block], k)
            asked = order[slice(*np.searchsorted(row[order], [block[0], block[-1] + 1]))]
            key = candidates.row * history.num_events + candidates.event  # ascending
            wanted = (row[asked] - block[0]) * history.num_events + event[asked]
            at = np.searchsorted(key, wanted).clip(max=len(key) - 1)
            found[asked] = candidates.channels[at] & (key[at] == wanted)[:, None]
        return Inside(lists, found, CHANNELS)

    return answer


@torch.no_grad()
def _ranked(
    model: UserInteractionPredictor,
    ranker: RankerCheckpoint,
    origin: Origin,
    embeddings: NodeEmbeddings,
    users: np.ndarray,
    k: int,
) -> tuple[Candidates, np.ndarray, np.ndarray]:
    """(candidates, [n, k] events, [n, k] scores) of one block: an exact top-k of its candidates."""
    candidates = origin.recall.candidates(users, origin.config.candidates)
    row, event = candidates.row, candidates.event
    device = model.gate.device
    network = model(
        embeddings.users[torch.as_tensor(users)].to(device)[torch.as_tensor(row, device=device)],
        embeddings.events[torch.as_tensor(event)].to(device),
        torch.as_tensor(candidates.features, device=device),
    )
    score = blended(row, network.cpu().numpy(), tree_scores(ranker.trees, candidates.features))
    top = grouped_top_k(row, score, origin.past.event_order[event], len(users), k)
    share = np.append(shares(row, score), 0.0)[top]
    if ranker.calibration is not None:
        user_features = np.repeat(origin.recall.evidence.user_features[users], k, axis=0)
        share = ranker.calibration.probability(share.ravel(), user_features).reshape(share.shape)
    return candidates, np.append(event, -1)[top], np.where(top >= 0, share, 0.0)
