"""Runs weeks in this process, through the same definitions and instance that `dagster dev` shows."""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import dagster as dg

from tgn_assets.automation.backlog import Backlog, latest_backlog
from tgn_assets.automation.old_runs import delete_old_runs
from tgn_assets.automation.runs import RANGE_END, RANGE_START, ingested_keys, run_message
from tgn_assets.automation.work_items import INGEST, REFRESH, WorkItem
from tgn_assets.cli.console import Progress
from tgn_assets.definitions import build_definitions
from tgn_assets.ml.connectors.duckdb_session import QUERY_INTERRUPTED
from tgn_assets.ml.progress import duration
from tgn_assets.ml.weeks import shift, weeks_between
from tgn_assets.run_launcher import fail_killed_runs
from tgn_assets.state.artifact_store import MODELS
from tgn_assets.state.dagster_compat import error_chain, event_error
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import PREDICTIONS, SNAPSHOTS, AssetRecord
from tgn_assets.state.run_lock import held_by, hold

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt", "InterruptException")


NEEDED, ASKED, NEWEST = "needed", "asked", "newest"
"""Why a week is run that no work item names: a later one needs it; a command names it; it is the newest one."""


@dataclass(frozen=True)
class RunRecord:
    """A run that a command made."""

    action: str
    first_week: str
    last_week: str
    reason: str
    assets: tuple[str, ...]
    """The assets that it was to make; empty: all of the week, or of `ingest`, rows and snapshots."""
    seconds: float
    error: str | None
    run_id: str


class RunFailed(Exception):
    """A run did not succeed; the message names the cause."""

    def __init__(self, cause: str, run_id: str, interrupted: bool = False) -> None:
        super().__init__(cause)
        self.run_id = run_id
        self.interrupted = interrupted


@contextmanager
def open_runner(home: Home, progress: Progress, verbose: bool = False) -> Iterator["Runner"]:
    """A runner on the instance of `home`; marks killed runs as failed, and in the end deletes old ones."""
    with home.instance() as instance:
        fail_killed_runs(instance, home.run_lock)
        yield Runner(home, instance, progress, verbose)
        delete_old_runs(instance, home.settings.keep_run_days)


