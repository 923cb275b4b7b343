"""A run launcher that notices when the process of a run was killed, which Dagster's own does not.

Without it such a run stays "started" for ever and, with one run at a time, no later run is ever launched. The
`dagster.yaml` of every home names this module.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, DefaultRunLauncher, RunsFilter

from tgn_assets.settings import get_settings
from tgn_assets.state.dagster_compat import CheckRunHealthResult, WorkerStatus
from tgn_assets.state.home import RUN_LOCK
from tgn_assets.state.run_lock import held_by

CLOCK_SLACK = 5.0
"""Seconds by which a process may seem to have started after the event that it wrote."""
START_SECONDS = 300.0
"""A run that was made so long ago and has not started never will: whoever was to start it was killed."""
NEVER_STARTED = "Its process was killed before it started, so nothing was changed; run the week again."


class WatchfulRunLauncher(DefaultRunLauncher):
    """The default launcher, with the health check that run monitoring (dagster.yaml) asks for."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: `check_run_worker_health` works."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of `run` is alive."""
        if is_alive(self._instance, run.run_id, get_settings().home / RUN_LOCK):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "the process of this run is gone")


def is_alive(instance: DagsterInstance, run_id: str, lock: Path) -> bool:
    """Whether the run is at work: it holds the file `lock`, from wherever, or waits for it on this machine."""
    return run_id in held_by(lock) or has_live_process(instance, run_id)


def has_live_process(instance: DagsterInstance, run_id: str) -> bool:
    """Whether the process that wrote the run's newest engine event still runs on this machine.

    True as long as no process is known. A process that started after the event is another one with the same number.
    """
    for entry in reversed(instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        if event is not None and (pid := event.engine_event_data.metadata.get("pid")) is not None:
            try:
                return psutil.Process(int(str(pid.value))).create_time() <= entry.timestamp + CLOCK_SLACK
            except psutil.NoSuchProcess:
                return False
    return True


def fail_killed_runs(instance: DagsterInstance, lock: Path) -> None:
    """Mark started runs whose process is gone as failed, unless they hold the file `lock`, and those that will never
    start.
    """
    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])):
        if not is_alive(instance, run.run_id, lock):
            instance.report_run_failed(run, "The process of this run is gone; run the week again.")
    fail_unstarted_runs(instance)


def fail_unstarted_runs(instance: DagsterInstance, is_ours: Callable[[DagsterRun], bool] = lambda _: True) -> None:
    """Mark those runs that `is_ours` as failed that were made a while ago and neither queued nor started since.

    Their process was killed in the moment between. Dagster's run monitoring does not look at them.
    """
    long_ago = datetime.now(UTC) - timedelta(seconds=START_SECONDS)
    waiting = RunsFilter(statuses=[DagsterRunStatus.NOT_STARTED], updated_before=long_ago)
    for run in filter(is_ours, instance.get_runs(waiting)):
        instance.report_run_failed(run, NEVER_STARTED)
