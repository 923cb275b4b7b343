import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.ranker.blend import blend_scores
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, load_model, temporal_embeddings
from tgn_assets.ml.ranker.lambdarank import load_boosters
from tgn_assets.ml.ranker.network import PositionalEncoding, UserInteractionPredictor
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView
from tgn_assets.ml.recommend.top_k import recommend
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 7
LAST = shift(START, WEEKS - 1)
CONFIG = RankerConfig(dim=8, heads=2, layers=1, sequence=4, dropout=0.0, origins=3, epochs=3, candidates=8)
GNN = GNNConfig(dim=4, window=3, replay=4, epochs=1, warm_epochs=1, batching="full")


def network(**changes: Any) -> UserInteractionPredictor:
    attributes = changes.pop("attributes", 0)
    return UserInteractionPredictor(CONFIG.model_copy(update=changes), width=6, features=3, attributes=attributes)


class Published(NamedTuple):
    """A small world whose lists were published from `ranker`, in every segment of users."""

    past: InteractionHistory
    embedding_history: EmbeddingHistory
    embeddings: NodeEmbeddings
    candidates: Candidates
    ranker: RankerCheckpoint
    lists: list[list[int]]


def published(networks: int, with_booster: bool) -> Published:
    rows = habits(users=16, weeks=WEEKS)
    past, known = history(rows, WEEKS - 1), train_gnn(snapshots(rows, range(WEEKS)), LAST, GNN).embeddings
    config = CONFIG.model_copy(update={"networks": networks})
    ranker = train_ranker(past, known, LAST, config=config)
    ours = replace(ranker.fallback, source=dict.fromkeys(ranker.fallback.source, OURS))
    ranker = replace(ranker, fallback=ours, booster=ranker.booster if with_booster else "")
    embeddings = temporal_embeddings(ranker, past, known)
    candidates = PointInTimeView(past, known, config).candidates(np.arange(past.num_users))
    lists = recommend(past, ranker, known, embeddings).events.tolist()
    return Published(past, known, embeddings, candidates, ranker, lists)


def test_one_network_predicts_the_published_lists() -> None:
    world = published(networks=1, with_booster=False)
    [member] = load_model(world.ranker).members
    for user, events in enumerate(world.lists):
        best, scores = member.predict_top_k_for_user(
            user, world.embeddings, world.candidates, event_order=world.past.event_order
        )
        assert best.tolist() == events and (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("with_booster", [False, True])
def test_an_ensemble_predicts_the_published_lists(with_booster: bool) -> None:
    world = published(networks=3, with_booster=with_booster)
    model, boosters = load_model(world.ranker), load_boosters(world.ranker.booster)
    rescore = partial(blend_scores, boosters=boosters, k=5, config=world.ranker.config.blend) if with_booster else None
    assert bool(boosters) == with_booster
    for user, events in enumerate(world.lists):
        best, _ = model.predict_top_k_for_user(
            user, world.embeddings, world.candidates, event_order=world.past.event_order, rescore=rescore
        )
        assert best.tolist() == events


def test_top_k_of_a_user_without_candidates_is_refused() -> None:
    none = NodeEmbeddings("2024-01-01", *(torch.zeros(0) for _ in range(4)))
    candidates = Candidates(
        np.array([3]), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3), np.float32), np.zeros((0, 1), bool)
    )
    with pytest.raises(ValueError, match="no candidates of user 4"):
        network().predict_top_k_for_user(4, none, candidates, event_order=np.arange(5))


@torch.no_grad()
def test_equal_scores_are_ordered_by_event_order_and_lists_may_be_short() -> None:
    model = network()
    for weights in model.parameters():
        weights.zero_()
    row, event = np.array([0, 0, 0, 1]), np.array([1, 2, 4, 3])
    features = np.zeros((4, 3), np.float32)
    candidates = Candidates(np.array([7, 9]), row, event, features, np.ones((4, 1), bool))
    embeddings = NodeEmbeddings(LAST, torch.arange(10), torch.ones(10, 8), torch.arange(5), torch.ones(5, 8))
    order = np.array([4, 3, 2, 1, 0])
    top, score, _ = model.predict_top_k(candidates, embeddings, event_order=order, k=2)
    assert top.tolist() == [[2, 1], [3, -1]] and score.tolist() == [0] * 4
    for user, best in ((7, [4, 2]), (9, [3])):
        found, _ = model.predict_top_k_for_user(user, embeddings, candidates, event_order=order, k=2)
        assert found.tolist() == best


