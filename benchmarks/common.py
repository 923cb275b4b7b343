"""What the benchmarks share: the machine's description, one `tgn refresh` measured from outside, one run of a peer."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".bench"
"""Holds what takes long to make and is not committed: the peers' environments, prepared homes, generated logs."""

GIB = 2**30
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Log:
    """A source with the columns `user`, `item` and `ts`, the newest week to read from it, and other settings."""

    source: str
    end_week: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a `tgn` that reads this log and keeps its state in `home`."""
        return {
            **os.environ,
            "TGN_HOME": str(home),
            "TGN_SOURCE": self.source,
            "TGN_USER_COLUMN": "user",
            "TGN_EVENT_COLUMN": "item",
            "TGN_TIMESTAMP_COLUMN": "ts",
            "TGN_END_WEEK": self.end_week,
            "TGN_DEVICE": "cpu",
            **self.settings,
        }


@dataclass(frozen=True)
class Step:
    """One asset or check of a run: its start (unix seconds), its duration, and the peak resident memory (bytes) of the
    process meanwhile; `unmapped` is the peak without pages of mapped files, which the system drops where it needs
    them."""

    start: float
    seconds: float
    peak: int
    unmapped: int


@dataclass(frozen=True)
class Usage:
    """The wall-clock seconds and the peak resident memory (bytes) of one process, as in `Step`; its steps in order."""

    seconds: float
    peak: int
    unmapped: int
    steps: Mapping[str, Step]


def refresh(log: Log, home: Path, week: str, through: Sequence[str] = ("tgn_assets.cli.main",)) -> Usage:
    """Runs `tgn refresh --week` in a process of its own and shows its output. RuntimeError if it fails.

    `through` is the module that runs `tgn`, and its own arguments.
    """
    command = [sys.executable, "-m", *through, "refresh", "--week", week]
    began, start = time.time(), time.perf_counter()
    process = subprocess.Popen(command, env=log.environment(home), cwd=ROOT, stdout=sys.stderr)
    watched, samples = psutil.Process(process.pid), list[tuple[float, int, int]]()
    while True:
        ended, status, resources = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        memory = watched.memory_info()
        samples.append((time.time(), memory.rss, memory.rss - memory.shared))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; its output above says why")
    unmapped = max((own for _, _, own in samples), default=0)
    return Usage(seconds, resources.ru_maxrss * 1024, unmapped, _steps(home, week, began, samples))


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder on the disk of `WORK`."""
    WORK.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=WORK) as folder:
        yield Path(folder)


def run_peer(environment: str, script: str, **given: Any) -> dict[str, NDArray[Any]]:
    """The answer of `benchmarks/peers/<script>.py` to the arrays `given`, run in `.bench/<environment>`."""
    python = WORK / environment / "bin" / "python"
    if not python.exists():
        raise RuntimeError(f"{environment} is not installed; run `make bench-setup`")
    with TemporaryDirectory() as folder:
        source, target = f"{folder}/given.npz", f"{folder}/answer.npz"
        np.savez(source, **given)
        subprocess.run([python, ROOT / "benchmarks" / "peers" / f"{script}.py", source, target], check=True)
        with np.load(target) as answer:
            return dict(answer)


def _steps(home: Path, week: str, began: float, samples: list[tuple[float, int, int]]) -> dict[str, Step]:
    """The steps of runs of `week` that started since `began` (unix seconds), in their order."""
    from dagster import DagsterInstance, RunsFilter

    times = []
    with DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs(RunsFilter(tags={"dagster/partition": week})):
            stats = instance.get_run_step_stats(run.run_id)
            times += [(s.start_time, s.end_time, s.step_key) for s in stats if s.start_time and s.end_time]
    steps = {}
    for start, end, name in sorted(step for step in times if step[0] >= began):
        resident, unmapped = zip((0, 0), *(memory for at, *memory in samples if start <= at <= end), strict=True)
        steps[name] = Step(start, end - start, max(resident), max(unmapped))
    return steps


def machine() -> str:
    """One line: processor, cores, memory, and versions of the main dependencies."""
    names = ("torch", "torch_geometric", "duckdb", "dagster", "lightgbm", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    memory = psutil.virtual_memory().total / GIB
    return f"{processor()}, {memory:.0f} GiB; Python {platform.python_version()}, {versions}"


def peer_versions() -> str:
    """One line: the versions of the peers, as their environments pin them."""
    lines = [line for path in sorted((ROOT / "benchmarks").glob("requirements*.txt")) for line in path.open()]
    pins = dict(line.strip().split("==") for line in lines if "==" in line)
    return ", ".join(f"{name} {pins[name]}" for name in ("implicit", "RecTools", "lightgbm", "torch-sparse"))


def processor() -> str:
    """Its name, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
