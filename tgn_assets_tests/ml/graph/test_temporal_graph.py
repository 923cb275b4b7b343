import torch

from tgn_assets.ml.config import NodeFeatureConfig
from tgn_assets.ml.graph.temporal_graph import WindowGraph
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, Row, snapshots

W = week_number(START)
ROWS: list[Row] = [
    ("ann", "tea", 0, 1),
    ("bob", "tea", 1, 1),
    ("ann", "jam", 2, 3),
    ("ann", "tea", 2, 1),
    ("cat", "pie", 3, 1),
]


def graph(half_life: float = 1.0) -> WindowGraph:
    return WindowGraph(snapshots(ROWS, range(4)), half_life)


def test_view_has_edges_of_its_window_and_none_newer() -> None:
    view = graph().view(W + 2, window=2)
    assert sorted(view.edge_week.tolist()) == [W + 1, W + 2, W + 2]
    assert view.known[USER].tolist() == [True, True, False]


def test_edge_weight_is_log_count_halved_every_half_life() -> None:
    view = graph(half_life=1.0).view(W + 2, window=3)
    weight = dict(zip(view.edge_week.tolist(), view.edge_weight, strict=True))
    torch.testing.assert_close(weight[W], torch.tensor(2.0).log() / 4)
    torch.testing.assert_close(weight[W + 1], torch.tensor(2.0).log() / 2)


def test_adjacency_rows_sum_to_one_or_are_empty() -> None:
    adjacency = graph().view(W + 2, window=3).adjacency
    to_users = adjacency[REV_INTERACTS][0].to_dense()
    assert to_users.shape == (3, 3)
    torch.testing.assert_close(to_users.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(adjacency[INTERACTS][0].to_dense().sum(1), torch.tensor([1.0, 1.0, 0.0]))


def test_unknown_node_has_zero_features() -> None:
    features = graph().view(W + 2, window=3).features
    assert features[USER].shape == (3, 7)
    assert not features[USER][2].any() and features[USER][0].any()


def test_recent_counts_are_features_with_the_configured_half_lives() -> None:
    config = NodeFeatureConfig(recent_half_lives=[1.0], scale=2.0)
    window = WindowGraph(snapshots(ROWS, range(4)), 1.0, config)
    features = window.view(W + 2, window=3).features
    assert window.num_features == features[USER].shape[1] == 5
    recent = torch.tensor(1 / 4 + 3 + 1)  # ann's tea two weeks ago, and what she did in this week
    torch.testing.assert_close(features[USER][0, 4], 2.0 * recent.log1p())


def test_links_are_of_known_nodes_and_weigh_one_per_user() -> None:
    window = graph()
    links, weight = window.links(W + 2, window.view(W + 1, window=8))
    assert links.tolist() == [[0], [0]]  # ann-jam is out: nobody knew jam before that week
    assert weight.tolist() == [1.0]


def test_erased_nodes_are_left_out_of_earlier_weeks() -> None:
    weeks = snapshots(ROWS, range(4))
    newest = weeks[shift(START, 3)].data
    newest[USER].node_idx, newest[USER].x = newest[USER].node_idx[1:], newest[USER].x[1:]  # ann is gone
    newest[INTERACTS].edge_index = newest[INTERACTS].edge_index - torch.tensor([[1], [0]])
    window = WindowGraph(weeks, 1.0)
    view = window.view(W + 2, window=3)
    assert window.edge_week.tolist() == [W + 1, W + 3]  # bob's tea and cat's pie
    assert view.edge_index.tolist() == [[0], [0]]
    assert view.known[USER].tolist() == [True, False]
    assert view.features[USER].shape == (2, 7) and view.features[USER][0].any()


def test_view_does_not_depend_on_later_weeks() -> None:
    weeks = snapshots(ROWS, range(4))
    short = WindowGraph({week: weeks[week] for week in sorted(weeks)[:3]}, 2.0).view(W + 2, window=8)
    long = WindowGraph(weeks, 2.0).view(W + 2, window=8)
    assert torch.equal(short.edge_weight, long.edge_weight)
    assert torch.equal(short.features[EVENT], long.features[EVENT][: len(short.features[EVENT])])
