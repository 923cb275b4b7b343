"""The neural head's training: a softmax over each user's candidates, list by list (ListNet)."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import softmax

from tgn_assets.ml.checkpoint import finite
from tgn_assets.ml.committee import Committee
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.frames import Frame, blocks_of
from tgn_assets.ml.gate import ndcg_of
from tgn_assets.ml.history import dense
from tgn_assets.ml.model import UserInteractionPredictor
from tgn_assets.ml.schema import K
from tgn_assets.ml.topk import grouped_top_k

USERS_PER_STEP = 256
USERS_PER_BLOCK = 2048
WEIGHT_DECAY = 1e-3
LAST_STEP = 1 / 3
"""Share of the learning rate with which the newest weeks are learnt from at the end."""
WARM_STEP = 2 / 3
"""The same of the passes that go on from last week's weights."""
WARM_PATIENCE = 2


def fit_network(
    model: UserInteractionPredictor,
    frames: list[Frame],
    held_out: Frame,
    config: RankerConfig,
    k: int = K,
    warm: bool = False,
) -> Iterator[dict[str, Any]]:
    """Trains with early stopping on NDCG@k of `held_out`; leaves the best weights in `model`, yields a row an epoch.

    If `warm`, it goes on from the weights in `model`, which stay where no pass makes them better; the first row is
    theirs, and has no loss.
    """
    best, epochs, patience, step = -1.0, config.epochs, config.patience, 1.0
    if warm:
        best, epochs, patience, step = _ndcg(model, held_out, k), config.warm_epochs, WARM_PATIENCE, WARM_STEP
        yield {"epoch": "start", "loss": None, "validation_ndcg": best}
    else:
        model.normalise(torch.from_numpy(np.concatenate([frame.candidates.features for frame in frames])))
    optimizer = _optimizer(model, config.learning_rate * step)
    best_state, waited = deepcopy(model.state_dict()), 0
    for epoch in range(epochs):
        loss = _pass(model, frames, optimizer)
        quality = _ndcg(model, held_out, k)
        yield {"epoch": epoch, "loss": loss, "validation_ndcg": quality}
        if quality > best:
            best, best_state, waited = quality, deepcopy(model.state_dict()), 0
        else:
            waited += 1
            if waited >= patience:
                break
    model.load_state_dict(best_state)


def catch_up(model: UserInteractionPredictor, frames: list[Frame], config: RankerConfig) -> float:
    """One careful pass over the newest weeks, the one that was held out among them; the mean loss."""
    return _pass(model, frames, _optimizer(model, config.learning_rate * LAST_STEP))


@torch.no_grad()
def network_scores(
    model: UserInteractionPredictor | Committee, frame: Frame, rows: np.ndarray | None = None
) -> np.ndarray:
    """[p] score of every candidate pair of the frame, or of those of `rows` alone, and zero for the others."""
    model.eval()
    scores = np.zeros(len(frame.label), np.float32)
    for block in blocks_of(np.arange(len(frame.truth_size)) if rows is None else rows, USERS_PER_BLOCK):
        pairs, place = frame.pairs_of(block)
        scores[pairs] = _scores(model, frame, block, pairs, place).cpu().numpy()
    return scores


def hits_of(frame: Frame, scores: np.ndarray, k: int = K) -> np.ndarray:
    """[n, k] bool: the user touched the event that `scores` [p] put at that rank."""
    top = grouped_top_k(frame.candidates.row, scores, frame.candidates.event, len(frame.truth_size), k)
    return np.append(frame.label, False)[top]


def _ndcg(model: UserInteractionPredictor, frame: Frame, k: int) -> float:
    scores = network_scores(model, frame, np.flatnonzero(frame.taught))
    return float(ndcg_of(hits_of(frame, scores, k), frame.truth_size).mean())


def _optimizer(model: UserInteractionPredictor, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)


def _pass(model: UserInteractionPredictor, frames: Sequence[Frame], optimizer: torch.optim.Optimizer) -> float:
    """One pass over all users of all frames in random order; the mean loss."""
    model.train()
    steps = [(frame, rows) for frame in frames for rows in _steps(frame)]
    total = 0.0
    for at in torch.randperm(len(steps)).tolist():
        loss = _loss(model, *steps[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return finite(total / max(len(steps), 1), "trained_ranker")


def _steps(frame: Frame) -> Iterator[np.ndarray]:
    """The rows of each step: of so many users drawn, those whose lists have a gradient.

    Steps filled up with such users alone would be fewer, each for more of them: tried, and no better.
    """
    for drawn in blocks_of(torch.randperm(len(frame.truth_size)).numpy(), USERS_PER_STEP):
        if frame.taught[drawn].any():
            yield drawn[frame.taught[drawn]]


def _loss(model: UserInteractionPredictor, frame: Frame, rows: np.ndarray) -> Tensor:
    """List-wise softmax (ListNet, top one): the touched candidates of each user, who has some, share a mass of one."""
    pairs, place = frame.pairs_of(rows)
    scores = _scores(model, frame, rows, pairs, place)
    group, label = (torch.as_tensor(x, device=scores.device) for x in (place, frame.label[pairs].astype(np.float32)))
    touched = scores.new_zeros(len(rows)).index_add_(0, group, label)
    log_probability = torch.log(softmax(scores, group, num_nodes=len(rows)) + 1e-12)
    return -(label / touched[group] * log_probability).sum() / len(rows)


def _scores(
    model: UserInteractionPredictor | Committee, frame: Frame, rows: np.ndarray, pairs: np.ndarray, place: np.ndarray
) -> Tensor:
    device = model.device
    users = model.get_temporal_embeddings(frame.sequence[rows].to(device), frame.known[rows].to(device))
    events, of_pair = dense(frame.candidates.event[pairs])
    vectors = model.event_embeddings(frame.event_vectors[events].to(device))
    user_rows, event_rows = (torch.as_tensor(rows, device=device) for rows in (place, of_pair))
    features = torch.as_tensor(frame.candidates.features[pairs], device=device)
    return model(users, vectors, user_rows, event_rows, features)
