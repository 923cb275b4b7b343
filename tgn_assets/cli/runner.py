"""Runs weeks in this process, through the same definitions and instance that `dagster dev` shows."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.events import EngineEventData, JobFailureData
from dagster._utils.error import SerializableErrorInfo

from tgn_assets.automation.backlog import (
    INGEST_ASSETS,
    PREDICTIONS,
    RANGE_END,
    RANGE_START,
    ingested_weeks,
    weeks_between,
)
from tgn_assets.cli.console import Progress
from tgn_assets.definitions import build_definitions
from tgn_assets.ml.progress import duration
from tgn_assets.ml.weeks import shift
from tgn_assets.run_launcher import fail_killed_runs
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.history_files import eased
from tgn_assets.state.home import Home

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


class RunFailed(Exception):
    """A run did not succeed; the message names the cause."""

    def __init__(self, cause: str, run_id: str, interrupted: bool = False):
        super().__init__(cause)
        self.run_id = run_id
        self.interrupted = interrupted


@contextmanager
def open_runner(home: Home, progress: Progress, verbose: bool = False) -> Iterator["Runner"]:
    """A runner on the instance of `home`, in which runs that were killed no longer count as running."""
    with home.instance() as instance, eased(home.dagster_home):
        fail_killed_runs(instance)
        yield Runner(home, instance, progress, verbose)


class Runner:
    """Ingests and refreshes weeks, one after the other, and tells `progress` about it.

    A run that another process has under way is waited for; a run that is interrupted or fails leaves its week as it
    was and raises RunFailed.
    """

    def __init__(self, home: Home, instance: dg.DagsterInstance, progress: Progress, verbose: bool = False):
        self._home, self._instance, self._progress = home, instance, progress
        self._job = build_definitions(home.settings).resolve_job_def("weekly_refresh")
        self._run_config = {} if verbose else QUIET

    def ingest_before(self, week: str) -> None:
        """Ingest, in one run, the earlier weeks that never were, or whose snapshots are outdated."""
        ingested, artifacts = ingested_weeks(self._home, self._instance), ArtifactStore(self._home.artifacts)
        earlier = weeks_between(self._home.start_week(), shift(week, -1))
        missing = [week for week in earlier if week not in ingested or artifacts.is_outdated("weekly_snapshots", week)]
        if missing:
            self._run(
                f"ingest {missing[0]}" + (f" to {missing[-1]}" if missing[1:] else ""),
                tags={RANGE_START: missing[0], RANGE_END: missing[-1]},
                asset_selection=INGEST_ASSETS,
            )

    def refresh(self, weeks: Sequence[str]) -> None:
        """Refresh `weeks`, oldest first, each from the model of the one before."""
        remaining = ""
        for done, week in enumerate(weeks):
            began = time.monotonic()
            place = f" ({done + 1} of {len(weeks)})" if len(weeks) > 1 else ""
            self._run(f"week {week}{place}{remaining}", partition_key=week)
            # As long as the last one took: the first of them may have started cold, and taken many times as long.
            left = (time.monotonic() - began) * (len(weeks) - done - 1)
            remaining = f", about {duration(left)} left"

    def publish(self, week: str) -> None:
        """Make the lists of `week` again, from the models that are there."""
        self._run(f"lists of {week}", partition_key=week, asset_selection=[PREDICTIONS])

    def _run(self, task: str, **how: Any) -> None:
        run_id = str(uuid4())
        self._instance.add_event_listener(run_id, self._listen)
        self._progress.begin(task)
        began = time.monotonic()
        result = self._job.execute_in_process(
            run_config=self._run_config, instance=self._instance, raise_on_error=False, run_id=run_id, **how
        )
        if not result.success:
            raise failure(result.all_events, run_id)
        self._progress.say(f"{task.split(',')[0]}: done in {duration(time.monotonic() - began)}")

    def _listen(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            self._progress.update(f"{entry.step_key}: {entry.user_message}" if entry.step_key else entry.user_message)
        elif event.event_type == dg.DagsterEventType.STEP_START:
            self._progress.update(f"{event.step_key}")


def failure(events: Iterable[dg.DagsterEvent], run_id: str) -> RunFailed:
    """Why a run with these events failed, in one sentence for the one who must mend it."""
    where, error, said = "", None, "the run ended without saying why"
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            where, error = f"{event.step_key}: ", data.error
            if data.user_failure_data and data.user_failure_data.description:
                return RunFailed(where + data.user_failure_data.description, run_id)
            break
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            said = event.message or said
        if isinstance(event.event_specific_data, EngineEventData | JobFailureData):
            error = error or event.event_specific_data.error
    causes = list(_causes(error))
    if any(cause.cls_name in INTERRUPTIONS for cause in causes):
        return RunFailed(where + "interrupted", run_id, interrupted=True)
    return RunFailed(where + " ".join((causes[-1].message if causes else said).split()), run_id)


def _causes(error: SerializableErrorInfo | None) -> Iterable[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause
