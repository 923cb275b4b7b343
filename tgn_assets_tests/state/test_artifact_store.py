import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tgn_assets.ml.artifact_io import FORMAT_VERSION, ArtifactError
from tgn_assets.ml.encoder.checkpoint import chained_embeddings
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.ranker import checkpoint
from tgn_assets.state import artifact_store
from tgn_assets.state.artifact_store import TYPES, ArtifactStore, load_embedding_history
from tgn_assets_tests.support.worlds import habits, history

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22"]


def test_weeks_that_have_an_artifact_are_loaded_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for week in (WEEKS[3], WEEKS[0], WEEKS[1]):
        (tmp_path / "weekly_snapshots" / week).mkdir(parents=True)
        (tmp_path / "weekly_snapshots" / week / "meta.json").touch()
    for half in (".2024-01-15.half-written", WEEKS[2]):
        (tmp_path / "weekly_snapshots" / half).mkdir()
    monkeypatch.setattr(ArtifactStore, "load", lambda _, asset, week: f"{asset} of {week}")

    loaded = ArtifactStore(tmp_path).load_weeks("weekly_snapshots", [WEEKS[3], *WEEKS[1:3]])

    assert list(loaded.items()) == [(week, f"weekly_snapshots of {week}") for week in (WEEKS[1], WEEKS[3])]


def test_an_asset_that_never_ran_has_no_weeks(tmp_path: Path) -> None:
    assert ArtifactStore(tmp_path).load_weeks("trained_gnn", WEEKS) == {}


def saved_checkpoint(warm_from: str | None, *weeks: str, of: str) -> Any:
    return SimpleNamespace(warm_from=warm_from, chain=None, embeddings={week: f"{week} by {of}" for week in weeks})


