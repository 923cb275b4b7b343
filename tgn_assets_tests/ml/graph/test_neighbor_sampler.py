from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.loader import NodeLoader
from torch_geometric.utils import k_hop_subgraph

from tgn_assets.ml.graph.neighbor_sampler import IncomingEdges, NativeNeighborSampler, NodeNumbering, draw_allowed
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets_tests.support.graphs import bipartite, edge_set, loader, random_graph


def test_batch_is_two_hop_neighbourhood_of_its_links() -> None:
    graph = bipartite(4, 3, [(0, 0), (1, 0), (1, 1), (2, 1), (3, 2)])
    (batch,) = loader(graph, [(0, 0)])
    assert batch[USER].n_id.tolist() == [0, 1]
    assert batch[EVENT].n_id.tolist() == [0, 1]
    # Event 1 is two hops from user 0 and three from event 0: its own neighbours are not asked for.
    assert edge_set(batch, INTERACTS) == {(0, 0), (1, 0)}
    assert edge_set(batch, REV_INTERACTS) == {(0, 0), (0, 1), (1, 1)}
    assert batch[INTERACTS].edge_weight.tolist() == graph[INTERACTS].edge_weight[batch[INTERACTS].e_id].tolist()
    assert batch[INTERACTS].edge_label_index.tolist() == [[0], [0]]


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_all_neighbours_equal_k_hop_subgraph_of_pyg(hops: int) -> None:
    graph = random_graph(edges=60)
    (batch,) = loader(graph, torch.tensor([[3], [5]]), fan_out=[-1] * hops)

    user, event = graph[INTERACTS].edge_index
    both_ways = torch.cat([torch.stack([user, event + 30]), torch.stack([event + 30, user])], dim=1)
    seeds = torch.tensor([3, 35])
    nodes = k_hop_subgraph(seeds, hops, both_ways, num_nodes=50)[0]
    inner = k_hop_subgraph(seeds, hops - 1, both_ways, num_nodes=50)[0] if hops > 1 else seeds
    assert sorted(batch[USER].n_id.tolist() + (batch[EVENT].n_id + 30).tolist()) == nodes.tolist()
    assert batch[INTERACTS].e_id.sort().values.tolist() == torch.isin(event + 30, inner).nonzero().view(-1).tolist()
    assert batch[REV_INTERACTS].e_id.sort().values.tolist() == torch.isin(user, inner).nonzero().view(-1).tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    edges=st.integers(0, 120),
    fan_out=st.lists(st.sampled_from([-1, 1, 2, 5]), min_size=1, max_size=3),
    links=st.integers(1, 6),
)
def test_edges_are_those_of_the_graph_and_fan_outs_hold(seed: int, edges: int, fan_out: list[int], links: int) -> None:
    graph = random_graph(users=12, events=8, edges=edges, seed=seed)
    (batch,) = loader(graph, torch.arange(links).expand(2, -1), fan_out=fan_out, seed=seed)
    for edge_type in (INTERACTS, REV_INTERACTS):
        (source, _, target), store = edge_type, batch[edge_type]
        row, col = store.edge_index
        ends = torch.stack([batch[source].n_id[row], batch[target].n_id[col]])
        assert torch.equal(graph[edge_type].edge_index[:, store.e_id], ends)
        assert len(set(store.e_id.tolist())) == len(store.e_id)
        if -1 not in fan_out and len(col):
            assert int(torch.bincount(col).max()) <= max(fan_out)
    for kind in (USER, EVENT):
        assert len(set(batch[kind].n_id.tolist())) == len(batch[kind].n_id)


@pytest.mark.parametrize("degree", [7, 60])
def test_every_set_of_neighbours_is_equally_likely(degree: int) -> None:
    edges = IncomingEdges(torch.stack([torch.arange(degree), torch.zeros(degree, dtype=torch.int64)]), 1)
    draws = 20_000
    which, source, _ = edges.sample(torch.zeros(draws, dtype=torch.int64), 3, torch.Generator().manual_seed(1))
    sets = torch.empty(draws, 3, dtype=torch.int64)
    sets[which.sort(stable=True).values, torch.arange(3).repeat(draws)] = source[which.argsort(stable=True)]
    assert all(len(set(row)) == 3 for row in sets[:1000].tolist())
    share = torch.bincount(source, minlength=degree) / draws
    assert (share - 3 / degree).abs().max() < 5 * (3 / degree / draws) ** 0.5
    if degree == 7:
        counts = Counter(tuple(sorted(row)) for row in sets.tolist())
        expected = draws / 35
        # 34 degrees of freedom: beyond 75 once in ten thousand.
        assert sum((counts[s] - expected) ** 2 / expected for s in combinations(range(7), 3)) < 75


def test_nodes_are_numbered_by_first_appearance_in_each_batch() -> None:
    numbering = NodeNumbering(9)
    for _ in range(2):
        numbering.clear()
        assert numbering.add(torch.tensor([5, 2, 5])).tolist() == [0, 1, 0]
        first, nodes = numbering.frontier()
        assert (first, nodes.tolist()) == (0, [5, 2])
        assert numbering.add(torch.tensor([8, 2])).tolist() == [2, 1]
        first, nodes = numbering.frontier()
        assert (first, nodes.tolist()) == (2, [8])
        assert numbering.nodes().tolist() == [5, 2, 8]


def test_negatives_are_drawn_uniformly_among_those_allowed() -> None:
    drawn = draw_allowed(torch.tensor([1, 1, 0, 1, 0]), 9000, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=5) / 9000
    torch.testing.assert_close(share, torch.tensor([1, 1, 0, 1, 0]) / 3, atol=0.02, rtol=0)
    assert share[2] == share[4] == 0


def test_a_seed_node_that_repeats_in_a_batch_is_refused() -> None:
    graph = bipartite(2, 2, [(0, 0)])
    batches = NodeLoader(graph, NativeNeighborSampler(graph, [1]), (USER, torch.tensor([1, 1])), batch_size=2)
    with pytest.raises(ValueError, match="holds the same node more than once"):
        list(batches)
