from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.ranker import listwise
from tgn_assets.ml.ranker.baseline_fallback import ndcg_of
from tgn_assets.ml.ranker.listwise import (
    _accumulate_gradients,
    _minibatches,
    finetune_on_recent_weeks,
    fit_network,
    hits_of,
    network_scores,
)
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.training_set import RankingDataset

CONFIG = RankerConfig(dim=8, heads=2, sequence=3, dropout=0.0)


def network(**changes: Any) -> UserInteractionPredictor:
    return UserInteractionPredictor(CONFIG.model_copy(update=changes), width=6, features=3)


@pytest.fixture
def dataset() -> RankingDataset:
    """Four users, each with candidates 0, 1 and 2, who interacted with 0, 1, 2 and nothing."""
    row, event = np.repeat(np.arange(4), 3), np.tile([0, 1, 2], 4)
    features = np.random.default_rng(0).random((12, 3), dtype=np.float32)
    candidates = Candidates(np.arange(4), row, event, features, np.ones((12, 4), bool))
    label = row == event
    return RankingDataset(
        candidates, torch.rand(4, 3, 6), torch.ones(4, 3, dtype=torch.bool), torch.rand(5, 6), label, label[:4]
    )


def gradients_of(model: UserInteractionPredictor) -> dict[str, torch.Tensor]:
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def learn(model: UserInteractionPredictor, dataset: RankingDataset, rows: IntArray) -> torch.Tensor:
    """The loss of the rows, whose gradient is in the model then."""
    with ThreadPoolExecutor(2) as pool:
        return _accumulate_gradients(model, dataset, rows, pool)


def test_users_without_a_positive_candidate_carry_no_loss(dataset: RankingDataset) -> None:
    assert sorted(np.concatenate(list(_minibatches(dataset, 256)))) == [0, 1, 2]
    dataset.candidates.features[9:] = np.nan  # the fourth user's, which would spoil all weights
    model = network()
    before = {name: value.clone() for name, value in model.named_parameters()}
    finetune_on_recent_weeks(model, [dataset], config=CONFIG)
    after = dict(model.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["feature_mlp.0.weight"], before["feature_mlp.0.weight"])


def test_candidates_without_loss_teach_nothing(dataset: RankingDataset) -> None:
    with_loss = dataset.keep_candidates_with_loss()
    assert len(with_loss.label) == 9 and with_loss.has_positive.tolist() == [True, True, True, False]
    torch.manual_seed(0)
    whole, part = (network() for _ in range(2))
    part.load_state_dict(whole.state_dict())
    for model, learned in ((whole, dataset), (part, with_loss)):
        torch.manual_seed(0)
        finetune_on_recent_weeks(model, [learned], config=CONFIG)
    for one, other in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weeks_without_a_positive_candidate_change_nothing(dataset: RankingDataset) -> None:
    model = network()
    no_hits = replace(dataset, label=np.zeros(12, bool))
    before = {name: value.clone() for name, value in model.named_parameters()}
    assert finetune_on_recent_weeks(model, [no_hits], config=CONFIG) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_positive_candidates_share_a_mass_of_one_in_the_loss(dataset: RankingDataset) -> None:
    torch.manual_seed(0)
    model = network()
    two = replace(dataset, label=np.array([1, 0, 0, 0, 1, 1] + 6 * [0], bool))
    scores = torch.from_numpy(network_scores(model, two)).view(4, 3).log_softmax(1)
    torch.testing.assert_close(learn(model, two, np.arange(2)), -(scores[0, 0] + scores[1, 1:].mean()) / 2)


