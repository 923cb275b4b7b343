"""The encoder's loss, a single term: each user's links of a week against the softmax over all events known before it.

Which events a link is compared with, its negatives, depends on the size of the week and on `batching`:

- the whole graph, up to `max_logits` logits (active users x known events): all known events; nothing is drawn. A block
  of users is computed at a time, together with its gradient, so that memory does not grow with the logits;
- the whole graph, more logits: up to `drawn_users` users are drawn, and each block of `users_per_draw` is compared
  with its own links and `drawn_events` other events, drawn uniformly, whose logits are corrected for the share drawn;
- sampled batches: one known event is drawn uniformly for each link, and all links of the batch share these negatives.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tgn_assets.ml.config import SoftmaxLossConfig
from tgn_assets.ml.schema import EVENT, USER

DEFAULTS = SoftmaxLossConfig()
BLOCK_LOGITS = 2**20
"""Logits computed at a time: they stay in the processor's cache."""
SUM_COLUMNS = 64
"""Columns of the matrix that a vector is reshaped into, so that its sum has one order."""


def drawn_users(
    links: Tensor, weight: Tensor, num_events: int, config: SoftmaxLossConfig = DEFAULTS
) -> tuple[Tensor, Tensor]:
    """`links` [2, L] and their `weight` [L]: all, or of `config.drawn_users` users if logits are too many."""
    active = links[0].unique()
    if len(active) * num_events <= config.max_logits or len(active) <= config.drawn_users:
        return links, weight
    kept = torch.isin(links[0], active[torch.randperm(len(active))[: config.drawn_users].to(active.device)])
    return links[:, kept], weight[kept]


class LinkPlan(NamedTuple):
    """Links in the order in which `softmax_loss` computes them."""

    events: Tensor  # [n] positions of the known ones
    blocks: list[tuple[Any, ...]]  # of users, as `_BlockwiseSoftmax` takes them
    users: int  # how many have links
    sampled: bool  # whether events were drawn for the blocks


def softmax_loss(users: Tensor, events: Tensor, plan: LinkPlan) -> Tensor:
    """Mean over users of the cross-entropy between their links, as weighted, and the softmax over known events.

    `users` [U, d] and `events` [E, d] are vectors. Where `plan` is `sampled` the loss is an estimate.
    """
    return _BlockwiseSoftmax.apply(users, events.index_select(0, plan.events), plan.blocks) / plan.users


def plan_links(known: Tensor, links: Tensor, weight: Tensor, config: SoftmaxLossConfig = DEFAULTS) -> LinkPlan:
    """The part of `softmax_loss` that does not depend on the vectors: it serves every epoch unless it is `sampled`.

    `known` [E] bool, `links` [2, L] of known events, `weight` [L] adding up to one per user. With more than
    `config.max_logits` logits events are drawn from torch's generator.
    """
    order = links[0].argsort(stable=True)
    links, weight = links[:, order], weight[order]
    active, size = links[0].unique_consecutive(return_counts=True)
    known_events = known.nonzero().view(-1)
    sampled = len(active) * len(known_events) > config.max_logits
    per_block = max(1, config.users_per_draw if sampled else BLOCK_LOGITS // max(len(known_events), 1))
    position = (known.cumsum(0) - 1)[links[1]]  # among the known events
    counts = [int(part.sum()) for part in size.split(per_block)]
    parts = active.split(per_block), size.split(per_block), position.split(counts), weight.split(counts)
    blocks = []
    for users, links_each, column, share in zip(*parts, strict=True):
        row = torch.arange(len(users), device=users.device).repeat_interleave(links_each)
        compared = correction = None
        if sampled:
            compared, correction = _draw_events(len(known_events), column, config.drawn_events)
            column = torch.searchsorted(compared, column)
        blocks.append((users, compared, correction, row, column, share))
    return LinkPlan(known_events, blocks, len(active), sampled)


def sampled_softmax_loss(vectors: dict[str, Tensor], batch: Any, weight: Tensor, num_events: int) -> Tensor:
    """`softmax_loss` estimated from a batch: its uniformly drawn negatives stand for all `num_events` events.

    Of the negatives that are not a link's own event, each stands for its share of the events other than that one.
    """
    users, own = vectors[USER][batch[USER].src_index], batch[EVENT].dst_pos_index
    positive = (users * vectors[EVENT][own]).sum(1)
    drawn = batch[EVENT].dst_neg_index.flatten()
    same = own[:, None] == drawn  # a batch holds an event once
    logits = (users @ vectors[EVENT][drawn].T).masked_fill_(same, torch.finfo(users.dtype).min)
    share = (max(num_events - 1, 1) / (len(drawn) - same.sum(1)).clamp(min=1)).log()
    return (weight * F.softplus(logits.logsumexp(1) + share - positive)).sum() / weight.sum()


def _draw_events(num_events: int, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(events, ascending; what is to be added to their logits): all `targets`, and `size` of the others.

    Each drawn event stands for its share of the others (Horvitz and Thompson, 1952).
    """
    other = torch.ones(num_events, dtype=torch.bool, device=targets.device)
    other[targets] = False
    rest = other.nonzero().view(-1)
    drawn = rest[torch.randperm(len(rest))[:size].to(rest.device)]
    compared = torch.cat([targets.unique(), drawn]).sort().values
    stands_for = torch.tensor(len(rest) / max(len(drawn), 1), device=targets.device).log()
    return compared, torch.where(other[compared], stands_for, 0.0)


def _ordered_sum(values: Tensor) -> Tensor:
    """The sum of `values` [n] in an order that does not depend on the number of threads: torch keeps one for the
    columns of a matrix, but not for a long vector."""
    return F.pad(values, (0, -len(values) % SUM_COLUMNS)).view(-1, SUM_COLUMNS).sum(0).sum()


class _BlockwiseSoftmax(torch.autograd.Function):
    """Sum over blocks of (users, events, correction, row, column, weight of links): cross-entropies and gradients.

    The forward pass keeps no logits: it computes the gradient at once, and the backward pass only scales it.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, events: Tensor, blocks: list[tuple[Any, ...]]) -> Tensor:
        total = users.new_zeros(())
        user_grad, event_grad = torch.zeros_like(users), torch.zeros_like(events)
        for block_users, compared, correction, row, column, weight in blocks:
            of_users = users.index_select(0, block_users)
            vectors = events if compared is None else events.index_select(0, compared)
            logits = of_users @ vectors.T if correction is None else torch.addmm(correction, of_users, vectors.T)
            # One exponential serves the loss and its gradient; logsumexp would take another.
            of_links, largest = logits[row, column], logits.amax(1, keepdim=True)
            error = logits.sub_(largest).exp_()
            size = error.sum(1, keepdim=True)
            total -= _ordered_sum(weight * (of_links - (largest + size.log())[row, 0]))
            if not any(ctx.needs_input_grad):
                continue
            error.div_(size)
            error[row, column] -= weight  # the pairs of a week are distinct
            user_grad.index_copy_(0, block_users, error @ vectors)
            if compared is None:
                event_grad.addmm_(error.T, of_users)
            else:
                event_grad.index_add_(0, compared, error.T @ of_users)
        ctx.save_for_backward(user_grad, event_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        user_grad, event_grad = ctx.saved_tensors
        return user_grad * grad[0], event_grad * grad[0], None
