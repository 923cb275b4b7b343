"""Whole weeks through Dagster in sampled batches, as TGN_BATCHING and TGN_SAMPLER ask for, without the launchpad."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.settings import Settings
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets.state.resources import TrainingDefaults
from tgn_assets_tests.support.deployment import PREDICTIONS, Deployment, failure_of

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15"]


def deployment(folder: Path, instance: dg.DagsterInstance, **settings: Any) -> Deployment:
    log = pd.concat([generate_week(week, World(users=30, events=20, communities=3)) for week in WEEKS])
    log.columns = pd.Index(["ip_address", "event_id", "timestamp"])
    log.to_csv(folder / "log.csv", index=False)
    source, end = str(folder / "log.csv"), WEEKS[-1]
    return Deployment(
        Home(Settings(_env_file=None, home=folder / "home", source=source, end_week=end, **settings)), instance
    )


def test_week_in_sampled_batches_says_so_in_metadata_and_checkpoint(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    sampled = deployment(tmp_path, instance, batching="sampled", sampler="native")
    assert sampled.run(WEEKS[0]).success
    trained = sampled.run(WEEKS[1]).asset_materializations_for_node("trained_gnn")[0].metadata
    assert trained["batching_of_training"].value == trained["batching_of_inference"].value == "sampled"
    assert trained["sampler"].value == "native"
    meta = json.loads(
        (ArtifactStore(sampled.home.artifacts).directory("trained_gnn", WEEKS[1]) / "meta.json").read_text()
    )
    assert meta["batching"] == {"training": "sampled", "inference": "sampled", "sampler": "native"}
    assert (meta["config"]["batching"], meta["config"]["sampler"]) == ("sampled", "native")
    assert meta["warm_from"] == WEEKS[0]
    lists = sampled.table(PREDICTIONS, WEEKS[1])
    assert set(lists.groupby("user_id")["rank"].count()) == {5}


def test_sampler_that_is_not_installed_fails_naming_the_docs(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_geometric.typing.WITH_PYG_LIB", False)
    failed = deployment(tmp_path, instance, sampler="pyg-lib").run(WEEKS[0], raise_on_error=False)
    assert "'pyg-lib' is not installed; docs/deployment.md" in failure_of(failed, "trained_gnn")


def test_launchpad_wins_over_the_settings_unless_auto() -> None:
    settings = TrainingDefaults(preset="standard", batching="sampled", sampler="native")
    resolved = settings.resolve(GNNConfig(batching="full", seed=3), GNNConfig)
    assert (resolved.batching, resolved.sampler, resolved.seed) == ("full", "native", 3)
    assert settings.resolve(GNNConfig(), GNNConfig).batching == "sampled"
    settings = TrainingDefaults(preset="standard", batching="auto", sampler="auto")
    assert settings.resolve(GNNConfig(), GNNConfig) == GNNConfig(preset="standard")
