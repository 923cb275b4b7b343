"""The sensor: requests what the schedule missed, weeks without predictions and weeks whose source has changed."""

import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import takewhile
from typing import Any

import dagster as dg

from tgn_assets.assets.interaction_log import SourceObservation
from tgn_assets.automation.alerts import Alerts, now
from tgn_assets.automation.backlog import SCHEDULE_HOUR, Backlog, stored_backlog
from tgn_assets.automation.old_runs import delete_old_runs
from tgn_assets.automation.runs import (
    FAILED,
    JOB,
    OBSERVE_JOB,
    SIGNATURE_TAG,
    failure_message,
    is_observation,
    is_ours,
    latest_attempts,
    made_keys,
    may_retry,
    run_request,
    unfinished_run,
)
from tgn_assets.automation.work_items import INGEST, WorkItem
from tgn_assets.ml.weeks import week_of
from tgn_assets.run_launcher import fail_unstarted_runs
from tgn_assets.state.dagster_compat import UnresolvedAssetJobDefinition, unfinished_backfill
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import WarehouseError

SCHEDULE_FIRST = timedelta(hours=SCHEDULE_HOUR, minutes=5)
"""How long after its close a week is left to the schedule, or both would request it."""

INTERVAL = 30
"""Seconds from tick to tick."""

MAX_TICKS, MAX_TICKS_IF_CHANGED = 64, 10
"""Ticks from one failed observation to the next at most; if the source has changed since, too."""

EVENTS_PER_TICK = 500
"""Recording one takes milliseconds, and a tick must end within a minute."""


def missing_or_changed_weeks_sensor(home: Home, jobs: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    """The sensor for the weeks of `home`, which requests runs of `jobs`."""

    @dg.sensor(
        name=home.names.of("missing_or_changed_weeks"),
        jobs=jobs,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Requests, oldest first and one at a time, each closed week that has no predictions, whose source changed "
            "since it was ingested, or of which a part is older than what it is made from. When the source may have "
            "changed, a run of observe_source reads it first. On a new home it ingests the whole past in one run and "
            "refreshes the newest closed week; from then on it keeps all later weeks complete. A week that failed is "
            "left alone (after a kill it is tried once more) until its source, the policy, an attribute file or the "
            "pinned model changes, or someone runs it again. The week that has just closed belongs to "
            "weekly_refresh_schedule until Monday 06:05 UTC."
        ),
    )
    def missing_or_changed_weeks(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        fail_unstarted_runs(context.instance, lambda run: is_ours(run, home.names) or is_observation(run, home.names))
        # Each week starts from the model of the one before: a request waits until all earlier ones have ended.
        if run := unfinished_run(context.instance, None, home.names):
            return dg.SkipReason(f"run {run.run_id[:8]} is {run.status.value.lower()}; looking again when it has ended")
        if backfill := unfinished_backfill(context.instance, home.names.of(JOB), made_keys(home.names)):
            return dg.SkipReason(f"backfill {backfill} is in progress; looking again when it has ended")
        try:
            backlog, signature = stored_backlog(home)
        except WarehouseError as error:
            return dg.SkipReason(str(error))
        if backlog is None:
            return _observe(home, context.instance, signature)
        Alerts(home).resolve("source")
        seen: dict[str, Any] = {"asset_events": backlog.unknown_to(context.instance)[:EVENTS_PER_TICK]}
        last_week = week_of(now() - SCHEDULE_FIRST - timedelta(weeks=1))
        failed: list[tuple[WorkItem, dg.DagsterRun]] = []
        for item in backlog.work_items(last_week):
            runs = latest_attempts(context.instance, item, home.names)
            if may_retry(context.instance, runs):
                return dg.SensorResult(run_requests=[run_request(context.instance, item, home.names)], **seen)
            failed.append((item, runs[0]))
            if item.action == INGEST:
                break  # or models would learn from next to nothing, and publish lists all the same
        delete_old_runs(context.instance, home.settings.keep_run_days, home.names)
        return dg.SensorResult(skip_reason=_nothing_to_do(backlog, failed, signature), **seen)

    return missing_or_changed_weeks


def _observe(home: Home, instance: dg.DagsterInstance, signature: str) -> dg.SensorResult | dg.SkipReason:
    """Requests an observation of the source, which is at `signature`; alerts of a second one that failed.

    After one that failed, the next is requested 30 s later, then 1, 2, 4, ... 32 minutes, or at most 5 minutes once the
    source has changed. One that was killed, or whose result this home does not have, counts as failed.
    """
    observation, moment, job = SourceObservation.load(home), time.time(), home.names.of(OBSERVE_JOB)
    since = observation.read_at if observation and observation.read_at <= moment else 0.0
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=8)
    failed = [*takewhile(lambda record: record.create_timestamp.timestamp() > since, records)]
    if failed:
        run = failed[0].dagster_run
        lost = "its run left nothing here, so it may have another TGN_HOME or other settings"
        cause = failure_message(instance, run) if run.status in FAILED else lost
        reason = f"the source could not be observed: {cause}"
        if len(failed) > 1:  # it may be back in a moment
            Alerts(home).send("source", reason)
        most = MAX_TICKS if run.tags.get(SIGNATURE_TAG) == signature else MAX_TICKS_IF_CHANGED
        wait = INTERVAL * min(2 ** (len(failed) - 1), most)
        if 0 <= moment - failed[0].update_timestamp.timestamp() < wait:
            return dg.SkipReason(f"{reason} (it is tried again less and less often, or once it changes)")
    # Whatever was requested twice for the same run before it is launched once.
    run_key = f"{job} after {records[0].dagster_run.run_id if records else 'none'}"
    request = dg.RunRequest(run_key=run_key, job_name=job, tags={SIGNATURE_TAG: signature})
    return dg.SensorResult(run_requests=[request])


def _nothing_to_do(backlog: Backlog, failed: list[tuple[WorkItem, dg.DagsterRun]], signature: str) -> str:
    """Why nothing is requested, though some items may have `failed`; the source is at `signature`."""
    if failed:
        runs = "; ".join(f"run {run.run_id[:8]} could not {item.action} {item.weeks}" for item, run in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        return f"{runs}{more}: waiting for what it reads to change or for someone to run it again (see tgn status)"
    if early := backlog.early_end():
        return f"{early} Nothing is requested until then"
    if backlog.observation.newest_closed is None:
        return "the source has no closed week yet"
    if left := backlog.work_items():
        return f"{left[0].weeks} is left to the schedule until Monday {SCHEDULE_HOUR:02}:05 UTC"
    if backlog.observation.signature != signature:
        return "the source has changed since it was read a moment ago; soon it is read again"
    return f"all weeks up to {backlog.observation.newest_closed} are complete"