class Checkpoints(ArtifactStore):
    """Week 1 started cold and walked through week 0; weeks 2 and 3 went on from it."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def kept_from(self) -> str:
        return ""

    def load(self, asset: str, week: str) -> Any:
        self.read.append(week)
        return {
            WEEKS[1]: saved_checkpoint(None, WEEKS[0], WEEKS[1], of="1"),
            WEEKS[2]: saved_checkpoint(WEEKS[1], WEEKS[2], of="2"),
            WEEKS[3]: saved_checkpoint(WEEKS[2], WEEKS[3], of="3"),
        }[week]


def test_the_embedding_history_ends_at_the_cold_start() -> None:
    assert load_embedding_history(Checkpoints(), WEEKS[3], 10) == {
        WEEKS[0]: f"{WEEKS[0]} by 1",
        WEEKS[1]: f"{WEEKS[1]} by 1",
        WEEKS[2]: f"{WEEKS[2]} by 2",
        WEEKS[3]: f"{WEEKS[3]} by 3",
    }


def test_the_embedding_history_ends_at_a_week_that_was_started_afresh() -> None:
    encoders = {
        week: saved_checkpoint(before, week, of="it") for before, week in zip([None, *WEEKS], WEEKS, strict=False)
    }
    encoders[WEEKS[1]].chain = WEEKS[1]  # run again when the week before was no longer there
    assert list(chained_embeddings(encoders.__getitem__, WEEKS[3], 10)) == WEEKS[2:]


def test_the_embedding_history_is_limited_to_the_newest_weeks() -> None:
    store = Checkpoints()
    assert list(load_embedding_history(store, WEEKS[3], 2)) == [WEEKS[2], WEEKS[3]]
    assert store.read == [WEEKS[3], WEEKS[2]]
    assert list(load_embedding_history(Checkpoints(), WEEKS[2], 2)) == [WEEKS[1], WEEKS[2]]


def test_the_embedding_history_of_a_week_has_no_later_one() -> None:
    assert max(load_embedding_history(Checkpoints(), WEEKS[2], 10)) == WEEKS[2]


def test_what_a_kill_left_is_put_back_or_removed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    folder = store.root / "weekly_snapshots"
    for name in ("2024-01-01", ".2024-01-01.abc", ".2024-01-01.abc.old", ".2024-01-08.abc.old", ".2024-01-15.abc"):
        (folder / name).mkdir(parents=True)
        (folder / name / "meta.json").write_text(name)
    store.sweep()
    assert {path.name: (path / "meta.json").read_text() for path in folder.iterdir()} == {
        "2024-01-01": "2024-01-01",
        "2024-01-08": ".2024-01-08.abc.old",
    }


@pytest.mark.parametrize("meta", ["", "[]", "{", json.dumps({"format_version": FORMAT_VERSION})])
def test_damage_is_named_with_the_folder(tmp_path: Path, meta: str) -> None:
    store = ArtifactStore(tmp_path)
    folder = store.directory("weekly_snapshots", "2024-01-01")
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(meta)
    save_file({}, folder / "tensors.safetensors")
    with pytest.raises(ArtifactError, match=rf"{folder} is damaged"):
        store.load("weekly_snapshots", "2024-01-01")


@pytest.mark.parametrize("text", ["{}", '{"week": "2030-01-01"}'])
def test_a_damaged_pin_names_its_file(tmp_path: Path, text: str) -> None:
    store = ArtifactStore(tmp_path)
    store.root.mkdir(parents=True, exist_ok=True)
    (store.root / "pinned.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"pinned\.json is damaged"):
        store.pinned()


def test_models_before_the_kept_weeks_are_forgotten(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for asset in TYPES:
        for week in WEEKS:
            store.directory(asset, week).mkdir(parents=True)
            (store.directory(asset, week) / "meta.json").touch()
    store.remove_old(None)
    assert store.kept_from() == ""
    store.pin(WEEKS[1])
    store.remove_old(2)
    assert store.weeks("trained_gnn") == WEEKS[1:]
    store.pin(None)
    store.remove_old(2, but=WEEKS[1])  # is being made, before each of its steps
    assert store.weeks("trained_gnn") == WEEKS[1:]
    store.remove_old(2)
    kept = {asset: store.weeks(asset) for asset in TYPES}
    assert kept.pop("weekly_snapshots") == WEEKS
    assert all(weeks == WEEKS[2:] for weeks in kept.values())
    assert store.kept_from() == WEEKS[2]
    assert list(tmp_path.glob("*/.*")) == []


def test_files_of_a_process_long_gone_are_swept(tmp_path: Path) -> None:
    names = ("reports/2024-01-01.html.new", "dagster/dagster.yaml.new", "artifacts/pinned.json.new")
    young, page = tmp_path / "current.duckdb.new", tmp_path / "reports" / "2024-01-01.html"
    for path in (*(old := [tmp_path / name for name in names]), young, page):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (0, 0))
    os.utime(young)
    ArtifactStore(tmp_path / "artifacts").sweep()
    assert ([path.exists() for path in old], young.exists(), page.exists()) == ([False] * 3, True, True)


def test_embeddings_of_other_nodes_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    past = history(habits(), 11)
    users, events = (torch.as_tensor(index) for index in (past.user_idx, past.event_idx))
    kept = NodeEmbeddings("2024-01-08", users, torch.zeros(len(users), 2), events, torch.zeros(len(events), 2))
    ranker = SimpleNamespace(config=SimpleNamespace(sequence=8))
    held = {"trained_ranker": ranker, "temporal_embeddings": kept}
    store: Any = SimpleNamespace(load=lambda asset, _: held[asset])
    monkeypatch.setattr(artifact_store, "_check_chain", lambda *_: None)
    monkeypatch.setattr(artifact_store, "load_embedding_history", lambda *_: {})
    monkeypatch.setattr(checkpoint, "temporal_embeddings", lambda *_, **__: "made again")
    grown = history([*habits(), ("a late user", "a late event", 0, 1)], 11)
    for of, expected in ((past, kept), (grown, "made again")):
        model = artifact_store.publishing_model(store, of, "2024-01-08", "2024-01-08", "cpu")
        assert model.embeddings is expected
