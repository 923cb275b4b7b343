from collections import Counter
from itertools import combinations

import pytest
import torch
from tgn_assets.ml.graph.neighbor_index import KnownNodes, NeighborIndex, first_times
from torch_geometric.sampler import NegativeSampling

from tgn_assets.ml.graph import neighbor_index
from tgn_assets.ml.schema import EVENT, INTERACTS, USER
from tgn_assets_tests.support.graphs import assert_same, bipartite, loader, random_graph

TRIPLET = NegativeSampling("triplet", 2)


@pytest.mark.parametrize("degree", [7, 60])
def test_every_set_of_neighbours_is_equally_likely(degree):
    index = NeighborIndex(torch.stack([torch.arange(degree), torch.zeros(degree, dtype=torch.int64)]), None, 1)
    draws = 20_000
    which, source, _ = index.sample(torch.zeros(draws, dtype=torch.int64), None, 3, torch.Generator().manual_seed(1))
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


def test_a_table_lookup_and_sorting_number_nodes_alike(monkeypatch):
    graph = random_graph()
    options = {"fan_out": [3, 2], "seed_time": graph[INTERACTS].edge_time, "neg_sampling": TRIPLET}
    looked_up = list(loader(graph, graph[INTERACTS].edge_index, **options))
    monkeypatch.setattr(neighbor_index, "MAX_TABLE", 0)
    for a, b in zip(looked_up, loader(graph, graph[INTERACTS].edge_index, **options), strict=True):
        assert_same(a, b)


def test_negatives_are_events_known_by_the_time_of_their_link():
    graph = bipartite(4, 4, [(0, 0, 1), (1, 1, 2), (2, 2, 3)])
    assert first_times(graph, "edge_time")[EVENT].tolist() == [1, 2, 3, -(2**63)]
    links, time = torch.zeros(2, 300, dtype=torch.int64), torch.tensor([0, 1, 2]).repeat(100)
    options = {"seed_time": time, "batch_size": 300}
    (triplets,) = loader(graph, links, neg_sampling=TRIPLET, **options)
    (binary,) = loader(graph, links, neg_sampling=NegativeSampling("binary", 1), **options)
    for t, known in ((0, {3}), (1, {0, 3}), (2, {0, 1, 3})):
        assert set(triplets[EVENT].n_id[triplets[EVENT].dst_neg_index[time == t]].flatten().tolist()) == known
        for kind, number in zip((USER, EVENT), binary[INTERACTS].edge_label_index[:, 300:], strict=True):
            assert set(binary[kind].n_id[number[time == t]].tolist()) == known


def test_negatives_follow_their_weights_and_never_have_none():
    nodes = KnownNodes(torch.tensor([3, 1, 2, 1]))
    weight, generator = torch.tensor([5.0, 1.0, 3.0, 0.0]), torch.Generator().manual_seed(0)
    share = torch.bincount(nodes.draw(9000, weight, None, generator), minlength=4) / 9000
    torch.testing.assert_close(share, weight / 9, atol=0.02, rtol=0)
    share = torch.bincount(nodes.draw(9000, weight, torch.full((9000,), 2), generator), minlength=4) / 9000
    torch.testing.assert_close(share, torch.tensor([0, 0.25, 0.75, 0]), atol=0.02, rtol=0)
    assert set(nodes.draw(9000, weight, torch.full((9000,), 1), generator).tolist()) == {1}
