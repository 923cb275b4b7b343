from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.sampler import NegativeSampling
from torch_geometric.utils import k_hop_subgraph

from tgn_assets.ml.graph import neighbor_index
from tgn_assets.ml.graph.loaders import fits_in_memory, message_graph, node_loader
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets_tests.support.graphs import Sage, assert_same, bipartite, edge_set, loader, random_graph

TRIPLET = NegativeSampling("triplet", 2)


def test_a_batch_is_the_two_hop_neighbourhood_of_its_links():
    graph = bipartite(4, 3, [(0, 0, 1), (1, 0, 2), (1, 1, 3), (2, 1, 4), (3, 2, 5)])
    (batch,) = loader(graph, [(0, 0)])
    assert batch[USER].n_id.tolist() == [0, 1]
    assert batch[EVENT].n_id.tolist() == [0, 1]
    # Event 1 is two hops from user 0 and three from event 0: nothing is asked of its own neighbours but in vain.
    assert edge_set(batch, INTERACTS) == {(0, 0), (1, 0)}
    assert edge_set(batch, REV_INTERACTS) == {(0, 0), (0, 1), (1, 1)}
    assert batch[INTERACTS].edge_time.tolist() == graph[INTERACTS].edge_time[batch[INTERACTS].e_id].tolist()
    assert batch[INTERACTS].edge_label_index.tolist() == [[0], [0]]


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_taking_all_neighbours_gives_the_nodes_and_edges_of_pygs_k_hop_subgraph(hops):
    graph = random_graph(edges=60)
    link = torch.tensor([[3], [5]])
    (batch,) = loader(graph, link, fan_out=[-1] * hops)

    user, event = graph[INTERACTS].edge_index
    both_ways = torch.cat([torch.stack([user, event + 30]), torch.stack([event + 30, user])], dim=1)
    seeds = torch.tensor([3, 35])
    nodes, _, _, _ = k_hop_subgraph(seeds, hops, both_ways, num_nodes=50)
    inner, _, _, _ = k_hop_subgraph(seeds, hops - 1, both_ways, num_nodes=50) if hops > 1 else (seeds, *[None] * 3)
    assert sorted(batch[USER].n_id.tolist() + (batch[EVENT].n_id + 30).tolist()) == nodes.tolist()
    assert batch[INTERACTS].e_id.sort().values.tolist() == torch.isin(event + 30, inner).nonzero().view(-1).tolist()
    assert batch[REV_INTERACTS].e_id.sort().values.tolist() == torch.isin(user, inner).nonzero().view(-1).tolist()


def test_embeddings_from_batches_equal_those_of_the_whole_graph():
    graph, model = random_graph(), Sage()
    whole = model(graph)
    for batch in loader(graph, graph[INTERACTS].edge_index, neg_sampling=NegativeSampling("binary", 1)):
        vectors, ends = model(batch), batch[INTERACTS].edge_label_index
        for kind, number in zip((USER, EVENT), ends, strict=True):
            torch.testing.assert_close(vectors[kind][number], whole[kind][batch[kind].n_id[number]], atol=1e-5, rtol=0)
    for kind in (USER, EVENT):
        batches = node_loader(graph, kind, fan_out=[-1, -1], batch_size=7, backend="native")
        vectors = torch.cat([model(batch)[kind][: batch[kind].batch_size] for batch in batches])
        torch.testing.assert_close(vectors, whole[kind], atol=1e-5, rtol=0)


