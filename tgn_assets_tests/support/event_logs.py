"""A small log, and a home on it whose weeks count as done without any training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg

from tgn_assets.automation.backlog import PREDICTIONS, REQUEST_TAG, SNAPSHOTS
from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.settings import Settings
from tgn_assets.state.home import Home

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22"]
ROWS = [f"user {i},event {i % 3},{week[:8]}{int(week[8:]) + 6:02d} 12:00:00" for week in WEEKS for i in range(4)]
"""Four users on the Sunday of each of `WEEKS`."""


def home_on_log(folder: Path, rows: Iterable[str] = ROWS, **settings: Any) -> Home:
    """A home whose source has `rows`; called again, its source is rewritten."""
    log = folder / "log.csv"
    log.write_text("\n".join(["ip_address,event_id,timestamp", *rows]) + "\n")
    defaults: dict[str, Any] = {"home": folder / "home", "source": str(log)}
    return Home(Settings(**(defaults | settings))).ensure()


def ingest(home: Home, instance: dg.DagsterInstance, *weeks: str) -> None:
    """Leaves what a run of raw_interactions and weekly_snapshots leaves."""
    with home.warehouse().writer() as con:
        load_weeks(con, home.source_spec(), weeks, start_week=home.start_week(), end_week=home.settings.end_week)
    _materialize(instance, SNAPSHOTS, weeks)


def publish(home: Home, instance: dg.DagsterInstance, *weeks: str) -> None:
    """Leaves what a run of weekly_refresh leaves, as far as the automation reads it."""
    ingest(home, instance, *weeks)
    _materialize(instance, PREDICTIONS, weeks)


def asked(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """A run of `request` in `status`."""
    tags = {REQUEST_TAG: request.tags[REQUEST_TAG], "dagster/partition": request.partition_key or ""}
    return instance.create_run_for_job(any_job, tags=tags, status=status)


@dg.job
def any_job() -> None:
    """A job that stands for any."""


def _materialize(instance: dg.DagsterInstance, asset: dg.AssetKey, weeks: Iterable[str]) -> None:
    for week in weeks:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=week))
