from dataclasses import replace

import pytest
import torch

from tgn_assets.ml.artifact_io import save_artifact
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.ranker import listwise
from tgn_assets.ml.ranker import train as ranker_module
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, load_model
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.train import temporal_embeddings, train_ranker
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 8
CONFIG = RankerConfig(dim=8, heads=1, origins=3, sequence=2, epochs=2, candidates=6, networks=3)
GNN = GNNConfig(dim=4, window=3, replay=6, epochs=1, warm_epochs=1, batching="full")
ROWS = habits(users=20, weeks=WEEKS)
KNOWN = history(ROWS, WEEKS - 1)


@pytest.fixture(scope="module")
def embedding_history():
    return train_gnn(snapshots(ROWS, range(WEEKS)), shift(START, WEEKS - 1), GNN).embeddings


def trained(embedding_history, at: int, earlier: RankerCheckpoint | None = None) -> RankerCheckpoint:
    week = shift(START, at)
    seen = {key: embeddings for key, embeddings in embedding_history.items() if key <= week}
    return train_ranker(KNOWN.as_of(week_number(week)), seen, week, CONFIG, earlier=earlier)


@pytest.fixture(scope="module")
def three(embedding_history):
    return trained(embedding_history, WEEKS - 2)


def networks(ranker: RankerCheckpoint) -> int:
    return len(load_model(ranker).members)


@torch.no_grad()
def test_a_committee_scores_as_its_members_do_on_average():
    torch.manual_seed(0)
    members = [UserInteractionPredictor(6, 3, 8, 2, 1, 4, 0.0).eval() for _ in range(3)]
    sequence, known, events, features = torch.rand(5, 4, 6), torch.ones(5, 4, dtype=torch.bool), *torch.rand(2, 5, 6)
    features = features[:, :3]

    def scores(model):
        return model(
            model.get_temporal_embeddings(sequence, known),
            model.event_embeddings(events),
            *2 * [torch.arange(5)],
            features,
        )

    torch.testing.assert_close(scores(Ensemble(members)), torch.stack([scores(m) for m in members]).mean(0))


def test_where_pairs_are_few_there_are_several_networks_that_differ(three):
    model = load_model(three)
    assert len(model.members) == 3
    assert {row["network"] for row in three.curve} == {1, 2, 3}
    first, second, _ = (member.feature_mlp[0].weight for member in model.members)
    assert not torch.equal(first, second)


def test_where_pairs_are_many_there_is_one_network(embedding_history, monkeypatch):
    monkeypatch.setattr(ranker_module, "PAIRS_PER_PASS", 10)
    assert networks(trained(embedding_history, WEEKS - 2)) == 1


def test_where_pairs_have_become_many_a_warm_start_goes_on_with_fewer_networks(embedding_history, three, monkeypatch):
    assert networks(trained(embedding_history, WEEKS - 1, three)) == 3
    monkeypatch.setattr(ranker_module, "PAIRS_PER_PASS", 10)
    after = trained(embedding_history, WEEKS - 1, three)
    assert after.warm_from == three.week and networks(after) == 1


def test_the_ranker_is_the_same_bytes_however_many_threads_there_are(embedding_history, three, monkeypatch):
    monkeypatch.setattr(listwise, "USERS_PER_PART", 5)  # as if there were more users: a step has several parts
    threads, rankers = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            rankers.append(trained(embedding_history, WEEKS - 1, three))
    finally:
        torch.set_num_threads(threads)
    one, several = rankers
    assert one.trees == several.trees and one.fallback == several.fallback and one.curve == several.curve
    assert one.calibration == several.calibration
    assert all(torch.equal(value, several.state[name]) for name, value in one.state.items())


def test_embeddings_of_all_networks_stand_side_by_side(embedding_history, three):
    past = KNOWN.as_of(week_number(three.week))
    seen = {key: embeddings for key, embeddings in embedding_history.items() if key <= three.week}
    embeddings = temporal_embeddings(three, past, seen)
    assert embeddings.users.shape[1] == embeddings.events.shape[1] == 3 * CONFIG.dim


def test_a_checkpoint_of_before_there_were_several_networks_can_be_read(three, tmp_path):
    one = {name.removeprefix("members.0."): value for name, value in three.state.items() if "members.0." in name}
    save_artifact(tmp_path / "old", one, replace(three, state=one).meta())
    old = RankerCheckpoint.load(tmp_path / "old")
    assert networks(old) == 1
    assert torch.equal(
        load_model(old).members[0].feature_mlp[0].weight, load_model(three).members[0].feature_mlp[0].weight
    )