def test_the_gradient_does_not_depend_on_the_parts_of_a_step(
    dataset: RankingDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, rows = network(layers=2), np.array([2, 0, 1])
    users = model.get_temporal_embeddings(dataset.sequence[rows], dataset.known[rows])
    (listwise._loss(model, dataset, rows, users) / 3).backward()
    expected = gradients_of(model)
    assert len(expected) == len(list(model.parameters()))
    for size in (1, 2, 3):
        monkeypatch.setattr(listwise, "USERS_PER_MICROBATCH", size)
        model.zero_grad()
        learn(model, dataset, rows)
        for name, gradient in gradients_of(model).items():
            torch.testing.assert_close(gradient, expected[name], msg=f"{name} in parts of {size}")


def test_the_scores_of_some_users_are_those_among_all(dataset: RankingDataset) -> None:
    model = network()
    some, everyone = network_scores(model, dataset, np.array([1, 3])), network_scores(model, dataset)
    of_them = np.isin(dataset.candidates.row, [1, 3])
    np.testing.assert_allclose(some, np.where(of_them, everyone, 0), rtol=1e-6)


def test_the_loss_is_computed_where_the_model_is(dataset: RankingDataset) -> None:
    # The meta device computes shapes alone and, like a GPU, refuses to mix its tensors with those of the CPU.
    model = network(dropout=0.1).to("meta")
    learn(model, dataset, np.arange(3))
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


def test_hits_follow_the_scores(dataset: RankingDataset) -> None:
    hits = hits_of(dataset, np.tile([3.0, 2.0, 1.0], 4))
    assert hits[:, :3].tolist() == [[True, False, False], [False, True, False], [False, False, True], [False] * 3]
    assert not hits[:, 3:].any()


def test_gradients_are_the_same_bytes_each_time() -> None:
    # Large enough for several threads to share the work.
    rows, each, width = 256, 200, 64
    row, event = np.repeat(np.arange(rows), each), np.tile(np.arange(each), rows)
    features = np.random.default_rng(0).random((rows * each, 3), dtype=np.float32)
    candidates = Candidates(np.arange(rows), row, event, features, np.ones((rows * each, 4), bool))
    label = row % each == event
    torch.manual_seed(0)
    sequence, known = torch.rand(rows, 2, 8), torch.ones(rows, 2, dtype=torch.bool)
    dataset = RankingDataset(candidates, sequence, known, torch.rand(each, 8), label, np.ones(rows, int))
    config = CONFIG.model_copy(update={"dim": width, "heads": 4, "sequence": 2})
    model = UserInteractionPredictor(config, width=8, features=3)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        learn(model, dataset, np.arange(rows))
        return list(gradients_of(model).values())

    first = gradients()
    assert all(torch.equal(a, b) for _ in range(5) for a, b in zip(first, gradients(), strict=True))


def test_a_warm_start_keeps_weights_that_no_epoch_makes_better(dataset: RankingDataset) -> None:
    torch.manual_seed(0)
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quality = float(ndcg_of(hits_of(dataset, network_scores(model, dataset)), dataset.num_relevant).mean())
    idle = CONFIG.model_copy(update={"learning_rate": 1e-30})  # no list changes: an epoch is never better
    start, *epochs = fit_network(model, [dataset], dataset, config=idle, warm=True)
    assert start == {"epoch": "start", "loss": None, "validation_ndcg": quality}
    assert [row["epoch"] for row in epochs] == list(range(CONFIG.fit.warm_patience))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_epoch_that_gains_little_ends_a_warm_start(dataset: RankingDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    qualities = iter([0.5, 0.5009, 0.9])
    monkeypatch.setattr(listwise, "_ndcg", lambda *_: next(qualities))
    states = list[dict[str, torch.Tensor]]()
    for _ in fit_network(model, [dataset], dataset, config=CONFIG, warm=True):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    assert len(states) == 2  # as it was, and an epoch
    assert all(torch.equal(value, states[1][name]) for name, value in model.state_dict().items())


def test_a_cold_start_with_many_lists_ends_as_a_warm_one(
    dataset: RankingDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    qualities = iter([0.5, 0.5009, 0.9])
    monkeypatch.setattr(listwise, "_ndcg", lambda *_: next(qualities))
    many = CONFIG.model_copy(update={"fit": CONFIG.fit.model_copy(update={"many_lists": 3})})  # what `dataset` has
    assert len(list(fit_network(network(), [dataset], dataset, config=many))) == 2


def test_small_gains_that_add_up_go_on(dataset: RankingDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    qualities = iter([0.5, 0.5009, 0.5018, 0.5017, 0.5016, 0.9])
    monkeypatch.setattr(listwise, "_ndcg", lambda *_: next(qualities))
    patient = CONFIG.model_copy(update={"fit": CONFIG.fit.model_copy(update={"warm_patience": 2})})
    assert len(list(fit_network(model, [dataset], dataset, config=patient, warm=True))) == 5


def test_a_warm_start_takes_the_weights_of_its_best_epoch(dataset: RankingDataset) -> None:
    torch.manual_seed(0)
    model = network()
    config = CONFIG.model_copy(update={"learning_rate": 0.05, "warm_epochs": 30})
    rows = list(fit_network(model, [dataset], dataset, config=config, warm=True))
    best = max(row["validation_ndcg"] for row in rows)
    assert best > rows[0]["validation_ndcg"]
    assert float(ndcg_of(hits_of(dataset, network_scores(model, dataset)), dataset.num_relevant).mean()) == best
