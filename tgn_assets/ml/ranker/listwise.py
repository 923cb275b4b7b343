"""Training of the networks: a softmax loss over each user's candidates, list by list (ListNet)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import softmax

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.artifact_io import require_finite
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.interactions import dense
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.parallel import thread_pool
from tgn_assets.ml.ranker.baseline_fallback import ndcg_of
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.training_set import RankingDataset, blocks_of
from tgn_assets.ml.schema import K

USERS_PER_MICROBATCH = 64
"""Users of a step whose lists are computed together. Microbatches are dealt out to threads, which do not wait for each
other after each operation, as torch's own threads do."""
USERS_SCORED_TOGETHER = 512
"""Users whose candidates are scored by one thread at a time."""


def fit_network(
    model: UserInteractionPredictor,
    datasets: Sequence[RankingDataset],
    held_out: RankingDataset,
    *,
    config: RankerConfig,
    k: int = K,
    warm: bool = False,
    on_step: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Trains with early stopping on NDCG@k of `held_out`; leaves the best weights in `model`, yields a row an epoch.

    A row has `epoch` (from 0), `loss` and `validation_ndcg`. If `warm`, training goes on from the weights in `model`,
    which stay unless an epoch makes them better; the first row is theirs: its epoch is `start`, and it has no loss.
    `on_step` is called after each step with its number of lists; an epoch has `num_lists(datasets)`. TrainingError if
    the loss is NaN or infinite.
    """
    fit, best, features = config.fit, -1.0, [torch.from_numpy(dataset.candidates.features) for dataset in datasets]
    if warm:
        best = _ndcg(model, held_out, k)
        yield {"epoch": "start", "loss": None, "validation_ndcg": best}
        model.widen_range(features)
    else:
        model.normalise(features)
    epochs, rate_factor = (config.warm_epochs, fit.warm_step) if warm else (config.epochs, 1.0)
    patience, min_gain = config.patience, 0.0
    if warm or num_lists(datasets) >= fit.many_lists:
        patience, min_gain = fit.warm_patience, fit.warm_gain
    optimizer = _optimizer(model, config, rate_factor)
    best_state, epochs_without_gain, ndcg_to_beat = deepcopy(model.state_dict()), 0, best * (1 + min_gain)
    for epoch in range(epochs):
        loss = _fit_epoch(model, datasets, optimizer, config.fit.users_per_step, on_step)
        ndcg = _ndcg(model, held_out, k)
        yield {"epoch": epoch, "loss": loss, "validation_ndcg": ndcg}
        if ndcg > best:
            best, best_state = ndcg, deepcopy(model.state_dict())
        if ndcg > ndcg_to_beat:
            epochs_without_gain, ndcg_to_beat = 0, ndcg * (1 + min_gain)
        elif (epochs_without_gain := epochs_without_gain + 1) >= patience:
            break
    model.load_state_dict(best_state)


def num_lists(datasets: Sequence[RankingDataset]) -> int:
    """Lists that one epoch over `datasets` learns from."""
    return sum(int(dataset.has_positive.sum()) for dataset in datasets)


def finetune_on_recent_weeks(
    model: UserInteractionPredictor, datasets: Sequence[RankingDataset], *, config: RankerConfig
) -> float:
    """One final epoch with small steps over the last of `datasets`, the one that was held out among them; its loss."""
    newest = datasets[-config.fit.newest_weeks :]
    model.widen_range([torch.from_numpy(dataset.candidates.features) for dataset in newest])
    optimizer = _optimizer(model, config, config.fit.final_step)
    return _fit_epoch(model, newest, optimizer, config.fit.users_per_step)


def network_scores(
    model: UserInteractionPredictor | Ensemble, dataset: RankingDataset, rows: IntArray | None = None
) -> FloatArray:
    """[p] scores of all candidate pairs; with `rows`, of the pairs of these users, and zero for the others."""
    model.eval()
    scores = np.zeros(len(dataset.label), np.float32)

    @torch.no_grad()
    def of_block(block: IntArray) -> None:
        users = model.get_temporal_embeddings(*(x[block].to(model.device) for x in (dataset.sequence, dataset.known)))
        pairs, row = dataset.pairs_of(block)
        scores[pairs] = _scores(model, dataset, users, pairs, row).cpu().numpy()

    rows = np.arange(len(dataset.num_relevant)) if rows is None else rows
    with thread_pool() as pool:
        list(pool.map(of_block, blocks_of(rows, USERS_SCORED_TOGETHER)))
    return scores


def hits_of(dataset: RankingDataset, scores: FloatArray, k: int = K) -> BoolArray:
    """[n, k] bool: the user interacted with the event that `scores` [p] put at that rank."""
    top = grouped_top_k(dataset.candidates.row, scores, dataset.candidates.event, len(dataset.num_relevant), k)
    return np.append(dataset.label, False)[top]


def _ndcg(model: UserInteractionPredictor, dataset: RankingDataset, k: int) -> float:
    scores = network_scores(model, dataset, np.flatnonzero(dataset.has_positive))
    return float(ndcg_of(hits_of(dataset, scores, k), dataset.num_relevant).mean())


def _optimizer(model: UserInteractionPredictor, config: RankerConfig, rate_factor: float) -> torch.optim.Optimizer:
    """AdamW with the share `rate_factor` of the learning rate."""
    rate, weight_decay = config.learning_rate * rate_factor, config.fit.weight_decay
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay, fused=True)


def _fit_epoch(
    model: UserInteractionPredictor,
    datasets: Sequence[RankingDataset],
    optimizer: torch.optim.Optimizer,
    users_per_step: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> float:
    """One epoch over all users of all datasets in random order; the mean loss."""
    model.train()
    steps = [(dataset, rows) for dataset in datasets for rows in _minibatches(dataset, users_per_step)]
    total = 0.0
    with thread_pool() as pool:
        for at in torch.randperm(len(steps)).tolist():
            dataset, rows = steps[at]
            optimizer.zero_grad()
            total += _accumulate_gradients(model, dataset, rows, pool).item()
            optimizer.step()
            on_step(len(rows))
    return require_finite(total / max(len(steps), 1), "trained_ranker")


def _minibatches(dataset: RankingDataset, users_per_step: int) -> Iterator[IntArray]:
    """The rows of each step: of `users_per_step` users drawn, those with a positive candidate.

    Steps of `users_per_step` such users, of which there are fewer, were no better.
    """
    for drawn in blocks_of(torch.randperm(len(dataset.num_relevant)).numpy(), users_per_step):
        if dataset.has_positive[drawn].any():
            yield drawn[dataset.has_positive[drawn]]


def _accumulate_gradients(
    model: UserInteractionPredictor, dataset: RankingDataset, rows: IntArray, pool: ThreadPoolExecutor
) -> Tensor:
    """The mean loss of the lists of `rows`, whose gradient is left in the model.

    Random numbers are drawn for all rows at once, and the gradients of microbatches are added in their order, so that
    the gradient is the same bytes with any number of threads in `pool`.
    """
    users = model.get_temporal_embeddings(*(x[rows].to(model.device) for x in (dataset.sequence, dataset.known)))
    weights = list(model.parameters())

    def of_microbatch(part: IntArray) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        own = users.detach()[part].requires_grad_()
        loss = _loss(model, dataset, rows[part], own) / len(rows)
        return loss.detach(), torch.autograd.grad(loss, [own, *weights], allow_unused=True)

    size = USERS_PER_MICROBATCH if model.device.type == "cpu" else len(rows)
    losses, gradients = zip(*pool.map(of_microbatch, blocks_of(np.arange(len(rows)), size)), strict=True)
    of_users, *of_weights = zip(*gradients, strict=True)
    (users * torch.cat(of_users)).sum().backward()  # as `users.backward(...)`, for which torch imports SymPy
    for weight, parts in zip(weights, of_weights, strict=True):
        if parts[0] is not None:  # the weights of the users' embeddings alone have their gradient already
            weight.grad = torch.stack(parts).sum(0)
    return torch.stack(losses).sum()


def _loss(model: UserInteractionPredictor, dataset: RankingDataset, rows: IntArray, users: Tensor) -> Tensor:
    """Sum of list-wise softmax losses (ListNet, top one): the positive candidates of each user of `rows`, who has at
    least one, share a mass of one. `users` [n, dim] are their temporal embeddings."""
    pairs, row = dataset.pairs_of(rows)
    scores = _scores(model, dataset, users, pairs, row)
    group, label = (torch.as_tensor(x, device=scores.device) for x in (row, dataset.label[pairs].astype(np.float32)))
    positives = scores.new_zeros(len(rows)).index_add_(0, group, label)
    log_probability = torch.log(softmax(scores, group, num_nodes=len(rows)) + 1e-12)
    return -(label / positives[group] * log_probability).sum()


def _scores(
    model: UserInteractionPredictor | Ensemble, dataset: RankingDataset, users: Tensor, pairs: IntArray, row: IntArray
) -> Tensor:
    """[p] scores of the candidate `pairs` [p], each with the row [p] of its user among the embeddings `users`."""
    device = model.device
    events, of_pair = dense(dataset.candidates.event[pairs])
    vectors = model.event_embeddings(dataset.event_vectors[events].to(device))
    user_row, event_row = (torch.as_tensor(x, device=device) for x in (row, of_pair))
    features = torch.as_tensor(dataset.candidates.features[pairs], device=device)
    return model(users, vectors, user_row, event_row, features)
