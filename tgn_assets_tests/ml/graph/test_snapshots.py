import math
from pathlib import Path

import torch

from tgn_assets.ml.graph.snapshots import Snapshot, read_snapshot
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.worlds import START, Row, snapshots, warehouse

ROWS: list[Row] = [("ann", "tea", 0, 2), ("bob", "tea", 0, 1), ("ann", "jam", 1, 1), ("cat", "pie", 2, 1)]


def test_snapshot_has_counts_and_last_times_in_both_directions() -> None:
    week = snapshots(ROWS, range(1))[START].data
    assert week[INTERACTS].edge_index.tolist() == [[0, 1], [0, 0]]
    assert week[REV_INTERACTS].edge_index.tolist() == [[0, 0], [0, 1]]
    assert week[INTERACTS].edge_count.tolist() == [2, 1]
    assert (week[INTERACTS].edge_time - week[INTERACTS].edge_time[1]).tolist() == [3600, 0]


def test_nodes_are_all_known_by_then_active_or_not() -> None:
    week = snapshots(ROWS, range(1, 2))[shift(START, 1)].data
    assert week[USER].node_idx.tolist() == [0, 1]
    assert week[EVENT].node_idx.tolist() == [0, 1]
    assert week[INTERACTS].edge_index.tolist() == [[0], [1]]


def test_node_features_are_logs_of_counts_and_weeks() -> None:
    ann = snapshots(ROWS, range(1, 2))[shift(START, 1)].data[USER].x[0]
    expected = [math.log(1 + n) for n in (3, 2, 1, 0)]  # interactions, events, weeks since the first and the last
    torch.testing.assert_close(ann, torch.tensor(expected))


def test_empty_week_has_nodes_and_no_edges() -> None:
    week = snapshots(ROWS, range(5, 6))[shift(START, 5)].data
    assert week[USER].num_nodes == 3
    assert week[INTERACTS].edge_index.shape == (2, 0)
    assert week.validate()


def test_week_before_everything_is_an_empty_graph() -> None:
    week = snapshots(ROWS, range(-1, 0))[shift(START, -1)].data
    assert week[USER].num_nodes == week[EVENT].num_nodes == week[INTERACTS].num_edges == 0


def test_later_rows_do_not_change_an_earlier_snapshot(tmp_path: Path) -> None:
    later: list[Row] = [("zoe", "aaa", 3, 4), ("ann", "tea", 3, 9)]
    for name, rows in (("without", ROWS), ("with", ROWS + later)):
        read_snapshot(warehouse(rows), shift(START, 2)).save(tmp_path / name)
    for file in ("tensors.safetensors", "meta.json"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()


def test_snapshot_survives_its_file(tmp_path: Path) -> None:
    saved = snapshots(ROWS, range(1))[START]
    saved.save(tmp_path / START)
    loaded = Snapshot.load(tmp_path / START)
    assert loaded.week == START
    assert loaded.data.to_dict().keys() == saved.data.to_dict().keys()
    assert torch.equal(loaded.data[REV_INTERACTS].edge_index, saved.data[REV_INTERACTS].edge_index)
    assert torch.equal(loaded.data[EVENT].x, saved.data[EVENT].x)
