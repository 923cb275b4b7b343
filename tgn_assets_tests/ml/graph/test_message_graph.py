import pytest
import torch
from torch_geometric.sampler import NegativeSampling

from tgn_assets.ml.graph.loaders import message_graph
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets_tests.support.graphs import bipartite, edge_set, loader, random_graph

TRIPLET = NegativeSampling("triplet", 2)


def test_a_cut_takes_the_edges_of_both_directions_and_keeps_their_names():
    graph = bipartite(2, 2, [(0, 0, 3), (0, 1, 1), (1, 1, 2)])
    cut = message_graph(message_graph(graph, 3), 2)
    for edge_type in (INTERACTS, REV_INTERACTS):
        assert cut[edge_type].e_id.tolist() == [1]
        assert cut[edge_type].edge_time.tolist() == [1]
    assert (cut[USER].num_nodes, cut[EVENT].num_nodes, graph[INTERACTS].num_edges) == (2, 2, 3)
    (batch,) = loader(cut, [(0, 0)])
    assert batch[REV_INTERACTS].e_id.tolist() == [1]


@pytest.mark.parametrize("negatives", [None, NegativeSampling("binary", 2), TRIPLET])
def test_no_supervised_pair_is_in_its_own_message_graph(negatives):
    graph = random_graph()
    for batch in loader(graph, graph[INTERACTS].edge_index, neg_sampling=negatives, exclude_links=True):
        if negatives is TRIPLET:
            user = batch[USER].n_id[batch[USER].src_index]
            positive = batch[EVENT].n_id[batch[EVENT].dst_pos_index]
            negative = batch[EVENT].n_id[batch[EVENT].dst_neg_index]
            pairs = {
                (u, e) for u, *es in torch.cat([user[:, None], positive[:, None], negative], 1).tolist() for e in es
            }
        else:
            user, event = batch[INTERACTS].edge_label_index
            pairs = set(zip(batch[USER].n_id[user].tolist(), batch[EVENT].n_id[event].tolist(), strict=True))
        assert pairs
        assert not pairs & edge_set(batch, INTERACTS)
        assert not pairs & {(user, event) for event, user in edge_set(batch, REV_INTERACTS)}
        assert sum(batch[INTERACTS].num_sampled_edges) == batch[INTERACTS].num_edges


def test_only_the_supervised_pairs_go_not_what_else_joins_their_ends():
    graph = bipartite(2, 2, [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)])
    (batch,) = loader(graph, [(0, 0), (1, 1)], exclude_links=True)
    assert edge_set(batch, INTERACTS) == edge_set(batch, REV_INTERACTS) == {(0, 1), (1, 0)}


def test_with_times_only_the_link_itself_is_left_out_and_earlier_visits_stay():
    graph = bipartite(2, 2, [(0, 0, 1), (0, 0, 2), (1, 0, 2)])
    (batch,) = loader(graph, [(0, 0)], seed_time=torch.tensor([2]), exclude_links=True)
    assert sorted(batch[INTERACTS].e_id.tolist()) == [0, 2]
    assert sorted(batch[REV_INTERACTS].e_id.tolist()) == [0, 2]
    (batch,) = loader(graph, [(0, 0)], seed_time=torch.tensor([2]) - 1)
    assert batch[INTERACTS].e_id.tolist() == batch[REV_INTERACTS].e_id.tolist() == [0]
