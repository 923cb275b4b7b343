"""The native sampler beside PyG's compiled ones. Not part of `make test`: `make test-samplers` builds them first."""

from typing import Any

import pytest
import torch
import torch_geometric.typing as pyg
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader
from torch_geometric.sampler import NeighborSampler

from tgn_assets.ml.config import GNNConfig, SamplerName
from tgn_assets.ml.graph.loaders import layer_loaders, link_loader
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets_tests.support.graphs import Sage, random_graph

COMPILED: SamplerName = "pyg-lib" if pyg.WITH_PYG_LIB else "torch-sparse"
BOTH: tuple[SamplerName, SamplerName] = ("native", COMPILED)

pytestmark = pytest.mark.skipif(
    not (pyg.WITH_PYG_LIB or pyg.WITH_TORCH_SPARSE),
    reason="neither pyg-lib nor torch-sparse is installed here; `make test-samplers` compiles torch-sparse",
)


@pytest.fixture
def graph() -> HeteroData:
    return random_graph(users=200, events=100, edges=3000)


def batches(graph: HeteroData, sampler: SamplerName, fan_out: list[int], seed: int = 0, **options: Any) -> LinkLoader:
    """The first 600 edges as links, 50 a batch."""
    links = graph[INTERACTS].edge_index[:, :600]
    config = GNNConfig(layers=len(fan_out), fan_out=fan_out, batch_size=50, sampler=sampler, seed=seed)
    return link_loader(graph, links, config, **options)


def contents(batch: HeteroData) -> dict[object, list[int]]:
    """The nodes and edges of a batch, in positions of the graph it was drawn from."""
    found: dict[object, list[int]] = {kind: sorted(batch[kind].n_id.tolist()) for kind in (USER, EVENT)}
    return found | {edge_type: sorted(batch[edge_type].e_id.tolist()) for edge_type in (INTERACTS, REV_INTERACTS)}


def test_auto_takes_the_compiled_sampler_of_pyg(graph: HeteroData) -> None:
    assert type(batches(graph, "auto", [2]).link_sampler) is NeighborSampler
    assert {type(loader.node_sampler) for loader in layer_loaders(graph).values()} == {NeighborSampler}


@pytest.mark.parametrize("hops", [1, 2])
def test_all_neighbours_are_the_same_nodes_and_edges(graph: HeteroData, hops: int) -> None:
    for ours, theirs in zip(*(batches(graph, sampler, [-1] * hops) for sampler in BOTH), strict=True):
        assert contents(ours) == contents(theirs)
        for edge_type in (INTERACTS, REV_INTERACTS):
            for batch in (ours, theirs):
                source, target = batch[edge_type].edge_index
                ends = torch.stack([batch[edge_type[0]].n_id[source], batch[edge_type[2]].n_id[target]])
                assert torch.equal(ends, graph[edge_type].edge_index[:, batch[edge_type].e_id])


@pytest.mark.parametrize("kind", [USER, EVENT])
def test_layer_batches_give_the_embeddings_of_the_whole_graph(graph: HeteroData, kind: str) -> None:
    model = Sage(hops=1)
    whole = model(graph)[kind]
    for sampler in BOTH:
        loader = layer_loaders(graph, sampler=sampler, edges_per_batch=400)[kind]
        vectors = torch.cat([model(batch)[kind] for batch in loader])
        torch.testing.assert_close(vectors, whole, atol=1e-5, rtol=0)


def test_a_fan_out_gives_every_seed_the_same_degree(graph: HeteroData) -> None:
    degree = torch.bincount(graph[INTERACTS].edge_index[0], minlength=200)
    for sampler in BOTH:
        for batch in batches(graph, sampler, [10]):
            seeds = batch[INTERACTS].edge_label_index[0].unique()
            drawn = torch.bincount(batch[REV_INTERACTS].edge_index[1], minlength=batch[USER].num_nodes)[seeds]
            assert torch.equal(drawn, degree[batch[USER].n_id[seeds]].clamp(max=10))


def test_a_fan_out_draws_as_many_nodes_and_every_user_as_often(graph: HeteroData) -> None:
    torch.manual_seed(0)
    mean, often = dict[str, Tensor](), dict[str, Tensor]()
    for sampler in BOTH:
        loader = batches(graph, sampler, [4, 3], seed=1)
        drawn = [batch for _ in range(20) for batch in loader]
        sizes = [[b.num_nodes, b[INTERACTS].num_edges, b[REV_INTERACTS].num_edges] for b in drawn]
        mean[sampler] = torch.tensor(sizes, dtype=torch.float32).mean(0)
        users = torch.cat([b[USER].n_id[b[REV_INTERACTS].edge_index[1]] for b in drawn])
        often[sampler] = torch.bincount(users, minlength=200)
    torch.testing.assert_close(*mean.values(), rtol=0.01, atol=0)
    ours, theirs = often.values()
    # Two counts of one rate differ, in variance, by about their sum. Single edges are not compared: torch-sparse 0.6.18
    # draws a node's last neighbours too rarely (rusty1s/pytorch_sparse issue 385); test_neighbor_sampler tests ours.
    assert float(((ours - theirs) ** 2 / (ours + theirs).clamp(min=1)).mean()) < 1.5


def test_a_fixed_model_has_the_same_loss_on_average(graph: HeteroData) -> None:
    model = Sage()
    torch.manual_seed(0)

    def loss(batch: HeteroData) -> Tensor:
        vectors = model(batch)
        users, events = vectors[USER][batch[USER].src_index], vectors[EVENT]
        logits = [(users * events[batch[EVENT][name]]).sum(1) for name in ("dst_pos_index", "dst_neg_index")]
        return F.binary_cross_entropy_with_logits(torch.cat(logits), torch.tensor([1.0, 0.0]).repeat_interleave(50))

    drawn = {}
    for sampler in BOTH:
        loader = batches(graph, sampler, [4, 3], may_be_negative=torch.ones(100, dtype=torch.bool))
        drawn[sampler] = torch.stack([loss(batch) for _ in range(20) for batch in loader])
    ours, theirs = drawn.values()
    error = ((ours.var() + theirs.var()) / len(ours)).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 3 * error
    assert error < 0.01 * ours.mean()


def test_negatives_are_events_that_may_be_negative(graph: HeteroData) -> None:
    allowed = (torch.arange(100) >= 20) & (torch.arange(100) < 50)
    for sampler in BOTH:
        loader = batches(graph, sampler, [3], may_be_negative=allowed)
        drawn = torch.cat([batch[EVENT].n_id[batch[EVENT].dst_neg_index] for batch in loader])
        assert set(drawn.tolist()) == set(range(20, 50))
