"""What a home has done, what its source holds, and what follows: the eyes of the schedule and the sensor."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from tgn_assets.automation.work_items import INGEST, WorkItem, pending
from tgn_assets.ml.sources.extent import source_digests, source_signature
from tgn_assets.ml.weeks import week_key, week_number, week_of
from tgn_assets.state.home import Home

INGEST_ASSETS = [dg.AssetKey("raw_interactions"), dg.AssetKey("weekly_snapshots")]
SNAPSHOTS, PREDICTIONS = INGEST_ASSETS[1], dg.AssetKey("weekly_top5_predictions")

REQUEST_TAG, REASON_TAG = "tgn/request", "tgn/reason"
PARTITION = "dagster/partition"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in (*FAILED, dg.DagsterRunStatus.SUCCESS)]

RESCAN_COOLDOWN = 20
"""A source is read again only after this many times as long as the last reading took: a log that grows by the minute
moves at every look, and must not keep the machine busy with looking."""

READER_PATIENCE = 10.0
"""Seconds that a look waits for a locked warehouse."""


@dataclass(frozen=True)
class SourceView:
    """What the last reading of the source found; the sensor keeps it as its cursor."""

    signature: str
    newest_closed: str | None
    changes: dict[str, str]
    """Digest of each closed week whose rows differ from the ones ingested."""
    read_at: float
    """Unix seconds."""
    seconds: float
    """How long the reading took."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> "SourceView | None":
        """None for a cursor that is empty or of another version."""
        try:
            return cls(**json.loads(text or "{}"))
        except (TypeError, ValueError):
            return None


class Backlog:
    """One look at `home` through its Dagster `instance`; cheap unless the source moved."""

    def __init__(self, home: Home, instance: dg.DagsterInstance, last: SourceView | None = None):
        self.home, self.instance = home, instance
        self.published = set(instance.get_materialized_partitions(PREDICTIONS))
        self.ingested = ingested_weeks(home, instance, READER_PATIENCE)
        self.view = self._look(last)

    def weeks(self) -> list[str]:
        """All closed weeks, oldest first."""
        newest = self.view.newest_closed
        return weeks_between(self.home.start_week(), newest) if newest else []

    def pending(self, until: str | None = None) -> list[WorkItem]:
        """What is to be done for the closed weeks up to `until`, in this order."""
        weeks = [week for week in self.weeks() if until is None or week <= until]
        return pending(weeks, self.published, self.ingested, self.view.changes)

    def _look(self, last: SourceView | None) -> SourceView:
        spec, now = self.home.source_spec(), time.time()
        # A new calendar week closes weeks even in a source that did not move.
        signature = f"{source_signature(spec)} {week_of(datetime.fromtimestamp(now, UTC))}"
        if (
            last
            and (last.signature == signature or now < last.read_at + RESCAN_COOLDOWN * last.seconds)
            and self._covers(last)
        ):
            return last
        newest = self.home.newest_closed_week()
        weeks = weeks_between(self.home.start_week(), newest) if newest else []
        digests = source_digests(spec, weeks) if weeks else {}
        changes = {week: digest for week, digest in digests.items() if self.ingested.get(week) != digest}
        return SourceView(signature, newest, changes, now, time.time() - now)

    def _covers(self, view: SourceView) -> bool:
        """Whether `view` has a digest of each closed week that is not ingested (a warehouse may have been removed)."""
        if view.newest_closed is None:
            return True
        closed = weeks_between(self.home.start_week(), view.newest_closed)
        return all(week in self.ingested or week in view.changes for week in closed)


def ingested_weeks(home: Home, instance: dg.DagsterInstance, lock_timeout: float = 600) -> dict[str, str]:
    """The weeks whose rows are in the warehouse and whose snapshot is made, each with the digest of its rows."""
    if not home.warehouse_path.exists():
        return {}
    snapshots = set(instance.get_materialized_partitions(SNAPSHOTS))
    with home.warehouse(lock_timeout).reader() as con:
        rows = con.execute("SELECT strftime(week, '%Y-%m-%d'), digest FROM ingested_weeks").fetchall()
    return {week: digest for week, digest in rows if week in snapshots}


def weeks_between(first: str, last: str) -> list[str]:
    """Week keys from `first` to `last`, both included."""
    return [week_key(number) for number in range(week_number(first), week_number(last) + 1)]


def attempts(instance: dg.DagsterInstance, todo: WorkItem) -> list[dg.DagsterRun]:
    """Runs that were asked to do `todo`, for the same source rows; newest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={REQUEST_TAG: todo.key})))


def should_not_retry(runs: Sequence[dg.DagsterRun]) -> bool:
    """Whether another of these `attempts` would only repeat them: one failed, or two succeeded and changed nothing."""
    return any(run.status in FAILED for run in runs) or len(runs) >= 2


def unfinished_run(instance: dg.DagsterInstance, todo: WorkItem | None = None) -> dg.DagsterRun | None:
    """A run that is queued or at work; if `todo` is given, one that does it, whoever asked for it."""
    tags = {} if todo is None else {REQUEST_TAG: todo.key} if todo.action == INGEST else {PARTITION: todo.first}
    runs = instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED), limit=1)
    return runs[0] if runs else None


def unfinished_backfill(instance: dg.DagsterInstance) -> str | None:
    """The id of a backfill that still launches runs."""
    statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=statuses), limit=1)
    return backfills[0].backfill_id if backfills else None


def run_request(todo: WorkItem, attempt: int) -> dg.RunRequest:
    """The request for a run of job `weekly_refresh` that does `todo`; each attempt has a key of its own."""
    tags = {REQUEST_TAG: todo.key, REASON_TAG: todo.reason}
    run_key = f"{todo.key} {attempt}"
    if todo.action == INGEST:
        span = {RANGE_START: todo.first, RANGE_END: todo.last}
        return dg.RunRequest(run_key=run_key, tags=tags | span, asset_selection=INGEST_ASSETS)
    return dg.RunRequest(run_key=run_key, tags=tags, partition_key=todo.first)
