"""Phase 1's loss: each user's links of a week against the softmax over all events known before it.

A week of m active users and n events has m * n logits. They are computed a block of users at a time, together with
their gradient, so that memory does not grow with them; where they are too many to compute at all, users are drawn, and
each block's denominators are estimated from its own links and some drawn events.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tgn_assets.ml.schema import EVENT, USER

MAX_LOGITS = 2**25
"""Logits of a week up to which the loss is exact."""
BLOCK_LOGITS = 2**20
"""Logits computed at a time: they stay in the processor's cache."""
DRAWN_USERS, DRAWN_EVENTS = 2**15, 2**11
"""Beyond `MAX_LOGITS`: users learnt from in one pass over a week, and events drawn for each block of them."""
USERS_PER_DRAW = 2**9


def drawn_users(links: Tensor, weight: Tensor, num_events: int, max_logits: int = MAX_LOGITS) -> tuple[Tensor, Tensor]:
    """`links` [2, L] and their `weight` [L]: all, or those of `DRAWN_USERS` users where there are too many logits."""
    active = links[0].unique()
    if len(active) * num_events <= max_logits or len(active) <= DRAWN_USERS:
        return links, weight
    kept = torch.isin(links[0], active[torch.randperm(len(active))[:DRAWN_USERS].to(active.device)])
    return links[:, kept], weight[kept]


class LinkPlan(NamedTuple):
    """Links in the order in which `planned_loss` computes them."""

    events: Tensor  # [n] positions of the known ones
    blocks: list[tuple[Any, ...]]  # of users, as `_BlockwiseSoftmax` takes them
    users: int  # how many have links
    sampled: bool  # whether events were drawn for the blocks


def softmax_loss(
    users: Tensor, events: Tensor, known: Tensor, links: Tensor, weight: Tensor, max_logits: int = MAX_LOGITS
) -> Tensor:
    """Mean over users of the cross-entropy between their links, equally shared, and the softmax over known events.

    `users` [U, d], `events` [E, d], `known` [E] bool, `links` [2, L], `weight` [L] adding up to one per user. With more
    than `max_logits` logits it is an estimate that draws events from torch's generator.
    """
    return planned_loss(users, events, plan_links(known, links, weight, max_logits))


def planned_loss(users: Tensor, events: Tensor, plan: LinkPlan) -> Tensor:
    """`softmax_loss` of the links that `plan` was made of."""
    return _BlockwiseSoftmax.apply(users, events.index_select(0, plan.events), plan.blocks) / plan.users


def plan_links(known: Tensor, links: Tensor, weight: Tensor, max_logits: int = MAX_LOGITS) -> LinkPlan:
    """What of `softmax_loss` does not depend on the vectors, and may serve each pass unless it is `sampled`."""
    order = links[0].argsort(stable=True)
    links, weight = links[:, order], weight[order]
    active, size = links[0].unique_consecutive(return_counts=True)
    choice = known.nonzero().view(-1)
    sampled = len(active) * len(choice) > max_logits
    per_block = max(1, USERS_PER_DRAW if sampled else BLOCK_LOGITS // max(len(choice), 1))
    first = size.cumsum(0) - size
    position = torch.full((len(known),), -1, device=known.device).index_copy_(
        0, choice, torch.arange(len(choice), device=known.device)
    )
    blocks = []
    for block in torch.arange(len(active), device=active.device).split(per_block):
        link = _ranges(first[block], size[block])
        row = torch.arange(len(block), device=block.device).repeat_interleave(size[block])
        column, among, correction = position[links[1, link]], None, None
        if sampled:
            among, correction = _drawn(len(choice), column)
            column = torch.searchsorted(among, column)
        blocks.append((active[block], among, correction, row, column, weight[link]))
    return LinkPlan(choice, blocks, len(active), sampled)


def sampled_softmax_loss(vectors: dict[str, Tensor], batch: Any, weight: Tensor, num_events: int) -> Tensor:
    """`softmax_loss` estimated from a batch: its uniformly drawn negatives stand for all `num_events` events."""
    users = vectors[USER][batch[USER].src_index]
    positive = (users * vectors[EVENT][batch[EVENT].dst_pos_index]).sum(1)
    negatives = vectors[EVENT][batch[EVENT].dst_neg_index.flatten()]
    # Each of the n negatives stands for (num_events - 1) / n events in the softmax's denominator.
    share = torch.tensor(max(num_events - 1, 1) / len(negatives), device=users.device).log()
    others = (users @ negatives.T).logsumexp(1) + share
    return (weight * F.softplus(others - positive)).sum() / weight.sum()


def _drawn(num_events: int, touched: Tensor) -> tuple[Tensor, Tensor]:
    """(events, ascending; what is to be added to their logits): all `touched` ones, and some of the rest.

    A drawn event stands for as many of the rest as there are for each that is drawn (Horvitz and Thompson, 1952).
    """
    untouched = torch.ones(num_events, dtype=torch.bool, device=touched.device)
    untouched[touched] = False
    rest = untouched.nonzero().view(-1)
    drawn = rest[torch.randperm(len(rest))[:DRAWN_EVENTS].to(rest.device)]
    among = torch.cat([touched.unique(), drawn]).sort().values
    stands_for = torch.tensor(len(rest) / max(len(drawn), 1), device=touched.device).log()
    return among, torch.where(untouched[among], stands_for, 0.0)


def _ranges(first: Tensor, size: Tensor) -> Tensor:
    """first[0], first[0] + 1, ... (size[0] of them), first[1], ..."""
    shift = first - (size.cumsum(0) - size)
    return torch.arange(int(size.sum()), device=first.device) + shift.repeat_interleave(size)


class _BlockwiseSoftmax(torch.autograd.Function):
    """Sum over blocks of (users, events, correction, row, column, weight of links): cross-entropies and gradients.

    A pass keeps no logits: what autograd would need them for is done at once, and scaled when the gradient is asked.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, events: Tensor, blocks: list[tuple[Any, ...]]) -> Tensor:
        total = users.new_zeros(())
        by_user, by_event = torch.zeros_like(users), torch.zeros_like(events)
        for who, among, correction, row, column, weight in blocks:
            mine = users.index_select(0, who)
            vectors = events if among is None else events.index_select(0, among)
            logits = mine @ vectors.T if correction is None else torch.addmm(correction, mine, vectors.T)
            # One exponential serves the loss and its gradient; logsumexp would take another.
            has_link_vectors, largest = logits[row, column], logits.amax(1, keepdim=True)
            error = logits.sub_(largest).exp_()
            size = error.sum(1, keepdim=True)
            total -= (weight * (has_link_vectors - (largest + size.log())[row, 0])).sum()
            if not any(ctx.needs_input_grad):
                continue
            error.div_(size)
            error[row, column] -= weight  # the pairs of a week are distinct
            by_user.index_copy_(0, who, error @ vectors)
            if among is None:
                by_event.addmm_(error.T, mine)
            else:
                by_event.index_add_(0, among, error.T @ mine)
        ctx.save_for_backward(by_user, by_event)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        by_user, by_event = ctx.saved_tensors
        return by_user * grad[0], by_event * grad[0], None
