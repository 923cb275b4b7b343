"""`make chaos`: a week is killed, or an error injected, at every point where it writes; then it must be as if not.

    python -m benchmarks.chaos [--every N] [--minutes M] [--seed S]

A home with three published weeks and one that has closed since is copied for each case. A process does what is pending,
until the fault: the process is killed, or the operating system says that the disk is full, broken, forbidden or
another device. Then readers must find the lists of before or of after, `tgn status` must work, and a second process
that does what is pending must end with the same bytes as an undisturbed one, with nothing left half-written. Prints a
table, and the cases that failed; the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.same_bytes import contents
from tgn_assets.automation.backlog import Backlog
from tgn_assets.cli import status
from tgn_assets.cli.console import Progress
from tgn_assets.cli.runner import RunFailed, open_runner
from tgn_assets.ml import artifact_io
from tgn_assets.ml.weeks import shift
from tgn_assets.settings import Settings
from tgn_assets.state import warehouse
from tgn_assets.state.home import Home
from tgn_assets.state.process import prepare_process

KILL = "kill"
ERRORS = ("ENOSPC", "EIO", "EACCES", "EXDEV")
FIRST, WEEKS, USERS = "2024-01-01", 5, 6
MODULES = (
    "ml.encoder.train",
    "ml.ranker.train",
    "ml.recommend.publish",
    "ml.evaluation.evaluate",
    "reporting.weekly_page.page",
)
MADE_SQL = "SELECT week, asset, digest, made_from FROM made_weeks WHERE asset <> 'weekly_report' ORDER BY ALL"
"""A report has the times of its run in it, so that its digest is another one."""
STRUCK = "struck"
"""The file beside the home that names the point at which the fault came."""
MARGIN = 60.0
"""Seconds to keep of the limit, for the table."""


@dataclass(frozen=True)
class Fault:
    """What happens at the `at`-th point where the home is written to."""

    at: int
    kind: str


class Points:
    """Counts the points before and after each write, rename, removal and commit in `root`, and strikes at one."""

    def __init__(self, root: Path, fault: Fault | None) -> None:
        self.root, self.fault, self.names = root, fault, list[str]()

    def __call__(self, name: str) -> None:
        """The process is at the point `name`."""
        at = len(self.names)
        self.names.append(name)
        if self.fault is None or self.fault.at != at:
            return
        self.root.with_name(STRUCK).write_text(name)
        if self.fault.kind == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.fault.kind)
        raise OSError(code, os.strerror(code), str(self.root))

    def around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`function` with a point before and one after, where a path of it lies in `root`."""

        def at_points(*args: Any, **kwargs: Any) -> Any:
            paths = [str(arg) for arg in args if isinstance(arg, str | Path)]
            inside = [path for path in paths if path.startswith(str(self.root)) and "/dagster/" not in path]
            if not inside:
                return function(*args, **kwargs)
            place = Path(inside[-1]).relative_to(self.root)
            self(f"before {name} {place}")
            result = function(*args, **kwargs)
            self(f"after {name} {place}")
            return result

        return at_points

    def install(self) -> None:
        """Puts the points into this process, for good."""
        for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree"), (Path, "write_text")):
            setattr(module, name, self.around(getattr(module, name), name))
        setattr(artifact_io, "save_file", self.around(artifact_io.save_file, "save_file"))  # noqa: B010
        plain = warehouse.transaction

        @contextmanager
        def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
            with plain(con):
                yield
                self("before commit")
            self("after commit")

        setattr(warehouse, "transaction", transaction)  # noqa: B010


def main() -> int:
    """Prints the table; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="strike at every N-th point only (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="limit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of cases and of the errors")
    given = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory(prefix="tgn-chaos-") as folder:
        campaign = Campaign(Path(folder))
        tried, failed = campaign.run(given.every, given.minutes * 60, given.seed)
    print("| fault | points struck | survived |\n|---|---|---|")
    for kind, count in sorted(tried.items()):
        print(f"| {kind} | {count} | {count - sum(fault.kind == kind for fault, _ in failed)} |")
    for fault, why in failed:
        print(f"{fault.kind} at point {fault.at}: {why}")
    return int(bool(failed) or not tried)


class Campaign:
    """The homes under `folder`, one before the week and one for each case; the `points` of an undisturbed week."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.struck = folder, folder / "home", ""
        log = folder / "log.csv"
        rows = [
            f"user {user},event {(user + week) % 4},{shift(FIRST, week)[:8]}{int(shift(FIRST, week)[8:]):02d} 12:00:00"
            for week in range(WEEKS)
            for user in range(USERS)
        ]
        self.settings = Settings(
            _env_file=None,
            home=self.home,
            source=str(log),
            export_parquet=str(self.home / "export"),
            end_week=shift(FIRST, WEEKS - 1),
        )
        head = "ip_address,event_id,timestamp\n"
        listed = folder / "points"
        for last in (WEEKS - 2, WEEKS - 1, WEEKS):
            log.write_text(head + "\n".join(rows[: last * USERS]) + "\n")
            if last == WEEKS:
                self.home.rename(folder / "before")
                self._restore()
            settings = self.settings.model_copy(update={"end_week": shift(FIRST, last - 1)})
            self._in_child(lambda: listed.write_text("\n".join(_struck(settings, None))))  # noqa: B023
        self.points = listed.read_text().splitlines()
        self.after = self._state()

    def run(self, every: int, seconds: float, seed: int) -> tuple[Counter[str], list[tuple[Fault, str]]]:
        """Faults tried by kind, and those after which something was wrong."""
        start, draw = time.monotonic(), random.Random(seed)
        kinds = ((KILL, draw.choice(ERRORS)) for _ in self.points)
        cases = [Fault(at, kind) for at, both in enumerate(kinds) for kind in both]
        cases = cases[every // 2 :: max(every, 1)]
        draw.shuffle(cases)
        tried, failed = Counter[str](), list[tuple[Fault, str]]()
        for done, case in enumerate(cases):
            if time.monotonic() - start > seconds - MARGIN:
                print(f"{len(cases) - done} of {len(cases)} cases were left out: out of time")
                break
            why = self.strike(case)
            if not self.struck:
                print(f"point {case.at} was not reached")
                continue
            tried[case.kind] += 1
            if why:
                failed.append((case, f"{self.struck}: {why}"))
        return tried, failed

    def strike(self, fault: Fault) -> str:
        """What was wrong after `fault`; empty if nothing. `struck` names the point at which it came, if it did."""
        struck = self.folder / STRUCK
        struck.unlink(missing_ok=True)
        self._restore()
        self._in_child(lambda: _struck(self.settings, fault), may_fail=True)
        self.struck = struck.read_text() if struck.exists() else ""
        lists = self._lists()
        if lists not in (self.before_lists, self.after_lists):
            return "readers find lists that are neither those of before nor those of after"
        if self._in_child(lambda: list(status.status_sections(Home(self.settings))), may_fail=True):
            return "tgn status fails"
        if self._in_child(lambda: do_pending(self.settings), may_fail=True):
            return "the week cannot be run again"
        state = self._state()
        different = sorted(
            str(key) for key in self.after.keys() | state.keys() if self.after.get(key) != state.get(key)
        )
        left = [str(path) for path in self.home.rglob("*") if path.name.endswith((".new", ".old"))]
        left += [str(path) for path in (self.home / "artifacts").glob("*/.*")]
        return "; ".join(
            [*(f"{name} is not the same" for name in different[:3]), *(f"{name} is left" for name in left)]
        )

    def _restore(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.folder / "before", self.home)
        self.before_lists = self._lists()

    def _lists(self) -> list[tuple]:
        with duckdb.connect(self.home / "current.duckdb", read_only=True) as con:
            return con.execute("SELECT * FROM current_top5 ORDER BY ALL").fetchall()

    def _state(self) -> dict[str, Any]:
        """Tables, tensors and exports of the home: what must be the same whatever happened."""
        self.after_lists = getattr(self, "after_lists", None) or self._lists()
        state: dict[str, Any] = {}
        for file in ("warehouse.duckdb", "current.duckdb"):
            with duckdb.connect(self.home / file, read_only=True) as con:
                names = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
                tables = {name: f"SELECT * FROM {name} ORDER BY ALL" for name in names}
                if "made_weeks" in tables:
                    tables["made_weeks"] = MADE_SQL
                state |= {f"{name} of {file}": con.execute(query).fetchall() for name, query in tables.items()}
        state |= {str(path): path.read_bytes() for path in (self.home / "export").rglob("*.parquet")}
        return state | {str(key): value for key, value in contents(self.home / "artifacts").items()}

    def _in_child(self, work: Callable[[], object], *, may_fail: bool = False) -> int:
        return in_child(work, self.folder / "output", must=not may_fail)


def prepare() -> None:
    """Imports what a run needs, once and not in each child; nothing is computed here, so that no thread runs."""
    prepare_process()
    for module in MODULES:
        import_module(f"tgn_assets.{module}")
    with (
        tempfile.TemporaryDirectory(prefix="tgn-chaos-") as folder,
        Home(Settings(_env_file=None, home=Path(folder))).instance(),
    ):
        pass  # SQLAlchemy and much of Dagster are loaded when an instance is opened


def in_child(work: Callable[[], object], output: Path, *, must: bool = False) -> int:
    """Does `work` in a process of its own, which prints to `output`, and returns its exit status.

    RuntimeError if it fails and `must` not.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with output.open("a") as out, redirect_stdout(out), redirect_stderr(out):
                work()
            code = 0
        finally:
            os._exit(code)
    _, ended = os.waitpid(child, 0)
    if ended and must:
        raise RuntimeError(output.read_text()[-3000:])
    return ended


def do_pending(settings: Settings) -> None:
    """What `tgn refresh --if-needed` does."""
    home = Home(settings)
    with Progress() as progress, open_runner(home, progress) as runner:
        runner.do_pending(Backlog(home))


def _struck(settings: Settings, fault: Fault | None) -> list[str]:
    """Does what is pending with `fault`; returns the points that were passed."""
    points = Points(settings.home, fault)
    points.install()
    try:
        do_pending(settings)
    except (RunFailed, OSError):
        if fault is None:
            raise
    return points.names


if __name__ == "__main__":
    sys.exit(main())
