"""A home with four weeks of a small world, run through Dagster."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest
from markupsafe import Markup

from tgn_assets.definitions import build_definitions
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.weekly_page import charts
from tgn_assets.settings import Settings
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import location_digest
from tgn_assets.state.warehouse import Warehouse

WEEKS = [shift("2024-01-01", later) for later in range(4)]
EMPTY = WEEKS[2]
TINY = {
    "trained_gnn": {"config": {"window": 3, "replay": 2, "dim": 8, "epochs": 2, "warm_epochs": 1}},
    "trained_ranker": {
        "config": {
            "origins": 2,
            "sequence": 2,
            "dim": 8,
            "heads": 2,
            "networks": 1,
            "epochs": 2,
            "warm_epochs": 1,
            "lambdarank": {"rounds": 10},
        }
    },
}
"""Configuration of the launchpad with which training takes half a second: fields of two assets, by their names."""
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
PREDICTIONS = "weekly_top5_predictions"
ARTIFACTS = ["weekly_snapshots", "trained_gnn", "trained_ranker", "temporal_embeddings"]


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    """Leaves charts out of runs and reports, of whose time they take a sixth."""
    patch.setattr("tgn_assets.reporting.asset_plots.svg", lambda chart, config: "<svg></svg>")
    empty = {"panel": Markup("<svg></svg>")}
    patch.setattr(charts, "_picture", lambda name, label, drawings: charts.Picture(label, empty))


def quick_training(patch: pytest.MonkeyPatch, training: dict[str, Any] | None = None) -> None:
    """Lets commands train as `training` says, or as `TINY` does, for tests of what they do beside that."""
    whole, training = dg.JobDefinition.execute_in_process, training or TINY

    def run(job: dg.JobDefinition, run_config: Any = None, **how: Any) -> dg.ExecuteInProcessResult:
        selected = {key.path[-1] for key in how.get("asset_selection") or map(dg.AssetKey, training)}
        ops = {name: given for name, given in training.items() if name in selected}
        return whole(job, run_config={"ops": ops, **(run_config or {})}, **how)

    patch.setattr(dg.JobDefinition, "execute_in_process", run)


@dataclass
class Deployment:
    """A home, its definitions and its instance."""

    home: Home
    instance: dg.DagsterInstance

    @cached_property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.home.settings)

    def run(self, week: str, *assets: str, **how: Any) -> dg.ExecuteInProcessResult:
        """One run of the weekly job for `week`, or of some `assets` and all their checks."""
        defs = self.definitions
        job = defs.resolve_implicit_global_asset_job_def() if assets else defs.resolve_job_def("weekly_refresh")
        config = {"loggers": QUIET, "ops": {name: TINY[name] for name in TINY if not assets or name in assets}}
        selection = [dg.AssetKey(asset) for asset in assets] or None
        return job.execute_in_process(
            run_config=config, instance=self.instance, partition_key=week, asset_selection=selection, **how
        )

    def table(self, name: str, week: str) -> pd.DataFrame:
        with Warehouse(self.home.warehouse_path).reader() as con:
            return con.execute(f"SELECT * FROM {name} WHERE week = ? ORDER BY ALL", [week]).df()

    def everything(self, week: str) -> dict[str, Any]:
        """All bytes of the partition `week`: files and rows."""
        store = ArtifactStore(self.home.artifacts)
        files = {
            f"{asset}/{path.name}": path.read_bytes()
            for asset in ARTIFACTS
            for path in store.directory(asset, week).iterdir()
        }
        return files | {name: self.table(name, week).to_csv() for name in (PREDICTIONS, "eval_metrics")}


def failure_of(result: dg.ExecuteInProcessResult, asset: str) -> str:
    """What the user is told of the failed step of `asset`."""
    failure = result.failure_data_for_node(asset)
    assert failure is not None and failure.user_failure_data is not None
    return str(failure.user_failure_data.description)


def home_at(path: Path, log: Path) -> Home:
    settings = Settings(
        _env_file=None,
        home=path,
        source=str(log),
        end_week=WEEKS[-1],
        future_blind=True,
        export_parquet=str(path.parent / f"{path.name}-export"),
    )
    return Home(settings)


def copied_home(folder: Path, to: Path, *, exported: str) -> None:
    """Copies `folder`, which holds a home, and makes the copy know that its exports are in the folder `exported` of the
    copy."""
    shutil.copytree(folder / "home", to / "home", symlinks=True)
    then, now = (location_digest(str(place / exported)) for place in (folder, to))
    with duckdb.connect(to / "home" / "warehouse.duckdb") as con:
        con.execute("UPDATE made_weeks SET made_from = replace(made_from, ?, ?)", [then, now])


@contextmanager
def walked(folder: Path) -> Iterator[Deployment]:
    """In `folder`: week 0 ingested on its own in a range run, weeks 1 to 3 refreshed in turn; week 2 has no rows."""
    world = World(users=30, events=20, communities=3)
    log = pd.concat([generate_week(week, world) for week in WEEKS if week != EMPTY])
    log.columns = ["ip_address", "event_id", "timestamp"]
    log.to_csv(folder / "log.csv", index=False)
    # Kept in memory: a Dagster instance on disk would take five times as long as all that is tested here.
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(home_at(folder / "home", folder / "log.csv"), instance)
        job = deployment.definitions.resolve_job_def("weekly_refresh")
        job.execute_in_process(
            run_config={"loggers": QUIET},
            instance=instance,
            asset_selection=[dg.AssetKey("raw_interactions"), dg.AssetKey("weekly_snapshots")],
            tags={"dagster/asset_partition_range_start": WEEKS[0], "dagster/asset_partition_range_end": WEEKS[1]},
        )
        for week in WEEKS[1:]:
            deployment.run(week)
        yield deployment
