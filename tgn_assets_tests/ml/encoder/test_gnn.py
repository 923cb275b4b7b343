"""The encoder as a module: whole graph, sampled batches and layer by layer agree."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData

from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.encoder import gnn
from tgn_assets.ml.encoder.batching import ResolvedBatching
from tgn_assets.ml.encoder.gnn import GNNEncoder, WeightedMeanSAGEConv
from tgn_assets.ml.graph.loaders import layer_loaders, link_loader
from tgn_assets.ml.graph.temporal_graph import EdgeType, GraphView, WindowGraph, mean_matrix, user_rows
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, Row, habits, snapshots

WEEKS = 12
LAST = shift(START, WEEKS - 1)


@pytest.fixture(scope="module")
def graph() -> WindowGraph:
    return WindowGraph(snapshots(habits(weeks=WEEKS), range(WEEKS)), 4.0)


@pytest.fixture(scope="module")
def view(graph: WindowGraph) -> GraphView:
    return graph.view(week_number(LAST) - 1, 6)


def encoder(view: GraphView, layers: int = 2, max_user_ids: int = 2**18) -> GNNEncoder:
    """An encoder with weights unlike those of a fresh one, in which much is zero."""
    torch.manual_seed(0)
    sizes = {kind: len(known) for kind, known in view.known.items()}
    config = GNNConfig(dim=8, layers=layers, fan_out=[-1] * layers, max_user_ids=max_user_ids)
    model = GNNEncoder(sizes, view.features[USER].shape[1], config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def assert_same_vectors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for kind in (USER, EVENT):
        torch.testing.assert_close(found[kind], expected[kind], atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("batching", ["full", "sampled"])
def test_inference_of_one_layer_by_hand(batching: ResolvedBatching) -> None:
    rows: list[Row] = [("ann", "tea", 0, 1), ("ann", "jam", 1, 1), ("bob", "tea", 1, 3)]
    view = WindowGraph(snapshots(rows, range(2)), half_life=1.0).view(week_number(START) + 1, window=8)
    model = encoder(view, layers=1)
    with torch.no_grad():
        x = {kind: model.embed(kind, None, view.features[kind]) for kind in (USER, EVENT)}
        tea, jam = x[EVENT]
        ann, _ = x[USER]
        mean = tea / 3 + jam * 2 / 3  # each is ln 2 of a weight, and tea is a week older
        layer: Any = model.convs[0]
        conv, share = layer.convs[REV_INTERACTS], model.layer_weight[USER].softmax(0)
        expected = share[0] * ann + share[1] * (conv.lin_l(mean) + conv.lin_r(ann))
    found = model.inference(view, batching=batching)[USER][0]
    torch.testing.assert_close(found, torch.cat([expected, torch.ones(1)]))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("edges_per_batch", [1, 40, 10**6])
def test_layerwise_inference_equals_whole_graph(
    view: GraphView, monkeypatch: pytest.MonkeyPatch, layers: int, edges_per_batch: int
) -> None:
    monkeypatch.setattr(gnn, "layer_loaders", partial(layer_loaders, edges_per_batch=edges_per_batch))
    monkeypatch.setattr(gnn, "NODES_PER_BATCH", 7)
    model = encoder(view, layers)
    found = model.inference(view, batching="sampled", sampler="native")
    assert_same_vectors(found, model.inference(view))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"), st.integers(0, 4), st.integers(1, 3)),
        max_size=40,
    ),
    st.integers(1, 20),
)
def test_layerwise_inference_equals_whole_graph_on_random_graphs(rows: list[Row], edges_per_batch: int) -> None:
    view = WindowGraph(snapshots(rows, range(5)), 2.0).view(week_number(START) + 4, window=3)
    model = encoder(view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gnn, "layer_loaders", partial(layer_loaders, edges_per_batch=edges_per_batch))
        found = model.inference(view, batching="sampled", sampler="native")
    assert_same_vectors(found, model.inference(view))


def test_layerwise_inference_holds_one_batch_at_a_time(view: GraphView, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def seen(batch: HeteroData, edge_type: EdgeType) -> tuple[Tensor, Tensor]:
        sizes.append(batch[edge_type].num_edges)
        return mean_matrix(batch, edge_type)

    monkeypatch.setattr(gnn, "layer_loaders", partial(layer_loaders, edges_per_batch=50))
    monkeypatch.setattr(gnn, "mean_matrix", seen)
    encoder(view).inference(view, batching="sampled", sampler="native")
    edges, of_a_node = len(view.edge_week), int(view.edge_index[1].bincount().max())
    assert sum(sizes) == 2 * 2 * edges  # each edge once a layer and direction
    assert max(sizes) < 50 + of_a_node < edges


def test_sampled_pass_with_all_neighbours_equals_whole_graph(graph: WindowGraph, view: GraphView) -> None:
    links, _ = graph.links(week_number(LAST), view)
    model = encoder(view)
    whole = model.inference(view)
    for batch in link_loader(view.data, links, GNNConfig(fan_out=[-1, -1], batch_size=5)):
        pairs = batch[INTERACTS].edge_label_index
        with torch.no_grad():
            vectors = model.sampled_pass(batch, view)
        for kind, local in zip((USER, EVENT), pairs, strict=True):
            torch.testing.assert_close(vectors[kind][local], whole[kind][batch[kind].n_id[local]])


@pytest.mark.parametrize("max_user_ids", [0, 2**18])
def test_full_pass_of_some_users_has_vectors_and_gradients_of_all(view: GraphView, max_user_ids: int) -> None:
    model, users = encoder(view, max_user_ids=max_user_ids), torch.tensor([7, 0, 3])
    found = []
    for vectors in (model.full_pass(view), model.full_pass(view, rows=user_rows(view.adjacency, users))):
        of_users = vectors[USER] if len(vectors[USER]) == 3 else vectors[USER][users]
        model.zero_grad()
        (of_users.sin().sum() + vectors[EVENT].cos().sum()).backward()
        found.append([of_users, vectors[EVENT], *(parameter.grad for parameter in model.parameters())])
    for whole, some in zip(*found, strict=True):
        torch.testing.assert_close(some, whole)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_users_without_ids_have_the_vectors_and_gradients_of_ids_of_zero(view: GraphView, layers: int) -> None:
    model, without = encoder(view, layers), encoder(view, layers, max_user_ids=0)
    with torch.no_grad():
        model.ids[USER].zero_()
    model.load_state_dict(without.state_dict(), strict=False)
    found = []
    for each in (model, without):
        vectors = each.full_pass(view)
        (vectors[USER].sin().sum() + vectors[EVENT].cos().sum()).backward()
        shared = [parameter.grad for name, parameter in each.named_parameters() if name != f"ids.{USER}"]
        found.append([vectors[USER], vectors[EVENT], *shared])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)
    assert_same_vectors(without.inference(view, batching="sampled"), model.inference(view))


@pytest.mark.parametrize("edge_type", [INTERACTS, REV_INTERACTS])
def test_conv_has_the_gradients_of_a_dense_product(view: GraphView, edge_type: EdgeType) -> None:
    conv, matrices = WeightedMeanSAGEConv(4), view.adjacency[edge_type]
    torch.nn.init.normal_(conv.lin_r.weight)  # it starts at zero
    targets, sources = (torch.randn(size, 4, requires_grad=True) for size in matrices[0].shape)
    found = conv((sources, targets), matrices)
    expected = conv.lin_l(matrices[0].to_dense() @ sources) + conv.lin_r(targets)
    torch.testing.assert_close(found, expected)
    learned = [sources, targets, *conv.parameters()]
    for ours, torchs in zip(*(torch.autograd.grad((x**2).sum(), learned) for x in (found, expected)), strict=True):
        torch.testing.assert_close(ours, torchs)
        assert ours.abs().sum() > 0