def test_each_seed_sees_the_graph_as_it_was_at_its_time():
    graph, model = random_graph(), Sage()
    nodes, time = torch.arange(30).repeat(3), torch.tensor([0, 2, 4]).repeat_interleave(30)
    options = {"seed_time": time, "fan_out": [-1, -1], "batch_size": 45, "backend": "native"}
    batches = node_loader(graph, USER, nodes, **options)
    vectors = torch.cat([model(batch)[USER][: batch[USER].batch_size] for batch in batches])
    then = [model(message_graph(graph, t + 1))[USER] for t in (0, 2, 4)]
    torch.testing.assert_close(vectors, torch.cat(then), atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    edges=st.integers(0, 120),
    fan_out=st.lists(st.sampled_from([-1, 1, 2, 5]), min_size=1, max_size=3),
    times=st.lists(st.integers(-1, 6), min_size=1, max_size=6),
    sort=st.booleans(),
)
def test_no_edge_is_newer_than_its_seed_and_fan_outs_hold(seed, edges, fan_out, times, sort):
    graph = random_graph(users=12, events=8, edges=edges, seed=seed)
    links, time = torch.stack([torch.arange(len(times)), torch.arange(len(times))]), torch.tensor(times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbor_index, "MAX_TABLE", 0 if sort else 2**20)
        (batch,) = loader(graph, links, fan_out=fan_out, seed_time=time, seed=seed)
    moments = batch[INTERACTS].edge_label_time.unique()
    for edge_type in (INTERACTS, REV_INTERACTS):
        (source, _, target), store = edge_type, batch[edge_type]
        row, col = store.edge_index
        assert torch.equal(batch[source].batch[row], batch[target].batch[col])
        assert (store.edge_time <= moments[batch[target].batch[col]]).all()
        ends = torch.stack([batch[source].n_id[row], batch[target].n_id[col]])
        assert torch.equal(graph[edge_type].edge_index[:, store.e_id], ends)
        drawn = Counter(zip(store.e_id.tolist(), col.tolist(), strict=True))
        assert not drawn or max(drawn.values()) == 1
        if -1 not in fan_out and len(col):
            assert int(torch.bincount(col).max()) <= max(fan_out)
        assert sum(store.num_sampled_edges) == len(col)
    for kind in (USER, EVENT):
        instances = list(zip(batch[kind].n_id.tolist(), batch[kind].batch.tolist(), strict=True))
        assert len(set(instances)) == len(instances) == sum(batch[kind].num_sampled_nodes)


def test_the_same_seed_gives_the_same_batches_and_the_next_epoch_others():
    graph = random_graph()
    make = [
        loader(graph, graph[INTERACTS].edge_index, fan_out=[3, 2], neg_sampling=TRIPLET, shuffle=True, seed=seed)
        for seed in (1, 1, 2)
    ]
    torch.manual_seed(99)  # what else draws from torch's global generator must not matter
    first, again, other = (list(batches) for batches in make)
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    assert not torch.equal(first[0][EVENT].n_id, other[0][EVENT].n_id)
    assert not torch.equal(first[0][EVENT].n_id, next(iter(make[0]))[EVENT].n_id)


@pytest.mark.parametrize("edges", [[], [(0, 0, 1)]])
@pytest.mark.parametrize("time", [None, torch.tensor([5, 0])])
def test_isolated_nodes_and_empty_graphs_give_empty_tensors(edges, time):
    graph = bipartite(4, 3, edges)
    (batch,) = loader(graph, [(2, 1), (3, 2)], seed_time=time, exclude_links=True)
    assert sorted(batch[USER].n_id.tolist()) == [2, 3]
    for edge_type in (INTERACTS, REV_INTERACTS):
        assert batch[edge_type].edge_index.shape == (2, 0)
        assert batch[edge_type].e_id.shape == batch[edge_type].edge_time.shape == (0,)
    assert Sage()(batch)[EVENT].shape == (2, 4)


def test_a_node_type_that_is_never_reached_has_no_nodes():
    (batch,) = node_loader(bipartite(2, 0, []), USER, fan_out=[2, 2], batch_size=2, backend="native")
    assert batch[USER].n_id.tolist() == [0, 1]
    assert batch[EVENT].n_id.tolist() == []
    assert batch[EVENT].x.shape == (0, 4)


