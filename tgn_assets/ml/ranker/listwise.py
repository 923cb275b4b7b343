"""The neural head's training: a softmax over each user's candidates, list by list (ListNet)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import softmax

from tgn_assets.ml.artifact_io import finite
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.interactions import dense
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.parallel import workers
from tgn_assets.ml.ranker.baseline_fallback import ndcg_of
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.training_set import RankingDataset, blocks_of
from tgn_assets.ml.schema import K

USERS_PER_STEP = 256
USERS_PER_PART = 64
"""Users of a step whose lists are computed together: parts are dealt out to threads, which need not wait for each other
after each operation, as those of torch do."""
USERS_PER_BLOCK = 512
WEIGHT_DECAY = 1e-3
LAST_STEP = 1 / 3
"""Share of the learning rate with which the newest weeks are learnt from at the end."""
WARM_STEP = 2 / 3
"""The same of the passes that go on from last week's weights."""
WARM_PATIENCE = 2
WARM_GAIN = 0.002
"""Of validation NDCG, relative: a pass that goes on from last week's weights and gains less is no reason for more."""


def fit_network(
    model: UserInteractionPredictor,
    datasets: list[RankingDataset],
    held_out: RankingDataset,
    config: RankerConfig,
    k: int = K,
    warm: bool = False,
    learnt: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Trains with early stopping on NDCG@k of `held_out`; leaves the best weights in `model`, yields a row an epoch.

    If `warm`, it goes on from the weights in `model`, which stay where no pass makes them better; the first row is
    theirs, and has no loss. `learnt` is told after each step from how many lists; all of them are `lists_in(datasets)`.
    """
    best, epochs, patience, step, gain = -1.0, config.epochs, config.patience, 1.0, 0.0
    if warm:
        best, epochs, patience, step = _ndcg(model, held_out, k), config.warm_epochs, WARM_PATIENCE, WARM_STEP
        gain = WARM_GAIN
        yield {"epoch": "start", "loss": None, "validation_ndcg": best}
    else:
        model.normalise(torch.from_numpy(np.concatenate([dataset.candidates.features for dataset in datasets])))
    optimizer = _optimizer(model, config.learning_rate * step)
    best_state, waited, enough = deepcopy(model.state_dict()), 0, best * (1 + gain)
    for epoch in range(epochs):
        loss = _pass(model, datasets, optimizer, learnt)
        quality = _ndcg(model, held_out, k)
        yield {"epoch": epoch, "loss": loss, "validation_ndcg": quality}
        if quality > best:
            best, best_state = quality, deepcopy(model.state_dict())
        if quality > enough:
            waited, enough = 0, quality * (1 + gain)
        else:
            waited += 1
            if waited >= patience:
                break
    model.load_state_dict(best_state)


def lists_in(datasets: Sequence[RankingDataset]) -> int:
    """Lists that one pass over `datasets` learns from."""
    return sum(int(dataset.has_positive.sum()) for dataset in datasets)


def finetune_on_recent_weeks(
    model: UserInteractionPredictor, datasets: list[RankingDataset], config: RankerConfig
) -> float:
    """One careful pass over the newest weeks, the one that was held out among them; the mean loss."""
    return _pass(model, datasets, _optimizer(model, config.learning_rate * LAST_STEP))


def network_scores(
    model: UserInteractionPredictor | Ensemble, dataset: RankingDataset, rows: np.ndarray | None = None
) -> np.ndarray:
    """[p] score of every candidate pair of the frame, or of those of `rows` alone, and zero for the others."""
    model.eval()
    scores = np.zeros(len(dataset.label), np.float32)

    @torch.no_grad()
    def of_block(block: np.ndarray) -> None:
        users = model.get_temporal_embeddings(*(x[block].to(model.device) for x in (dataset.sequence, dataset.known)))
        pairs, place = dataset.pairs_of(block)
        scores[pairs] = _scores(model, dataset, users, pairs, place).cpu().numpy()

    rows = np.arange(len(dataset.num_relevant)) if rows is None else rows
    with workers() as pool:
        list(pool.map(of_block, blocks_of(rows, USERS_PER_BLOCK)))
    return scores


def hits_of(dataset: RankingDataset, scores: np.ndarray, k: int = K) -> np.ndarray:
    """[n, k] bool: the user touched the event that `scores` [p] put at that rank."""
    top = grouped_top_k(dataset.candidates.row, scores, dataset.candidates.event, len(dataset.num_relevant), k)
    return np.append(dataset.label, False)[top]


def _ndcg(model: UserInteractionPredictor, dataset: RankingDataset, k: int) -> float:
    scores = network_scores(model, dataset, np.flatnonzero(dataset.has_positive))
    return float(ndcg_of(hits_of(dataset, scores, k), dataset.num_relevant).mean())


def _optimizer(model: UserInteractionPredictor, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)


def _pass(
    model: UserInteractionPredictor,
    datasets: Sequence[RankingDataset],
    optimizer: torch.optim.Optimizer,
    learnt: Callable[[int], None] = lambda _: None,
) -> float:
    """One pass over all users of all frames in random order; the mean loss."""
    model.train()
    steps = [(dataset, rows) for dataset in datasets for rows in _steps(dataset)]
    total = 0.0
    with workers() as pool:
        for at in torch.randperm(len(steps)).tolist():
            dataset, rows = steps[at]
            optimizer.zero_grad()
            total += _learn(model, dataset, rows, pool).item()
            optimizer.step()
            learnt(len(rows))
    return finite(total / max(len(steps), 1), "trained_ranker")


def _steps(dataset: RankingDataset) -> Iterator[np.ndarray]:
    """The rows of each step: of so many users drawn, those whose lists have a gradient.

    Steps filled up with such users alone would be fewer, each for more of them: tried, and no better.
    """
    for drawn in blocks_of(torch.randperm(len(dataset.num_relevant)).numpy(), USERS_PER_STEP):
        if dataset.has_positive[drawn].any():
            yield drawn[dataset.has_positive[drawn]]


def _learn(
    model: UserInteractionPredictor, dataset: RankingDataset, rows: np.ndarray, pool: ThreadPoolExecutor
) -> Tensor:
    """The mean loss of the lists of `rows`, whose gradient is left in the model.

    All that is drawn is drawn for all rows at once, and what parts of them add is added in their order, so that the
    gradient is the same bytes however many threads `pool` has.
    """
    users = model.get_temporal_embeddings(*(x[rows].to(model.device) for x in (dataset.sequence, dataset.known)))
    weights = list(model.parameters())

    def of_part(part: np.ndarray) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        own = users.detach()[part].requires_grad_()
        loss = _loss(model, dataset, rows[part], own) / len(rows)
        return loss.detach(), torch.autograd.grad(loss, [own, *weights], allow_unused=True)

    size = USERS_PER_PART if model.device.type == "cpu" else len(rows)
    losses, gradients = zip(*pool.map(of_part, blocks_of(np.arange(len(rows)), size)), strict=True)
    of_users, *of_weights = zip(*gradients, strict=True)
    users.backward(torch.cat(of_users))
    for weight, parts in zip(weights, of_weights, strict=True):
        if parts[0] is not None:  # a weight that the lists are computed with, and not only their users
            weight.grad = torch.stack(parts).sum(0)
    return torch.stack(losses).sum()


def _loss(model: UserInteractionPredictor, dataset: RankingDataset, rows: np.ndarray, users: Tensor) -> Tensor:
    """Sum of list-wise softmax losses (ListNet, top one): the touched candidates of each user of `rows`, who has some,
    share a mass of one. `users` [n, dim] are their temporal embeddings."""
    pairs, place = dataset.pairs_of(rows)
    scores = _scores(model, dataset, users, pairs, place)
    group, label = (torch.as_tensor(x, device=scores.device) for x in (place, dataset.label[pairs].astype(np.float32)))
    touched = scores.new_zeros(len(rows)).index_add_(0, group, label)
    log_probability = torch.log(softmax(scores, group, num_nodes=len(rows)) + 1e-12)
    return -(label / touched[group] * log_probability).sum()


def _scores(
    model: UserInteractionPredictor | Ensemble,
    dataset: RankingDataset,
    users: Tensor,
    pairs: np.ndarray,
    place: np.ndarray,
) -> Tensor:
    """[p] scores of the candidate `pairs` [p], each with the place [p] of its user among the embeddings `users`."""
    device = model.device
    events, of_pair = dense(dataset.candidates.event[pairs])
    vectors = model.event_embeddings(dataset.event_vectors[events].to(device))
    user_rows, event_rows = (torch.as_tensor(rows, device=device) for rows in (place, of_pair))
    features = torch.as_tensor(dataset.candidates.features[pairs], device=device)
    return model(users, vectors, user_rows, event_rows, features)
