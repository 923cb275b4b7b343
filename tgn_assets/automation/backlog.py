"""Compares what a home has published with what its source holds, for the schedule, the sensor and `tgn status`."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg

from tgn_assets.assets.exports import asset_name
from tgn_assets.automation.work_items import INGEST, OF_A_WEEK, WorkItem, plan_work
from tgn_assets.ml.sources.extent import source_signature
from tgn_assets.ml.weeks import week_of, weeks_between
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.dagster_compat import event_error
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import RAW, SNAPSHOTS, UPSTREAM

INGEST_ASSETS = [dg.AssetKey(RAW), dg.AssetKey(SNAPSHOTS)]

JOB = "weekly_refresh"
REQUEST_TAG, REASON_TAG = "tgn/request", "tgn/reason"
PARTITION = "dagster/partition"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in (*FAILED, dg.DagsterRunStatus.SUCCESS)]

RESCAN_COOLDOWN = 20
"""A source is read again only after this many times the duration of the last reading. A log that grows by the minute
changes at every look, and must not keep the machine busy with reading."""

READER_PATIENCE = 10.0
"""Seconds to wait for a locked warehouse."""


@dataclass(frozen=True)
class SourceView:
    """What the last reading of the source found. The sensor keeps it as its cursor."""

    signature: str
    newest_closed: str | None
    changes: dict[str, str]
    """The digest of each closed week whose rows differ from the ingested ones."""
    read_at: float
    """Unix seconds."""
    seconds: float
    """How long the reading took."""

    def to_json(self) -> str:
        """The cursor's text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> "SourceView | None":
        """None if the cursor is empty or was written by another version."""
        try:
            return cls(**json.loads(text or "{}"))
        except (TypeError, ValueError):
            return None


class Backlog:
    """What `home` has made and what it should have; reads the source only if it changed since `last`."""

    def __init__(self, home: Home, last: SourceView | None = None) -> None:
        self.home = home
        self.lineage = home.warehouse(READER_PATIENCE).lineage()
        self.assets = OF_A_WEEK | {asset_name(name) for name in home.settings.export_places()}
        self.view = self._read_source(last)

    def weeks(self) -> list[str]:
        """All closed weeks, oldest first."""
        newest = self.view.newest_closed
        return weeks_between(self.home.start_week(), newest) if newest else []

    def work_items(self, last_week: str | None = None) -> list[WorkItem]:
        """What has to be done for the closed weeks up to `last_week`, in this order."""
        return plan_work(
            self.weeks(),
            self.lineage,
            self.view.changes,
            assets=self.assets,
            trained=set(ArtifactStore(self.home.artifacts).weeks("trained_ranker")),
            last_week=last_week,
        )

    def unknown_to(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """What was made by runs of which `instance` has no history: by `tgn`, or under another DAGSTER_HOME."""
        made = {(RAW, week) for week in self.lineage.ingested} | set(self.lineage.made)
        unknown = []
        for asset in sorted({asset for asset, _ in made} & (self.assets | {RAW})):
            known = instance.get_materialized_partitions(dg.AssetKey(asset))
            unknown += [(week, asset) for name, week in made if name == asset and week not in known]
        return [
            dg.AssetMaterialization(asset, partition=week, description="Made by a run that this instance did not see.")
            for week, asset in sorted(unknown)
        ]

    def _read_source(self, last: SourceView | None) -> SourceView:
        spec, now = self.home.source_spec(), time.time()
        # A new calendar week may close a week even in a source that did not change.
        signature = f"{source_signature(spec)} {week_of(datetime.fromtimestamp(now, UTC))}"
        if (
            last
            and (last.signature == signature or 0 <= now - last.read_at < RESCAN_COOLDOWN * last.seconds)
            and self._covers(last)
        ):
            return last
        newest, digests = self.home.closed_weeks()
        changes = {week: digest for week, digest in digests.items() if self.lineage.ingested.get(week) != digest}
        return SourceView(signature, newest, changes, now, time.time() - now)

    def _covers(self, view: SourceView) -> bool:
        """Whether `view` has the digest of every closed week that is not ingested: warehouses get deleted."""
        if view.newest_closed is None:
            return True
        closed = weeks_between(self.home.start_week(), view.newest_closed)
        return all(week in self.lineage.ingested or week in view.changes for week in closed)


def attempts(instance: dg.DagsterInstance, item: WorkItem) -> list[dg.DagsterRun]:
    """The runs that were requested for `item`, for the same rows of the source; newest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={REQUEST_TAG: item.key})))


def should_not_retry(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> bool:
    """Whether another attempt would only repeat `runs`: one failed, or two crashed or changed nothing.

    A run whose process was killed is tried once more.
    """
    return len(runs) >= 2 or any(run.status in FAILED and not has_crashed(instance, run) for run in runs)


def has_crashed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether `run` failed without any error of its own: its process was killed, or the machine went down."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    failures = [entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=kinds)]
    return not any(event and (event.is_step_failure or event_error(event)) for event in failures)


def unfinished_run(instance: dg.DagsterInstance, item: WorkItem | None = None) -> dg.DagsterRun | None:
    """A run of our assets that is queued or in progress; if `item` is given, one that does it, whoever requested it."""
    tags = {} if item is None else {REQUEST_TAG: item.key} if item.action == INGEST else {PARTITION: item.first}
    runs = instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED))
    return next((run for run in runs if is_ours(run)), None)


def is_ours(run: dg.DagsterRun) -> bool:
    """Whether `run` is of this project's assets: an instance may be shared with others."""
    return run.job_name == JOB or any(
        key.path[-1] in UPSTREAM or key.path[-1] == RAW for key in run.asset_selection or ()
    )


def run_request(item: WorkItem, attempt: int) -> dg.RunRequest:
    """The request for a run of job `weekly_refresh` that does `item`; each attempt has a key of its own."""
    tags = {REQUEST_TAG: item.key, REASON_TAG: item.reason}
    run_key = f"{item.key} {attempt}"
    if item.action == INGEST:
        weeks = {RANGE_START: item.first, RANGE_END: item.last}
        return dg.RunRequest(run_key=run_key, tags=tags | weeks, asset_selection=INGEST_ASSETS)
    selection = [dg.AssetKey(asset) for asset in item.assets] or None
    return dg.RunRequest(run_key=run_key, tags=tags, partition_key=item.first, asset_selection=selection)
