import json

import pytest
import torch

from tgn_assets.ml.artifact_io import META, TENSORS, ArtifactError, load_artifact, save_artifact


def test_what_is_saved_is_what_is_loaded(tmp_path):
    tensors = {"b": torch.arange(3), "a": torch.rand(2, 2)}
    save_artifact(tmp_path / "gnn" / "2024-01-01", tensors, {"week": "2024-01-01", "curve": [1.5]})
    loaded, meta = load_artifact(tmp_path / "gnn" / "2024-01-01")
    assert meta == {"week": "2024-01-01", "curve": [1.5]}
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_same_content_gives_the_same_bytes_whatever_the_order_of_the_tensors(tmp_path):
    a, b = torch.arange(3), torch.rand(2)
    save_artifact(tmp_path / "one", {"a": a, "b": b}, {"x": 1, "y": 2})
    save_artifact(tmp_path / "two", {"b": b, "a": a}, {"y": 2, "x": 1})
    for name in (TENSORS, META):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_second_save_replaces_all_of_the_first_and_leaves_nothing_beside_it(tmp_path):
    save_artifact(tmp_path / "week", {"old": torch.zeros(1)}, {})
    save_artifact(tmp_path / "week", {"new": torch.ones(1)}, {})
    assert set(load_artifact(tmp_path / "week")[0]) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["week"]


def test_a_save_that_fails_leaves_the_old_content(tmp_path):
    save_artifact(tmp_path / "week", {"old": torch.zeros(1)}, {})
    with pytest.raises(TypeError):
        save_artifact(tmp_path / "week", {"new": torch.ones(1)}, {"not": json})
    assert set(load_artifact(tmp_path / "week")[0]) == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["week"]


def test_a_missing_artifact_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ArtifactError, match=r"no trained_gnn of week 2024-01-01 .* materialize it first"):
        load_artifact(tmp_path / "trained_gnn" / "2024-01-01")


def test_a_damaged_artifact_is_an_error_and_never_runs_code(tmp_path):
    save_artifact(tmp_path / "week", {"a": torch.zeros(1)}, {})
    (tmp_path / "week" / TENSORS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ArtifactError, match="damaged"):
        load_artifact(tmp_path / "week")
