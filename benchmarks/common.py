"""What the benchmarks share: the machine's description, and one `tgn refresh` watched from outside."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".bench"
"""Environments of the peers, prepared homes, generated logs: all that takes long to make and is in no commit."""

GIB = 2**30
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Log:
    """A source with the columns `user`, `item` and `ts`, as the environment of `tgn` names it."""

    source: str
    end_week: str

    def environment(self, home: Path) -> dict[str, str]:
        """The variables of this log's deployment in `home`; the threads are torch's and DuckDB's own choice."""
        return os.environ | {
            "TGN_HOME": str(home),
            "TGN_SOURCE": self.source,
            "TGN_USER_COLUMN": "user",
            "TGN_EVENT_COLUMN": "item",
            "TGN_TIMESTAMP_COLUMN": "ts",
            "TGN_END_WEEK": self.end_week,
            "TGN_DEVICE": "cpu",
        }


@dataclass(frozen=True)
class Step:
    """An asset of a run: when it began (unix seconds), how long it took, and the most memory (bytes resident) that its
    process held meanwhile."""

    start: float
    seconds: float
    peak: int


@dataclass(frozen=True)
class Usage:
    """What one process cost: wall-clock seconds from its start to its end, and its peak of resident memory in bytes."""

    seconds: float
    peak: int
    steps: Mapping[str, Step]


def refresh(log: Log, home: Path, week: str, through: Sequence[str] = ("tgn_assets.cli.main",)) -> Usage:
    """`tgn refresh --week` in a process of its own, watched; its output is shown. RuntimeError if it fails.

    `through` is the module that runs `tgn`, and what it is told besides.
    """
    command = [sys.executable, "-m", *through, "refresh", "--week", week]
    began, start = time.time(), time.perf_counter()
    process = subprocess.Popen(command, env=log.environment(home), cwd=ROOT, stdout=sys.stderr)
    log_query_progress, samples = psutil.Process(process.pid), list[tuple[float, int]]()
    while True:
        ended, status, resources = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        samples.append((time.time(), log_query_progress.memory_info().rss))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; it says above why")
    return Usage(seconds, resources.ru_maxrss * 1024, _steps(home, week, began, samples))


def peer(environment: str, script: str, **given: Any) -> dict[str, np.ndarray]:
    """What `benchmarks/peers/<script>.py` answers to `given` in its environment `.bench/<environment>`."""
    python = WORK / environment / "bin" / "python"
    if not python.exists():
        raise RuntimeError(f"{environment} is not installed; run `make bench-setup`")
    with TemporaryDirectory() as folder:
        source, target = f"{folder}/given.npz", f"{folder}/answer.npz"
        np.savez(source, **given)
        subprocess.run([python, ROOT / "benchmarks" / "peers" / f"{script}.py", source, target], check=True)
        with np.load(target) as answer:
            return dict(answer)


def _steps(home: Path, week: str, began: float, samples: list[tuple[float, int]]) -> dict[str, Step]:
    """The steps of the runs of `week` that started since `began`, from Dagster's history, in their order."""
    from dagster import DagsterInstance, RunsFilter

    found = []
    with DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs(RunsFilter(tags={"dagster/partition": week})):
            found += [s for s in instance.get_run_step_stats(run.run_id) if s.start_time and s.start_time >= began]
    steps = {}
    for step in sorted(found, key=lambda step: step.start_time):
        held = [rss for at, rss in samples if step.start_time <= at <= step.end_time]
        steps[step.step_key] = Step(step.start_time, step.end_time - step.start_time, max(held, default=0))
    return steps


def machine() -> str:
    """One line: processor, cores, memory, and the versions that matter."""
    names = ("torch", "torch_geometric", "duckdb", "dagster", "lightgbm", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    memory = psutil.virtual_memory().total / GIB
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB; Python {platform.python_version()}, {versions}"


def peers() -> str:
    """The peers' versions, as their environments pin them."""
    lines = [line for path in sorted((ROOT / "benchmarks").glob("requirements*.txt")) for line in path.open()]
    pins = dict(line.strip().split("==") for line in lines if "==" in line)
    return ", ".join(f"{name} {pins[name]}" for name in ("implicit", "RecTools", "lightgbm", "torch-sparse"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