@torch.no_grad()
def test_similarity_is_the_dot_product_over_the_root_of_the_width() -> None:
    users, events = torch.tensor([[1.0, 2, 0, 0], [0, 1, 1, 0]]), torch.tensor([[3.0, 1, 0, 0], [0, 0, 5, 1]])
    row, column = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    similarity = network()._compute_similarity_scores(users, events, row, column)
    assert similarity.tolist() == [2.5, 0.5, 2.5]


@torch.no_grad()
def test_a_score_is_that_of_the_features_plus_gated_similarity() -> None:
    torch.manual_seed(0)
    model, users, events = network().eval(), torch.randn(2, 8), torch.randn(2, 8)
    pairs, features = (torch.tensor([0, 1]), torch.tensor([1, 0])), torch.randn(2, 3)
    similarity = model._compute_similarity_scores(users, events, *pairs)
    expected = model.feature_mlp(features)[:, 0] + 0.1 * similarity  # the gate as it starts
    torch.testing.assert_close(model(users, events, *pairs, features), expected)


@torch.no_grad()
def test_a_feature_outside_the_range_of_the_training_pairs_counts_as_its_edge() -> None:
    torch.manual_seed(0)
    model, inside = network(attributes=1).eval(), torch.rand(40, 3)
    model.normalise([inside[:20], inside[20:]])
    edge = torch.stack([inside.amin(0), inside.amax(0)])
    outside = edge + torch.tensor([[-5.0], [5.0]])
    nothing, pairs = torch.zeros(2, 8), (torch.arange(2), torch.arange(2))
    assert torch.equal(model(nothing, nothing, *pairs, outside), model(nothing, nothing, *pairs, edge))
    model.widen_range([outside[1:]])
    of_edge, of_outside = (model(nothing, nothing, *pairs, features) for features in (edge, outside))
    assert of_edge[0] == of_outside[0] and of_edge[1] != of_outside[1]


@torch.no_grad()
def test_a_feature_that_no_training_pair_has_is_read_as_it_is() -> None:
    torch.manual_seed(0)
    model, features = network(attributes=1).eval(), torch.rand(4, 3)
    features[:, 2] = torch.nan
    model.normalise([features])
    nothing, pairs = torch.zeros(2, 8), (torch.arange(2), torch.arange(2))
    scores = model(nothing, nothing, *pairs, torch.tensor([[0.5, 0.5, 1.0], [0.5, 0.5, 2.0]]))
    assert scores.isfinite().all() and scores[0] != scores[1]


def test_weeks_before_a_user_existed_do_not_change_its_temporal_embedding() -> None:
    torch.manual_seed(0)
    model = network().eval()
    known = torch.tensor([[False, False, True, True]])
    one, two = torch.randn(2, 1, 4, 6)
    two[:, 2:] = one[:, 2:]
    torch.testing.assert_close(model.get_temporal_embeddings(one, known), model.get_temporal_embeddings(two, known))
    assert not torch.allclose(
        model.get_temporal_embeddings(one, known), model.get_temporal_embeddings(one.flip(1), known)
    )


@pytest.mark.parametrize("layers", [1, 2])
def test_a_temporal_embedding_is_the_newest_of_what_the_whole_transformer_gives(layers: int) -> None:
    torch.manual_seed(0)
    model = network(layers=layers, dropout=0.1).eval()
    sequence, known = torch.randn(5, 4, 6), torch.rand(5, 4) < 0.5
    known[:, -1] = True
    tokens = model.position(model.project_user(torch.cat([sequence, known[..., None].float()], dim=-1)))
    whole = model.transformer(tokens, src_key_padding_mask=~known)
    torch.testing.assert_close(model.get_temporal_embeddings(sequence, known), model.norm(whole[:, -1]))


def test_positions_are_told_apart_by_sinusoids() -> None:
    encoded = PositionalEncoding(4, 3)(torch.zeros(1, 3, 4))[0]
    torch.testing.assert_close(encoded[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(encoded[2, :2], torch.tensor([math.sin(2), math.cos(2)]))
