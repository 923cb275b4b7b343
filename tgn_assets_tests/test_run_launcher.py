"""The run launcher tells a killed run from a running one: with real processes, one of which is killed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.run_launcher import WatchfulRunLauncher, fail_killed_runs

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


def test_run_of_killed_process_is_marked_failed(instance: dg.DagsterInstance) -> None:
    command = [sys.executable, "-c", SLEEPER, instance.root_directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "asleep\n"
        [run] = instance.get_runs()
        launcher = WatchfulRunLauncher()
        launcher.register_instance(instance)
        assert fail_killed_runs(instance) == []
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
        sleeper.kill()
    assert launcher.check_run_worker_health(run).status.value == "FAILED"
    assert fail_killed_runs(instance) == [run.run_id]
    [run] = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert fail_killed_runs(instance) == []
