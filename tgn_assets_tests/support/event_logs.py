"""A small log, and a home on it whose weeks count as done without any training."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import JobFailureData
from dagster._utils.error import SerializableErrorInfo

from tgn_assets.assets.interaction_log import SourceObservation, interaction_log_asset, read_and_store_source
from tgn_assets.automation.jobs import jobs_of
from tgn_assets.ml.connectors.duckdb_session import transaction
from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.names import PLAIN
from tgn_assets.settings import Settings
from tgn_assets.state import published_copy
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import PREDICTIONS, SNAPSHOTS, UPSTREAM, read_lineage, record_made

WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22"]
ROWS = [f"user {i},event {i % 3},{week[:8]}{int(week[8:]) + 6:02d} 12:00:00" for week in WEEKS for i in range(4)]
"""Four users on the Sunday of each of `WEEKS`."""
JOBS = jobs_of(PLAIN, [])
"""`weekly_refresh` without assets, and `observe_source`."""


def home_on_log(folder: Path, rows: Iterable[str] = ROWS, **settings: Any) -> Home:
    """A home whose source has `rows`; called again, its source is rewritten."""
    log = folder / "log.csv"
    log.write_text("\n".join(["ip_address,event_id,timestamp", *rows]) + "\n")
    defaults: dict[str, Any] = {"home": folder / "home", "source": str(log)}
    return Home(Settings(**(defaults | settings))).ensure()


def observe(home: Home) -> SourceObservation:
    """Leaves what a run of observe_source leaves in the home."""
    return read_and_store_source(home, home.warehouse().lineage())


def run_observation(home: Home, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """A run of observe_source, which may fail."""
    job = dg.Definitions([interaction_log_asset(home)], jobs=JOBS[1:]).resolve_job_def("observe_source")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def ingest(home: Home, *weeks: str) -> None:
    """Leaves what a run of raw_interactions and weekly_snapshots leaves."""
    _record(home, weeks, [SNAPSHOTS])


def publish(home: Home, *weeks: str, but: tuple[str, ...] = ()) -> None:
    """Leaves what a run of weekly_refresh leaves, as far as the automation reads it; without the assets `but`."""
    _record(home, weeks, [asset for asset in UPSTREAM if asset not in but])


MADE: dict[str, tuple[bytes, bytes | None]] = {}
"""The files of warehouses that were made from nothing, and their copies for readers, by all that they depend on."""


def _record(home: Home, weeks: Sequence[str], assets: list[str]) -> None:
    """Ingests `weeks` and records `assets` of each, in a new home by copying what another one was given."""
    copy, is_new = home.root / published_copy.NAME, not home.warehouse_path.exists()
    settings, log = home.settings.model_dump_json(exclude={"home", "source"}), Path(home.settings.source)
    made_from = repr((settings, weeks, assets, home.start_week(), log.read_bytes() if log.exists() else log))
    if is_new and made_from in MADE:
        warehouse, published = MADE[made_from]
        home.warehouse_path.write_bytes(warehouse)
        if published is not None:
            copy.write_bytes(published)
        return
    _make(home, weeks, assets)
    if is_new:
        MADE[made_from] = home.warehouse_path.read_bytes(), copy.read_bytes() if copy.exists() else None


def _make(home: Home, weeks: Sequence[str], assets: list[str]) -> None:
    """`_record` without copying: in one writer, since opening one takes longer than all else."""
    source, first = home.source_spec(), home.start_week()
    with home.warehouse().writer() as con:
        load_weeks(con, source, list(weeks), start_week=first, end_week=home.settings.end_week)
        with transaction(con):
            rows = read_lineage(con).ingested
            for week in weeks:
                for asset in assets:
                    record_made(con, asset, {week: f"{asset} of {rows[week]}"})
        if PREDICTIONS in assets:
            published_copy.write_copy(con, home.root)


def asked(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """A run of `request` in `status`; one that failed has an error, as if a step of it had raised one."""
    tags = {**request.tags, "dagster/partition": request.partition_key or ""}
    failed = status == dg.DagsterRunStatus.FAILURE
    run = instance.create_run_for_job(
        weekly_refresh, tags=tags, status=dg.DagsterRunStatus.STARTED if failed else status
    )
    if failed:
        error = SerializableErrorInfo("it failed", [], "ValueError")
        instance.report_run_failed(run, job_failure_data=JobFailureData(error))
    return run


@dg.job
def weekly_refresh() -> None:
    """A job that stands for the real one."""
