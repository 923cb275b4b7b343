from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgn_assets.ml.config import SoftmaxLossConfig
from tgn_assets.ml.encoder import softmax_loss as module
from tgn_assets.ml.encoder.softmax_loss import drawn_users, plan_links, sampled_softmax_loss, softmax_loss
from tgn_assets.ml.schema import EVENT, USER

EVERYTHING = torch.ones(200, dtype=torch.bool)


def world(links_per_user: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors of 30 users and 200 events, the links of every second user, in no order, and their weights."""
    drawn = torch.Generator().manual_seed(0)
    users, events = torch.randn(30, 4, generator=drawn), torch.randn(200, 4, generator=drawn)
    who = torch.arange(0, 30, 2).repeat(links_per_user)
    what = torch.randperm(200, generator=drawn)[: len(who)]
    return users, events, torch.stack([who, what]), torch.full((len(who),), 1 / links_per_user)


def loss_and_gradients(**config: int) -> tuple[Any, ...]:
    how = SoftmaxLossConfig(**config)
    users, events, links, weight = world()
    users.requires_grad_(), events.requires_grad_()
    links, weight = drawn_users(links, weight, 200, how)
    loss = softmax_loss(users, events, plan_links(EVERYTHING, links, weight, how))
    (3 * loss).backward()
    assert users.grad is not None and events.grad is not None
    return loss.detach(), users.grad / 3, events.grad / 3


def by_definition() -> tuple[Any, ...]:
    """The same by autograd, all logits at once."""
    users, events, links, weight = world()
    users.requires_grad_(), events.requires_grad_()
    log_probability = torch.log_softmax(users @ events.T, dim=1)[links[0], links[1]]
    loss = -(weight * log_probability).sum() / 15
    loss.backward()
    return loss.detach(), users.grad, events.grad


@pytest.mark.parametrize("block", [1, 900, 10**6])
def test_blocks_of_any_size_give_cross_entropy_and_gradient(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK_LOGITS", block)
    for ours, theirs in zip(loss_and_gradients(), by_definition(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unknown_events_do_not_enter_the_softmax() -> None:
    users, events, links, weight = world()
    known = EVERYTHING.clone()
    known[[7, 11]] = False
    kept = known[links[1]]
    links, weight = links[:, kept], weight[kept]
    plan = plan_links(known, links, weight)
    expected = softmax_loss(users, events, plan)
    events[[7, 11]] = 1e3
    assert softmax_loss(users, events, plan) == expected


def test_drawn_events_and_users_estimate_loss_and_gradient() -> None:
    torch.manual_seed(0)
    draws = [loss_and_gradients(max_logits=1, drawn_events=150, users_per_draw=4, drawn_users=12) for _ in range(400)]
    for ours, theirs in zip(zip(*draws, strict=True), by_definition(), strict=True):
        mean = torch.stack(ours).mean(0)
        assert torch.linalg.vector_norm(mean - theirs) < 0.1 * torch.linalg.vector_norm(theirs)


def test_users_are_drawn_with_all_their_links_if_too_many() -> None:
    _, _, links, weight = world()
    for kept in (drawn_users(links, weight, 200), drawn_users(links, weight, 200, SoftmaxLossConfig(max_logits=1))):
        assert torch.equal(kept[0], links) and torch.equal(kept[1], weight)
    drawn, shares = drawn_users(links, weight, 200, SoftmaxLossConfig(max_logits=1, drawn_users=4))
    assert len(drawn[0].unique()) == 4
    assert torch.bincount(drawn[0], shares).unique().tolist() == [0, 1]


def batch_of(links: Tensor, negatives: Tensor) -> HeteroData:
    batch = HeteroData()
    batch[USER].src_index, batch[EVENT].dst_pos_index = links
    batch[EVENT].dst_neg_index = negatives
    return batch


def test_sampled_loss_with_all_events_as_negatives_is_exact() -> None:
    users, events, links, weight = world()
    results = []
    for sampled in (True, False):
        vectors = {USER: users.clone().requires_grad_(), EVENT: events.clone().requires_grad_()}
        if sampled:
            loss = sampled_softmax_loss(vectors, batch_of(links, torch.arange(200).repeat(2)), weight, 200)
        else:
            loss = softmax_loss(vectors[USER], vectors[EVENT], plan_links(EVERYTHING, links, weight))
        loss.backward()
        results.append([loss.detach(), vectors[USER].grad, vectors[EVENT].grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sampled_loss_of_drawn_negatives_has_the_exact_expectation() -> None:
    users, events, links, weight = world(links_per_user=1)
    links[1] = (users[links[0]] @ events.T).argmax(1)  # probable ones: counted twice, they would tell
    exact = softmax_loss(users, events, plan_links(EVERYTHING, links, weight))
    draw = torch.Generator().manual_seed(0)
    drawn = [torch.randint(200, (4000,), generator=draw) for _ in range(200)]
    losses = [sampled_softmax_loss({USER: users, EVENT: events}, batch_of(links, one), weight, 200) for one in drawn]
    mean, error = torch.stack(losses).mean(), torch.stack(losses).std() / 200**0.5
    assert error < 0.002 and (mean - exact).abs() < 3 * error


def test_sampled_loss_is_zero_where_there_is_no_other_event() -> None:
    users, events = torch.ones(2, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)
    only = batch_of(torch.tensor([[0, 1], [0, 0]]), torch.zeros(2, dtype=torch.int64))
    loss = sampled_softmax_loss({USER: users, EVENT: events}, only, torch.ones(2), 1)
    gradients = torch.autograd.grad(loss, [users, events])
    assert loss == 0 and not any(gradient.any() for gradient in gradients)
