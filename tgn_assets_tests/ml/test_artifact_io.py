import errno
import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tgn_assets.ml.artifact_io import (
    FORMAT_VERSION,
    META,
    TENSORS,
    ArtifactError,
    OutdatedArtifactError,
    UnreadableArtifactError,
    is_outdated,
    load_artifact,
    load_meta,
    save_artifact,
    save_file,
)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.rand(2, 2)}
    save_artifact(tmp_path / "gnn" / "2024-01-01", tensors, {"week": "2024-01-01", "curve": [1.5]})
    loaded, meta = load_artifact(tmp_path / "gnn" / "2024-01-01")
    versions = {"format_version": FORMAT_VERSION, "package_version": version("tgn_assets")}
    assert meta == {"week": "2024-01-01", "curve": [1.5]} | versions
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_the_same_content_in_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = torch.arange(3), torch.rand(2)
    save_artifact(tmp_path / "one", {"a": a, "b": b}, {"x": 1, "y": 2})
    save_artifact(tmp_path / "two", {"b": b, "a": a}, {"y": 2, "x": 1})
    for name in (TENSORS, META):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_second_save_replaces_the_first_completely(tmp_path: Path) -> None:
    save_artifact(tmp_path / "week", {"old": torch.zeros(1)}, {})
    save_artifact(tmp_path / "week", {"new": torch.ones(1)}, {})
    assert set(load_artifact(tmp_path / "week")[0]) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["week"]


def test_a_save_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    save_artifact(tmp_path / "week", {"old": torch.zeros(1)}, {})
    with pytest.raises(TypeError):
        save_artifact(tmp_path / "week", {"new": torch.ones(1)}, {"not": json})
    assert set(load_artifact(tmp_path / "week")[0]) == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["week"]


def test_what_the_system_refuses_while_tensors_are_written_is_its_error(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / TENSORS
    with pytest.raises(OSError, match="No such file or directory") as refused:  # safetensors has an error of its own
        save_file({"a": torch.zeros(1)}, file)
    assert refused.value.errno == errno.ENOENT and refused.value.filename == str(file)


def test_a_missing_artifact_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^there is no .*; `tgn refresh --week 2024-01-01` makes it again"):
        load_artifact(tmp_path / "trained_gnn" / "2024-01-01")


def test_a_damaged_artifact_is_an_error_and_never_runs_code(tmp_path: Path) -> None:
    save_artifact(tmp_path / "week", {"a": torch.zeros(1)}, {})
    (tmp_path / "week" / TENSORS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ArtifactError, match="damaged"):
        load_artifact(tmp_path / "week")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_artifact(tmp_path / "week", {"a": torch.zeros(1)}, {})

    def not_found(path: Path) -> None:  # what safetensors says; root may read everything
        raise FileNotFoundError(f"No such file or directory: {path}")

    monkeypatch.setattr("tgn_assets.ml.artifact_io.load_file", not_found)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != TENSORS)
    with pytest.raises(UnreadableArtifactError, match=rf"^{tmp_path}/week/{TENSORS} may not be read; give this user"):
        load_artifact(tmp_path / "week")


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_files_have_the_mode_that_the_umask_allows(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    before = os.umask(umask)
    try:
        save_artifact(tmp_path / "week", {"a": torch.zeros(1)}, {}, {"part": {"b": torch.ones(1)}})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "week").iterdir()} == {file}
    assert (tmp_path / "week").stat().st_mode & 0o777 == folder


@pytest.mark.parametrize(
    ("asset", "meta", "message"),
    [
        (
            "trained_gnn",
            {"format_version": FORMAT_VERSION - 1, "package_version": "0.1"},
            "trained_gnn of week 2024-01-01 was made by tgn_assets 0.1, in another format: "
            "`tgn refresh --week 2024-01-01` makes it again",
        ),
        ("trained_ranker", {}, "was made by an earlier version of tgn_assets, in another format"),
        ("weekly_snapshots", {}, "remove it, and `tgn refresh` makes it again"),
    ],
)
def test_another_format_is_an_error_with_a_remedy(tmp_path: Path, asset: str, meta: dict, message: str) -> None:
    directory = tmp_path / asset / "2024-01-01"
    save_artifact(directory, {}, {})
    assert not is_outdated(directory)
    (directory / META).write_text(json.dumps(meta))
    assert is_outdated(directory)
    for load in (load_meta, load_artifact):
        with pytest.raises(OutdatedArtifactError) as raised:
            load(directory)
        assert message in str(raised.value)


def test_what_a_newer_version_made_is_not_to_be_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "trained_gnn" / "2024-01-01"
    save_artifact(directory, {}, {"format_version": FORMAT_VERSION + 1, "package_version": "9.1"})
    assert not is_outdated(directory)
    with pytest.raises(
        ArtifactError, match=r"made by tgn_assets 9\.1, in a newer format .*: install that version; to stay"
    ):
        load_meta(directory)


def test_what_is_missing_or_damaged_is_not_outdated(tmp_path: Path) -> None:
    assert not is_outdated(tmp_path / "trained_gnn" / "2024-01-01")
    (tmp_path / META).write_text("{")
    assert not is_outdated(tmp_path)


def test_a_linked_artifact_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere", tmp_path / "trained_gnn" / "2024-01-01"
    save_artifact(target, {}, {"version": 1})
    link.parent.mkdir()
    link.symlink_to(target)
    save_artifact(link, {}, {"version": 2})
    assert (load_meta(link)["version"], load_meta(target)["version"]) == (2, 1)
    assert [path.name for path in link.parent.iterdir()] == ["2024-01-01"]


def test_an_artifact_that_cannot_be_moved_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "trained_gnn" / "2024-01-01"
    save_artifact(directory, {}, {"version": 1})

    def cross_device(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cross_device)
        with pytest.raises(ArtifactError, match=r"on another device than .*one volume"):
            save_artifact(directory, {}, {"version": 2})
    assert load_meta(directory)["version"] == 1
    assert [path.name for path in directory.parent.iterdir()] == ["2024-01-01"]
