"""The run launcher tells a killed run from a running one: with real processes, one of which is killed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from tgn_assets.run_launcher import WatchfulRunLauncher, fail_killed_runs
from tgn_assets.state.run_lock import held_by, hold

LOCK = Path("no-such-home/run.lock")
SLEEPER = """
import sys, time
import dagster as dg

@dg.op
def sleep():
    print("asleep", flush=True)
    time.sleep(60)

@dg.job
def nap():
    sleep()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    nap.execute_in_process(instance=instance)
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def checked(instance: dg.DagsterInstance, lock: Path = LOCK) -> dg.DagsterRunStatus:
    """The status of the only run once killed ones are marked as failed."""
    fail_killed_runs(instance, lock)
    [run] = instance.get_runs()
    return run.status


def test_run_of_killed_process_is_marked_failed(instance: dg.DagsterInstance) -> None:
    command = [sys.executable, "-c", SLEEPER, instance.root_directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "asleep\n"
        [run] = instance.get_runs()
        launcher = WatchfulRunLauncher()
        launcher.register_instance(instance)
        assert checked(instance) == dg.DagsterRunStatus.STARTED
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
        sleeper.kill()
    assert launcher.check_run_worker_health(run).status.value == "FAILED"
    assert checked(instance) == dg.DagsterRunStatus.FAILURE


def test_a_run_that_holds_the_lock_is_alive_wherever_it_runs(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = instance.create_run_for_job(nowhere, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("started", run, EngineEventData({"pid": 2**22 + 1}))
    lock = tmp_path / "run.lock"
    with hold(lock, f"run {run.run_id} of process 7", print):
        assert held_by(lock) == f"run {run.run_id} of process 7"
        assert checked(instance, lock) == dg.DagsterRunStatus.STARTED
    assert held_by(lock) == ""
    assert checked(instance, lock) == dg.DagsterRunStatus.FAILURE


@dg.job
def nowhere() -> None:
    """A job whose process is on another machine."""
