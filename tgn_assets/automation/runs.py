"""Runs of our assets in Dagster's history: what they were requested for, how they ended, and what to request next."""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from tgn_assets.assets.interaction_log import LOG
from tgn_assets.automation.work_items import INGEST, WorkItem
from tgn_assets.names import PLAIN, Names
from tgn_assets.state.dagster_compat import FROM_OUTSIDE, PARTITION, event_error
from tgn_assets.state.lineage import RAW, SNAPSHOTS, UPSTREAM

JOB, OBSERVE_JOB = "weekly_refresh", "observe_source"
REQUEST_TAG, REASON_TAG, SIGNATURE_TAG = "tgn/request", "tgn/reason", "tgn/signature"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in (*FAILED, dg.DagsterRunStatus.SUCCESS)]

ENDED_EARLY = "the process of this run was killed, by the system if memory ran out; run the week again"


def latest_attempts(instance: dg.DagsterInstance, item: WorkItem, names: Names) -> list[dg.DagsterRun]:
    """The runs that were requested for `item`, for the same rows of the source, and failures of the same cause that did
    a part, since another run last did something else with these weeks; newest first.

    What was done before does not count: a policy that comes, goes and comes back, or a home that was restored, asks for
    the same again.
    """
    tags = {RANGE_START: item.first, RANGE_END: item.last} if item.action == INGEST else {PARTITION: item.first}
    key, cause, latest = names.of(item.key), names.of(item.cause), list[dg.DagsterRun]()
    for run in instance.get_runs(dg.RunsFilter(tags=tags)):
        request = run.tags.get(REQUEST_TAG, "")
        if request == key or (run.status in FAILED and request.startswith(cause)):
            latest.append(run)
        elif run.status == dg.DagsterRunStatus.SUCCESS and is_ours(run, names):
            break
    return latest


def may_retry(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> bool:
    """Whether to request once more what these `runs` were for: there was none, or one whose process was killed.

    Another attempt would only repeat one that failed, or succeeded and left the work undone.
    """
    return len(runs) < 2 and all(run.status not in FAILED or has_crashed(instance, run) for run in runs)


def left_alone(instance: dg.DagsterInstance, items: Iterable[WorkItem], names: Names) -> Iterator[str]:
    """The keys of those `items`, in order, that the sensor does not request: runs failed, or the past is not there."""
    remaining = iter(items)
    for item in remaining:
        if not may_retry(instance, latest_attempts(instance, item, names)):
            yield item.key
            if item.action == INGEST:
                yield from (later.key for later in remaining)
                return


def has_crashed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether `run` failed without any error of its own: its process was killed, or the machine went down."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    return not any(event.is_step_failure or event_error(event) for event in _failures(instance, run))


def _failures(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.DagsterEvent]:
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    return [entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=kinds) if entry.dagster_event]


def failure_message(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why `run` failed, as far as its error was made to be shown."""
    message = f"it ended as {run.status.value.lower()}"
    for event in _failures(instance, run):
        data = event.step_failure_data.user_failure_data if event.is_step_failure else None
        if data and data.description:
            return data.description
        message = run_message(event) or message
    return message


def run_message(event: dg.DagsterEvent) -> str | None:
    """The message of an event that ends a run; of a killed process ours, as Dagster's tells nothing."""
    killed = event.message == FROM_OUTSIDE and not event_error(event)
    return ENDED_EARLY if killed else event.message


def unfinished_run(instance: dg.DagsterInstance, item: WorkItem | None, names: Names) -> dg.DagsterRun | None:
    """A run that does `item` and is queued or in progress, whoever requested it; None: any run of our assets."""
    if item is None:
        tags = dict[str, str]()
    elif item.action == INGEST:
        tags = {REQUEST_TAG: names.of(item.key)}
    else:
        tags = {PARTITION: item.first}
    runs = instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED))
    return next((run for run in runs if is_ours(run, names) or is_observation(run, names)), None)


def is_ours(run: dg.DagsterRun, names: Names = PLAIN) -> bool:
    """Whether `run` makes the assets with these `names`: an instance may be shared with others."""
    return run.job_name == names.of(JOB) or not made_keys(names).isdisjoint(run.asset_selection or ())


def made_keys(names: Names) -> set[dg.AssetKey]:
    """The assets of a week with these `names`, without exports."""
    return set(names.keys([RAW, *UPSTREAM]))


def is_observation(run: dg.DagsterRun, names: Names) -> bool:
    """Whether `run` observes the source, and makes nothing."""
    return run.job_name == names.of(OBSERVE_JOB) or run.asset_selection == {names.key(LOG)}


def ingested_keys(names: Names = PLAIN) -> list[dg.AssetKey]:
    """The assets with these `names` that a run makes which ingests the past."""
    return names.keys([RAW, SNAPSHOTS])


def run_request(instance: dg.DagsterInstance, item: WorkItem, names: Names = PLAIN) -> dg.RunRequest:
    """The request for a run of job `weekly_refresh` that does `item`; each attempt has a key of its own."""
    request = {REQUEST_TAG: names.of(item.key)}
    attempt = len(instance.get_runs(dg.RunsFilter(tags=request)))
    tags = request | {REASON_TAG: item.reason}
    if item.action == INGEST:
        week, assets = None, ingested_keys(names)
        tags |= {RANGE_START: item.first, RANGE_END: item.last}
    else:
        week, assets = item.first, names.keys(item.assets)
    return dg.RunRequest(
        run_key=f"{item.key} {attempt}",
        job_name=names.of(JOB),
        tags=tags,
        partition_key=week,
        asset_selection=assets or None,
    )
