import pytest
import torch

from tgn_assets.ml.encoder.gnn import NeighbourMean
from tgn_assets.ml.graph.temporal_graph import NUM_FEATURES, WindowGraph
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, snapshots

W = week_number(START)
ROWS = [("ann", "tea", 0, 1), ("bob", "tea", 1, 1), ("ann", "jam", 2, 3), ("ann", "tea", 2, 1), ("cat", "pie", 3, 1)]


def graph(half_life: float = 1.0) -> WindowGraph:
    return WindowGraph(snapshots(ROWS, range(4)), half_life)


def test_a_view_holds_the_edges_of_its_window_and_none_that_is_newer():
    view = graph().view(W + 2, window=2)
    assert sorted(view.data[INTERACTS].edge_week.tolist()) == [W + 1, W + 2, W + 2]
    assert view.known[USER].tolist() == [True, True, False]


def test_an_edge_weighs_the_log_of_its_count_halved_every_half_life():
    view = graph(half_life=1.0).view(W + 2, window=3)
    weight = {
        week: w
        for week, w in zip(view.data[INTERACTS].edge_week.tolist(), view.data[INTERACTS].edge_weight, strict=True)
    }
    torch.testing.assert_close(weight[W], torch.tensor(2.0).log() / 4)
    torch.testing.assert_close(weight[W + 1], torch.tensor(2.0).log() / 2)


def test_adjacency_rows_add_up_to_one_where_a_node_has_neighbours():
    adjacency = graph().view(W + 2, window=3).adjacency
    to_users = adjacency[REV_INTERACTS][0].to_dense()
    assert to_users.shape == (3, 3)
    torch.testing.assert_close(to_users.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(adjacency[INTERACTS][0].to_dense().sum(1), torch.tensor([1.0, 1.0, 0.0]))


def test_a_node_not_seen_yet_has_no_features():
    features = graph().view(W + 2, window=3).features
    assert features[USER].shape == (3, NUM_FEATURES)
    assert not features[USER][2].any() and features[USER][0].any()


def test_links_join_nodes_that_were_known_before_and_share_a_weight_of_one_per_user():
    window = graph()
    links, weight = window.links(W + 2, window.view(W + 1, window=8))
    assert links.tolist() == [[0], [0]]  # ann-jam is out: nobody knew jam before that week
    assert weight.tolist() == [1.0]


def test_a_stale_snapshot_that_knows_removed_nodes_is_refused():
    weeks = snapshots(ROWS, range(4))
    weeks[shift(START, 3)] = snapshots(ROWS[1:2], range(3, 4))[shift(START, 3)]
    with pytest.raises(ValueError, match=r"snapshot of week 2024-01-08 .* materialize weekly_snapshots"):
        WindowGraph(weeks, 1.0)


def test_the_past_of_a_graph_does_not_depend_on_its_future():
    weeks = snapshots(ROWS, range(4))
    short = WindowGraph({week: weeks[week] for week in sorted(weeks)[:3]}, 2.0).view(W + 2, window=8)
    long = WindowGraph(weeks, 2.0).view(W + 2, window=8)
    assert torch.equal(short.data[INTERACTS].edge_weight, long.data[INTERACTS].edge_weight)
    assert torch.equal(short.features[EVENT], long.features[EVENT][: len(short.features[EVENT])])


def test_the_mean_of_neighbours_has_the_gradient_that_torch_would_find():
    adjacency = graph().view(W + 2, window=3).adjacency
    conv, sources, targets = NeighbourMean(4), torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    out = conv((sources, targets), adjacency[INTERACTS])
    expected = conv.lin_l(adjacency[INTERACTS][0].to_dense() @ sources) + conv.lin_r(targets)
    torch.testing.assert_close(out, expected)
    mine, torchs = (torch.autograd.grad((x**2).sum(), sources)[0] for x in (out, expected))
    torch.testing.assert_close(mine, torchs)
    assert mine.abs().sum() > 0