class Runner:
    """Ingests and refreshes weeks, one after the other, and shows it on `progress`.

    A run waits for one that another process executes. A run that fails or is interrupted raises RunFailed;
    each asset of its week is then as it was or as it should be. `runs` are all that were made, in this order.
    """

    def __init__(self, home: Home, instance: dg.DagsterInstance, progress: Progress, verbose: bool = False) -> None:
        self._home, self._instance, self._progress = home, instance, progress
        self._job = build_definitions(home.settings).resolve_job_def("weekly_refresh")
        self._run_config = {} if verbose else QUIET
        self.runs = list[RunRecord]()

    def ingest_before(self, week: str) -> None:
        """Ingest, in one run, the earlier weeks that never were, or whose snapshots are missing or outdated."""
        lineage, artifacts = self._home.warehouse().lineage(), self._home.artifact_store()
        earlier, there = weeks_between(self._home.start_week(), shift(week, -1)), artifacts.weeks(SNAPSHOTS)
        missing = [
            week
            for week in earlier
            if lineage.stale(week, {SNAPSHOTS}, newest=False)
            or week not in there
            or artifacts.is_outdated(SNAPSHOTS, week)
        ]
        if missing:
            self._ingest(missing[0], missing[-1], NEEDED)

    def do_pending(self, backlog: Backlog, whole: str | None = None) -> None:
        """Do what is pending, oldest first, as the sensor does; of the week `whole` not only what is stale.

        A week that fails does not hold up later ones, unless its rows could not be ingested, and is not tried again,
        though a part of it may be done; RunFailed at the end names the first that did.
        """
        tried, failures = set[str](), list[RunFailed]()
        while items := [item for item in backlog.work_items() if tried.isdisjoint((item.key, item.cause))]:
            if self._had_to_wait():
                backlog = latest_backlog(self._home)  # the other run may have done it
                continue
            item = items[0]
            tried.add(item.key)
            try:
                self._do(replace(item, assets=()) if item.first == whole else item)
            except RunFailed as failure:
                if failure.interrupted or item.action == INGEST:
                    raise
                failures.append(failure)
                tried.add(item.cause)
            backlog = latest_backlog(self._home)
        if failures:
            raise failures[0]

    def _had_to_wait(self) -> bool:
        """Waits for a run that another process executes; whether there was one."""
        if not held_by(self._home.run_lock):
            return False
        try:
            with hold(self._home.run_lock, f"tgn of process {os.getpid()}", self._progress.say):
                return True
        except KeyboardInterrupt:
            raise self._interrupted(None, None, "") from None

    def _do(self, item: WorkItem) -> None:
        if item.action == INGEST:
            self._ingest(item.first, item.last, item.reason)
        elif item.assets:
            if not set(MODELS).isdisjoint(item.assets):
                self.ingest_before(item.first)
            part = f"{len(item.assets)} stale asset{'s' if len(item.assets) > 1 else ''}"
            self._run(f"week {item.first} ({part})", reason=item.reason, week=item.first, assets=item.assets)
        else:
            self.ingest_before(item.first)  # a snapshot may be gone since
            self.refresh([item.first], item.reason)

    def _ingest(self, first: str, last: str, reason: str) -> None:
        self._run(f"ingest {first}" + (f" to {last}" if last != first else ""), reason=reason, week=first, last=last)

    def refresh(self, weeks: Sequence[str], reason: str = ASKED) -> None:
        """Refresh `weeks`, oldest first, each from the model of the one before."""
        remaining = ""
        for done, week in enumerate(weeks):
            began = time.monotonic()
            place = f" ({done + 1} of {len(weeks)})" if len(weeks) > 1 else ""
            self._run(f"week {week}{place}{remaining}", reason=reason, week=week)
            # Each takes about as long as the last one. The first may have had a cold start, which takes far longer.
            left = (time.monotonic() - began) * (len(weeks) - done - 1)
            remaining = f", about {duration(left)} left"

    def publish(self, week: str) -> None:
        """Make the lists of `week` again, from the models that exist."""
        self._run(f"lists of {week}", reason=ASKED, week=week, assets=(PREDICTIONS,))

    def _run(self, task: str, *, reason: str, week: str, last: str | None = None, assets: Sequence[str] = ()) -> None:
        """Runs `week`, or only `assets` of it; with `last`, ingests the weeks up to that one instead."""
        how: dict[str, Any] = (
            {"partition_key": week} if last is None else {"tags": {RANGE_START: week, RANGE_END: last}}
        )
        if last or assets:
            how["asset_selection"] = ingested_keys() if last else [dg.AssetKey(asset) for asset in assets]
        run_id, before = str(uuid4()), None if last else self._lists(week)
        self._instance.add_event_listener(run_id, self._listen)
        self._progress.begin(task)
        began, failed = time.monotonic(), None
        result = self._job.execute_in_process(
            run_config=self._run_config, instance=self._instance, raise_on_error=False, run_id=run_id, **how
        )
        seconds = time.monotonic() - began
        if not result.success:
            failed = failure(result.all_events, run_id)
            if failed.interrupted:
                failed = self._interrupted(None if last else week, before, run_id)
        if not (failed and failed.interrupted):
            ended = "failed after" if failed else "done in"
            self._progress.say(f"{task.split(',')[0]}: {ended} {duration(seconds)}")
        action, error = INGEST if last else REFRESH, str(failed) if failed else None
        self.runs.append(RunRecord(action, week, last or week, reason, tuple(assets), seconds, error, run_id))
        if failed:
            raise failed

    def _lists(self, week: str | None) -> AssetRecord | None:
        """The record of the lists of `week`, if there are any."""
        return self._home.warehouse().lineage().made.get((PREDICTIONS, week)) if week else None

    def _interrupted(self, week: str | None, before: AssetRecord | None, run_id: str) -> RunFailed:
        """Says what is published of `week`, whose lists were those of `before`."""
        now = self._lists(week)
        if now is None:
            what = "; nothing was published"
        elif now == before:
            what = f"; the lists of {week} are as they were published before"
        else:
            what = f" after the lists of {week} were published"
        rest = "`tgn refresh` does what is left, `tgn status` says what that is"
        return RunFailed(f"interrupted{what}: {rest}", run_id, interrupted=True)

    def _listen(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            show = self._progress.say if int(entry.level) >= logging.WARNING else self._progress.update
            show(f"{entry.step_key}: {entry.user_message}" if entry.step_key else entry.user_message)
        elif event.event_type == dg.DagsterEventType.STEP_START:
            self._progress.update(f"{event.step_key}")


def failure(events: Iterable[dg.DagsterEvent], run_id: str) -> RunFailed:
    """Why a run with these events failed, in one sentence for whoever has to fix it."""
    where, error, reason = "", None, "the run ended without saying why"
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            where, error = f"{event.step_key}: ", data.error
            if data.user_failure_data and data.user_failure_data.description:
                return RunFailed(where + data.user_failure_data.description, run_id)
            break
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            reason = run_message(event) or reason
        error = error or event_error(event)
    causes = list(error_chain(error))
    if any(cause.cls_name in INTERRUPTIONS or cause.message.strip().endswith(QUERY_INTERRUPTED) for cause in causes):
        return RunFailed(where + "interrupted", run_id, interrupted=True)
    message = " ".join((causes[-1].message if causes else reason).split())
    return RunFailed(where + re.sub(r"^tgn_assets[.\w]*: ", "", message), run_id)
