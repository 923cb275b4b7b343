import pytest
import torch
from torch_geometric.loader import LinkLoader, NodeLoader

from tgn_assets.ml.config import SamplerName
from tgn_assets.ml.graph.loaders import SamplerNotInstalled, installed_sampler, layer_loaders
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets_tests.support.graphs import Sage, assert_same, bipartite, edge_set, loader, random_graph

PYG_LIB, TORCH_SPARSE = "torch_geometric.typing.WITH_PYG_LIB", "torch_geometric.typing.WITH_TORCH_SPARSE"


def test_embeddings_from_link_batches_equal_whole_graph() -> None:
    graph, model = random_graph(), Sage()
    whole = model(graph)
    for batch in loader(graph, graph[INTERACTS].edge_index):
        vectors, ends = model(batch), batch[INTERACTS].edge_label_index
        for kind, number in zip((USER, EVENT), ends, strict=True):
            torch.testing.assert_close(vectors[kind][number], whole[kind][batch[kind].n_id[number]], atol=1e-5, rtol=0)


def test_same_seed_gives_same_batches_and_next_epoch_others() -> None:
    graph = random_graph()
    options = {"fan_out": [3, 2], "may_be_negative": torch.ones(20, dtype=torch.bool), "shuffle": True}
    make = [loader(graph, graph[INTERACTS].edge_index, seed=seed, **options) for seed in (1, 1, 2)]
    torch.manual_seed(99)  # what else draws from torch's global generator must not matter
    first, again, other = (list(batches) for batches in make)
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    assert not torch.equal(first[0][EVENT].n_id, other[0][EVENT].n_id)
    assert not torch.equal(first[0][EVENT].n_id, next(iter(make[0]))[EVENT].n_id)


def test_negatives_are_events_that_may_be_negative() -> None:
    graph = random_graph()
    links = graph[INTERACTS].edge_index[:, :5]
    (batch,) = loader(graph, links, may_be_negative=torch.isin(torch.arange(20), torch.tensor([3, 4])))
    assert torch.equal(batch[USER].n_id[batch[USER].src_index], links[0])
    assert torch.equal(batch[EVENT].n_id[batch[EVENT].dst_pos_index], links[1])
    assert batch[EVENT].dst_neg_index.shape == (5,)
    assert set(batch[EVENT].n_id[batch[EVENT].dst_neg_index].tolist()) <= {3, 4}
    assert batch[INTERACTS].input_id.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("edges", [[], [(0, 0)]])
def test_isolated_nodes_give_empty_neighbourhoods(edges: list[tuple[int, int]]) -> None:
    (batch,) = loader(bipartite(4, 3, edges), [(2, 1), (3, 2)])
    assert sorted(batch[USER].n_id.tolist()) == [2, 3]
    for edge_type in (INTERACTS, REV_INTERACTS):
        assert batch[edge_type].edge_index.shape == (2, 0)
        assert batch[edge_type].e_id.shape == batch[edge_type].edge_weight.shape == (0,)
    assert Sage()(batch)[EVENT].shape == (2, 4)


@pytest.mark.parametrize("edges_per_batch", [1, 17, 10**6])
def test_layer_batches_have_every_node_once_with_all_its_edges(edges_per_batch: int) -> None:
    graph = random_graph()
    loaders = layer_loaders(graph, sampler="native", edges_per_batch=edges_per_batch)
    for kind, edge_type in ((USER, REV_INTERACTS), (EVENT, INTERACTS)):
        batches = list(loaders[kind])
        assert torch.cat([batch[kind].n_id for batch in batches]).tolist() == list(range(graph[kind].num_nodes))
        assert sorted(torch.cat([batch[edge_type].e_id for batch in batches]).tolist()) == list(range(150))
        for batch in batches:
            source, target = graph[edge_type].edge_index
            into = torch.isin(target, batch[kind].n_id)
            expected = set(zip(source[into].tolist(), target[into].tolist(), strict=True))
            assert edge_set(batch, edge_type) == expected
        size = [len(batch[kind].n_id) + batch[edge_type].num_edges for batch in batches]
        most = 1 + int(torch.bincount(target).max())  # of a single node
        assert max(size) < edges_per_batch + most


def test_layer_batches_of_an_empty_graph_are_none() -> None:
    assert [list(batches) for batches in layer_loaders(bipartite(0, 0, []), sampler="native").values()] == [[], []]


def test_layer_batches_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for batches in layer_loaders(random_graph(), sampler="native").values():
        list(batches)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("name", "pyg_lib", "torch_sparse", "chosen"),
    [
        ("auto", False, False, "native"),
        ("auto", False, True, "torch-sparse"),
        ("auto", True, True, "pyg-lib"),
        ("native", True, True, "native"),
        ("pyg-lib", True, False, "pyg-lib"),
        ("torch-sparse", False, True, "torch-sparse"),
    ],
)
def test_auto_takes_an_installed_compiled_sampler(
    monkeypatch: pytest.MonkeyPatch, name: SamplerName, pyg_lib: bool, torch_sparse: bool, chosen: str
) -> None:
    monkeypatch.setattr(PYG_LIB, pyg_lib)
    monkeypatch.setattr(TORCH_SPARSE, torch_sparse)
    assert installed_sampler(name) == chosen


def test_a_sampler_that_is_not_installed_says_where_to_read_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PYG_LIB, False)
    monkeypatch.setattr(TORCH_SPARSE, True)
    with pytest.raises(SamplerNotInstalled, match="'pyg-lib' is not installed; docs/deployment"):
        loader(bipartite(2, 2, [(0, 0)]), [(0, 0)], sampler="pyg-lib")
    monkeypatch.setattr(PYG_LIB, True)
    with pytest.raises(SamplerNotInstalled, match="'torch-sparse' cannot be had while pyg-lib is installed"):
        layer_loaders(bipartite(2, 2, [(0, 0)]), sampler="torch-sparse")


def test_native_sampler_is_taken_where_a_compiled_one_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TORCH_SPARSE, True)
    graph = bipartite(2, 2, [(0, 0)])
    assert type(loader(graph, [(0, 0)], sampler="native")) is LinkLoader
    assert {type(batches) for batches in layer_loaders(graph, sampler="native").values()} == {NodeLoader}
