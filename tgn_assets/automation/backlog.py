"""Compares what a home has published with what its source holds, for the schedule, the sensor and `tgn status`."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg

from tgn_assets.automation.work_items import INGEST, WorkItem, plan_work
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
    """The state of `home` and of its Dagster `instance`; reads the source only if it changed since `last`."""

    def __init__(self, home: Home, instance: dg.DagsterInstance, last: SourceView | None = None) -> None:
        self.home, self.instance = home, instance
        self.published = set(instance.get_materialized_partitions(PREDICTIONS))
        self.ingested = ingested_weeks(home, instance, READER_PATIENCE)
        self.view = self._read_source(last)

    def weeks(self) -> list[str]:
        """All closed weeks, oldest first."""
        newest = self.view.newest_closed
        return weeks_between(self.home.start_week(), newest) if newest else []

    def work_items(self, last_week: str | None = None) -> list[WorkItem]:
        """What has to be done for the closed weeks up to `last_week`, in this order."""
        weeks = [week for week in self.weeks() if last_week is None or week <= last_week]
        return plan_work(weeks, self.published, self.ingested, self.view.changes)

    def _read_source(self, last: SourceView | None) -> SourceView:
        spec, now = self.home.source_spec(), time.time()
        # A new calendar week may close a week even in a source that did not change.
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
        """Whether `view` has the digest of every closed week that is not ingested: warehouses get deleted."""
        if view.newest_closed is None:
            return True
        closed = weeks_between(self.home.start_week(), view.newest_closed)
        return all(week in self.ingested or week in view.changes for week in closed)


def ingested_weeks(home: Home, instance: dg.DagsterInstance, lock_timeout: float = 600) -> dict[str, str]:
    """The digest of the rows of each week that is in the warehouse and has a snapshot."""
    if not home.warehouse_path.exists():
        return {}
    snapshots = set(instance.get_materialized_partitions(SNAPSHOTS))
    with home.warehouse(lock_timeout).reader() as con:
        rows = con.execute("SELECT strftime(week, '%Y-%m-%d'), digest FROM ingested_weeks").fetchall()
    return {week: digest for week, digest in rows if week in snapshots}


def weeks_between(first: str, last: str) -> list[str]:
    """Week keys from `first` to `last`, both included."""
    return [week_key(number) for number in range(week_number(first), week_number(last) + 1)]


def attempts(instance: dg.DagsterInstance, item: WorkItem) -> list[dg.DagsterRun]:
    """The runs that were requested for `item`, for the same rows of the source; newest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={REQUEST_TAG: item.key})))


def should_not_retry(runs: Sequence[dg.DagsterRun]) -> bool:
    """Whether another attempt would only repeat `runs`: one failed, or two succeeded and changed nothing."""
    return any(run.status in FAILED for run in runs) or len(runs) >= 2


def unfinished_run(instance: dg.DagsterInstance, item: WorkItem | None = None) -> dg.DagsterRun | None:
    """A run that is queued or in progress; if `item` is given, one that does it, whoever requested it."""
    tags = {} if item is None else {REQUEST_TAG: item.key} if item.action == INGEST else {PARTITION: item.first}
    runs = instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED), limit=1)
    return runs[0] if runs else None


def run_request(item: WorkItem, attempt: int) -> dg.RunRequest:
    """The request for a run of job `weekly_refresh` that does `item`; each attempt has a key of its own."""
    tags = {REQUEST_TAG: item.key, REASON_TAG: item.reason}
    run_key = f"{item.key} {attempt}"
    if item.action == INGEST:
        weeks = {RANGE_START: item.first, RANGE_END: item.last}
        return dg.RunRequest(run_key=run_key, tags=tags | weeks, asset_selection=INGEST_ASSETS)
    return dg.RunRequest(run_key=run_key, tags=tags, partition_key=item.first)
