import pytest
import torch

from tgn_assets.ml.config import FitConfig, GNNConfig, RankerConfig
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.ranker import checkpoint, listwise
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, load_model, temporal_embeddings
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import NEXT_BOOSTER
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 8
CONFIG = RankerConfig(dim=8, heads=1, origins=3, sequence=2, epochs=2, candidates=6, networks=3)
GNN = GNNConfig(dim=4, window=3, replay=6, epochs=1, warm_epochs=1, batching="full")
ROWS = habits(users=20, weeks=WEEKS)
KNOWN = history(ROWS, WEEKS - 1)


@pytest.fixture(scope="module")
def embedding_history() -> EmbeddingHistory:
    return train_gnn(snapshots(ROWS, range(WEEKS)), shift(START, WEEKS - 1), GNN).embeddings


def trained(
    embedding_history: EmbeddingHistory,
    at: int,
    earlier: RankerCheckpoint | None = None,
    pairs_per_epoch: int = 400_000,
) -> RankerCheckpoint:
    week = shift(START, at)
    seen = {key: embeddings for key, embeddings in embedding_history.items() if key <= week}
    config = CONFIG.model_copy(update={"fit": FitConfig(pairs_per_epoch=pairs_per_epoch)})
    return train_ranker(KNOWN.as_of(week_number(week)), seen, week, config=config, earlier=earlier)


@pytest.fixture(scope="module")
def three(embedding_history: EmbeddingHistory) -> RankerCheckpoint:
    return trained(embedding_history, WEEKS - 2)


def networks(ranker: RankerCheckpoint) -> int:
    return len(load_model(ranker).members)


@torch.no_grad()
def test_an_ensemble_scores_as_the_mean_of_its_members() -> None:
    torch.manual_seed(0)
    members = [UserInteractionPredictor(CONFIG, width=6, features=3).eval() for _ in range(3)]
    sequence, known, events, features = torch.rand(5, 2, 6), torch.ones(5, 2, dtype=torch.bool), *torch.rand(2, 5, 6)
    features = features[:, :3]

    def scores(model: UserInteractionPredictor | Ensemble) -> torch.Tensor:
        return model(
            model.get_temporal_embeddings(sequence, known),
            model.event_embeddings(events),
            *2 * [torch.arange(5)],
            features,
        )

    torch.testing.assert_close(scores(Ensemble(members)), torch.stack([scores(m) for m in members]).mean(0))


def test_with_few_pairs_there_are_several_networks_that_differ(three: RankerCheckpoint) -> None:
    model = load_model(three)
    assert len(model.members) == 3
    assert {row["network"] for row in three.curve} == {1, 2, 3}
    first, second = (three.state[f"members.{number}.feature_mlp.0.weight"] for number in range(2))
    assert not torch.equal(first, second)


def test_with_many_pairs_there_is_one_network(embedding_history: EmbeddingHistory) -> None:
    assert networks(trained(embedding_history, WEEKS - 2, pairs_per_epoch=10)) == 1


def test_with_many_pairs_a_warm_start_drops_networks(
    embedding_history: EmbeddingHistory, three: RankerCheckpoint
) -> None:
    assert networks(trained(embedding_history, WEEKS - 1, three)) == 3
    after = trained(embedding_history, WEEKS - 1, three, pairs_per_epoch=10)
    assert after.warm_from == three.week and networks(after) == 1


def test_a_warm_start_adds_the_networks_that_it_lacks(embedding_history: EmbeddingHistory) -> None:
    one = trained(embedding_history, WEEKS - 2, pairs_per_epoch=10)
    after = trained(embedding_history, WEEKS - 1, one)
    assert after.warm_from == one.week and networks(after) == 3
    assert {row["network"] for row in after.curve} == {1, 2, 3}
    assert after.booster.count(NEXT_BOOSTER) == 2


def test_the_number_of_threads_does_not_change_a_byte(
    embedding_history: EmbeddingHistory, three: RankerCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listwise, "USERS_PER_MICROBATCH", 5)  # as if there were more users: a step has several parts
    monkeypatch.setattr(checkpoint, "USERS_EMBEDDED_TOGETHER", 16)
    threads, rankers, digests = torch.get_num_threads(), [], set()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            rankers.append(trained(embedding_history, WEEKS - 1, three))
            digests.add(temporal_embeddings(three, KNOWN, embedding_history).digest)
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1
    one, several = rankers
    assert one.booster == several.booster and one.fallback == several.fallback and one.curve == several.curve
    assert one.calibration == several.calibration
    assert all(torch.equal(value, several.state[name]) for name, value in one.state.items())


def test_embeddings_of_all_networks_are_concatenated(
    embedding_history: EmbeddingHistory, three: RankerCheckpoint
) -> None:
    past = KNOWN.as_of(week_number(three.week))
    seen = {key: embeddings for key, embeddings in embedding_history.items() if key <= three.week}
    embeddings = temporal_embeddings(three, past, seen)
    assert embeddings.users.shape[1] == embeddings.events.shape[1] == 3 * CONFIG.dim
