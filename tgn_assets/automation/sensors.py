"""The sensor: requests what the schedule missed, weeks without predictions and weeks whose source has changed."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import dagster as dg

from tgn_assets.automation.alerts import Alerts, now
from tgn_assets.automation.backlog import (
    Backlog,
    SourceView,
    attempts,
    run_request,
    should_not_retry,
    unfinished_run,
)
from tgn_assets.automation.retention import delete_old_runs
from tgn_assets.automation.schedules import HOUR
from tgn_assets.automation.work_items import INGEST, WorkItem
from tgn_assets.ml.sources.extent import source_signature
from tgn_assets.ml.sources.spec import SourceError
from tgn_assets.ml.weeks import week_of
from tgn_assets.state.dagster_compat import UnresolvedAssetJobDefinition, unfinished_backfill
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import WarehouseError

SCHEDULE_FIRST = timedelta(hours=HOUR + 1)
"""How long after its close a week is left to the schedule."""

INTERVAL = 30
"""Seconds from tick to tick."""

EVENTS_PER_TICK = 500
"""Recording one takes milliseconds, and a tick must end within a minute."""


def missing_or_changed_weeks_sensor(home: Home, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """The sensor of `job` for the weeks of `home`."""

    @dg.sensor(
        name="missing_or_changed_weeks",
        job=job,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Requests, oldest first and one at a time, each closed week that has no predictions or whose source "
            "changed since it was ingested. On a new home it ingests the whole past in one run and refreshes the "
            "newest closed week; from then on it keeps all later weeks complete. A week that failed is left alone "
            "until its source changes or someone runs it again. The week that has just closed belongs to "
            "weekly_refresh_schedule until Monday 07:00 UTC."
        ),
    )
    def missing_or_changed_weeks(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # Each week starts from the model of the one before: a request waits until all earlier ones have ended.
        if run := unfinished_run(context.instance):
            return dg.SkipReason(f"run {run.run_id[:8]} is {run.status.value.lower()}; looking again when it has ended")
        if backfill := unfinished_backfill(context.instance):
            return dg.SkipReason(f"backfill {backfill} is in progress; looking again when it has ended")
        backlog = _read(home, context.cursor)
        if not isinstance(backlog, Backlog):
            return backlog
        seen: dict[str, Any] = {
            "cursor": backlog.view.to_json(),
            "asset_events": backlog.unknown_to(context.instance)[:EVENTS_PER_TICK],
        }
        last_week = week_of(now() - SCHEDULE_FIRST - timedelta(weeks=1))
        failed: list[tuple[WorkItem, dg.DagsterRun]] = []
        for item in backlog.work_items(last_week):
            runs = attempts(context.instance, item)
            if not should_not_retry(context.instance, runs):
                return dg.SensorResult(run_requests=[run_request(item, len(runs))], **seen)
            failed.append((item, runs[0]))
            if item.action == INGEST:
                break  # or models would learn from next to nothing, and publish lists all the same
        delete_old_runs(context.instance, home.settings.keep_run_days)
        return dg.SensorResult(skip_reason=_nothing_to_do(backlog, failed), **seen)

    return missing_or_changed_weeks


def _read(home: Home, cursor: str | None) -> Backlog | dg.SensorResult | dg.SkipReason:
    """What is pending, or why the tick is skipped; SourceError if the source could not be read before, either."""
    trouble = Trouble.from_json(cursor)
    if trouble and not trouble.is_due(home):
        raise SourceError(f"{trouble.message} (it is read again less and less often, or once its files change)")
    try:
        backlog = Backlog(home, trouble.view if trouble else SourceView.from_json(cursor))
    except WarehouseError as error:
        return dg.SkipReason(str(error))
    except SourceError as error:
        if trouble is None:  # it may be back in a moment
            found = Trouble(str(error), time.time(), _signature(home), cursor)
            return dg.SensorResult(skip_reason=str(error), cursor=found.to_json())
        Alerts(home).tell("source", str(error))
        raise
    Alerts(home).settle("source")
    return backlog


@dataclass(frozen=True)
class Trouble:
    """Why the source could not be read. It is the sensor's cursor until the source can be read again.

    The tick that finds it is skipped, later ones fail. A failed tick keeps its cursor, so the time since the first one
    decides when to read again: after 30 s, 1, 2, 4, ... minutes, every 32 minutes, or as soon as the files change.
    """

    message: str
    since: float
    """Unix seconds."""
    signature: str
    cursor: str | None
    """The cursor before."""

    @property
    def view(self) -> SourceView | None:
        """What the last reading found."""
        return SourceView.from_json(self.cursor)

    def is_due(self, home: Home) -> bool:
        """Whether to read the source again."""
        looks = int((time.time() - self.since) / INTERVAL)
        return looks & (looks - 1) == 0 or looks % 64 == 0 or _signature(home) != self.signature

    def to_json(self) -> str:
        """The cursor's text."""
        return json.dumps({"trouble": asdict(self)})

    @classmethod
    def from_json(cls, text: str | None) -> "Trouble | None":
        """None if the cursor is another one."""
        try:
            return cls(**json.loads(text or "{}")["trouble"])
        except (KeyError, TypeError, ValueError):
            return None


def _signature(home: Home) -> str:
    try:
        return source_signature(home.source_spec())
    except SourceError as error:
        return str(error)


def _nothing_to_do(backlog: Backlog, failed: list[tuple[WorkItem, dg.DagsterRun]]) -> str:
    if failed:
        runs = "; ".join(f"run {run.run_id[:8]} could not {item.action} {item.weeks}" for item, run in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        return f"{runs}{more}: waiting for the source to change or for someone to run it again (see tgn status)"
    if backlog.view.newest_closed is None:
        return "the source has no closed week yet"
    return f"all weeks up to {backlog.view.newest_closed} are complete"