def test_negatives_have_the_shapes_and_labels_of_pyg():
    graph = random_graph()
    links = graph[INTERACTS].edge_index[:, :5]
    (batch,) = loader(graph, links, neg_sampling=NegativeSampling("binary", 1.5))
    assert batch[INTERACTS].edge_label.tolist() == [1.0] * 5 + [0.0] * 8
    assert batch[INTERACTS].edge_label_index.shape == (2, 13)
    (batch,) = loader(graph, links, neg_sampling=TRIPLET, seed_time=torch.full((5,), 9))
    assert batch[EVENT].dst_neg_index.shape == (5, 2)
    assert batch[USER].seed_time.tolist() == [9] * 5
    (batch,) = loader(graph, links, neg_sampling=NegativeSampling("triplet", 1))
    assert batch[EVENT].dst_neg_index.shape == batch[EVENT].dst_pos_index.shape == (5,)
    assert torch.equal(batch[USER].n_id[batch[USER].src_index], links[0])


def test_bad_requests_are_named(monkeypatch):
    graph = bipartite(2, 2, [(0, 0, 1)])
    with pytest.raises(ValueError, match=r"fan_out .* not \[2, 0\]"):
        loader(graph, [(0, 0)], fan_out=[2, 0])
    with pytest.raises(ValueError, match="user-interacts_with-event have no integer attribute 'when'"):
        loader(graph, [(0, 0)], seed_time=torch.tensor([1]), time_attr="when")
    with pytest.raises(ValueError, match="'pyg-lib' is not at hand; installed: torch-sparse"):
        monkeypatch.setattr("torch_geometric.typing.WITH_PYG_LIB", False)
        monkeypatch.setattr("torch_geometric.typing.WITH_TORCH_SPARSE", True)
        loader(graph, [(0, 0)], backend="pyg-lib")
    with pytest.raises(ValueError, match="seeds of 2 times; use 'native'"):
        loader(graph, [(0, 0), (0, 0)], seed_time=torch.tensor([1, 2]), backend="torch-sparse")
    with pytest.raises(ValueError, match="no node is known at seed time 0"):
        list(loader(bipartite(1, 1, [(0, 0, 1)]), [(0, 0)], seed_time=torch.tensor([0]), neg_sampling=TRIPLET))
    with pytest.raises(ValueError, match="3 weights of negatives for 2 nodes"):
        list(loader(graph, [(0, 0)], neg_sampling=NegativeSampling("triplet", 1, dst_weight=torch.ones(3))))
    with pytest.raises(ValueError, match="the same node, at the same time, more than once"):
        list(node_loader(graph, USER, torch.tensor([1, 1]), fan_out=[1], batch_size=2, backend="native"))


def test_seeds_of_several_times_are_sampled_natively_even_where_a_compiled_sampler_is_installed(monkeypatch):
    monkeypatch.setattr("torch_geometric.typing.WITH_TORCH_SPARSE", True)
    graph = bipartite(2, 2, [(0, 0, 1)])
    batches = loader(graph, [(0, 0), (1, 1)], seed_time=torch.tensor([1, 2]), backend="auto")
    assert type(batches) is LinkLoader
    batches = node_loader(graph, USER, fan_out=[1], batch_size=1, seed_time=torch.tensor([1, 2]))
    assert type(batches) is NodeLoader


def test_the_memory_estimate_grows_with_nodes_edges_width_layers_and_weeks():
    graph = {"nodes": 5, "edges": 2, "dim": 8, "layers": 2, "weeks": 3}
    peak = 4 * 8 * 5 * (3 * 2 + 6) + 20 * 2 * 3
    assert fits_in_memory(**graph, budget_bytes=peak)
    assert not fits_in_memory(**graph, budget_bytes=peak - 1)
    for more in ({"nodes": 6}, {"edges": 3}, {"dim": 9}, {"layers": 3}, {"weeks": 4}):
        assert not fits_in_memory(**graph | more, budget_bytes=peak)
