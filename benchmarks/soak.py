"""What the faults of a single week do not show: many weeks, many processes at once, a backfill of which a week fails.

    python -m benchmarks.soak [weeks] [processes] [backfill] [--weeks N] [--minutes M] [--seed S]

- weeks: N weeks one after the other in one process, with late rows; then neither memory nor open files may have grown
  by the week, no file may be left, and with TGN_KEEP_WEEKS the models do not grow either.
- processes: for M minutes, `tgn dev` with its daemon and seven that refresh, look, read, report and write to the log,
  all on one home; those that refresh are killed at random. Readers must find whole lists, no command may fail, and in
  the end what is pending is done and `tgn doctor` finds no fault.
- backfill: `tgn dev` backfills five weeks, one of which fails at its page. The others are complete, the failure is
  said, and once the hindrance is gone what is pending ends with a complete home.

Prints a table; the exit status is 1 if something was wrong.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import psutil  # type: ignore[import-untyped]

from benchmarks.chaos import do_pending, in_child, prepare
from benchmarks.dev_server import ROOT, dev_server
from tgn_assets import run_launcher
from tgn_assets.automation.backlog import Backlog
from tgn_assets.cli import doctor, status
from tgn_assets.cli.main import cli
from tgn_assets.ml.parallel import trim_malloc
from tgn_assets.ml.weeks import shift
from tgn_assets.settings import Settings, given_settings
from tgn_assets.state.home import Home

FIRST, USERS, EVENTS = "2023-01-02", 8, 5
KEPT = 26
"""TGN_KEEP_WEEKS, the least."""
GROWTH = 2.0
"""MB a week by which the memory of one process that runs all weeks may grow: allocators keep some."""
CLOSED = 3
"""Weeks that are published before many processes begin."""


class Log:
    """A log at `folder` / log.csv that grows."""

    def __init__(self, folder: Path) -> None:
        self.path, self.weeks = folder / "log.csv", 0
        self.path.write_text("ip_address,event_id,timestamp\n")

    def close_weeks(self, number: int) -> None:
        """Appends the rows of as many weeks."""
        for week in range(self.weeks, self.weeks + number):
            days = (f"{self.week(week)} 10:00:00", f"{self.week(week, days=6)} 12:00:00")
            rows = [
                f"user {user},event {(user + at * week) % EVENTS},{day}"
                for at, day in enumerate(days)
                for user in range(USERS)
            ]
            self.append(rows)
        self.weeks += number

    def be_late(self, week: int, user: str) -> None:
        """Appends a row of a week that has closed."""
        self.append([f"{user},event {week % EVENTS},{self.week(week)} 09:00:00"])

    def append(self, rows: list[str]) -> None:
        """Appends them in one write."""
        with self.path.open("a") as file:
            file.write("".join(f"{row}\n" for row in rows))

    def week(self, number: int, days: int = 0) -> str:
        """The date of its Monday, or of a later day."""
        monday = shift(FIRST, number)
        return str(duckdb.execute("SELECT ?::DATE + ?::INTEGER", [monday, days]).fetchall()[0][0])

    def settings(self, folder: Path, last: int, **more: Any) -> Settings:
        """The settings of a home on it, up to week number `last`."""
        where = {"home": folder / "home", "source": str(self.path), "end_week": shift(FIRST, last)}
        return given_settings(where | more)


def main() -> int:
    """Prints the table; returns 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--weeks", type=int, default=60, help="of the soak (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=4, help="of many processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of kills and late rows")
    given = parser.parse_args()
    prepare()
    faults = list[str]()
    print("| tried | seen | wrong |\n|---|---|---|")
    for name in given.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="tgn-soak-") as folder:
            what, seen, wrong = PARTS[name](Path(folder), given)
            print(f"| {what} | {seen} | {len(wrong) or 'nothing'} |", flush=True)
            faults += [f"{name}: {fault}" for fault in wrong]
    print("\n".join(faults))
    return int(bool(faults))


def soak(folder: Path, given: argparse.Namespace) -> tuple[str, str, list[str]]:
    """Weeks one after the other, in a process of their own."""
    found = folder / "measured.json"
    temporary = folder / "tmp"
    temporary.mkdir()

    def work() -> None:
        tempfile.tempdir = str(temporary)
        log, draw, measured = Log(folder), random.Random(given.seed), list[dict[str, float]]()
        log.close_weeks(CLOSED)
        for number in range(CLOSED, given.weeks + CLOSED):
            log.close_weeks(1)
            if draw.random() < 0.2:
                log.be_late(draw.randrange(number), f"late {number}")
            do_pending(settings := log.settings(folder, number, keep_weeks=KEPT))
            measured.append(_measure(settings.home))
            found.write_text(json.dumps(measured))

    if in_child(work, folder / "output"):
        return f"{given.weeks} weeks", "it failed", [(folder / "output").read_text()[-500:]]
    measured = json.loads(found.read_text())
    settled, last = measured[min(KEPT + 2, len(measured) // 2)], measured[-1]
    weeks = len(measured) - 1 - measured.index(settled)
    grown = {name: (last[name] - settled[name]) / max(weeks, 1) for name in last}
    wrong = [f"{left} is left in the temporary folder" for left in sorted(os.listdir(temporary))]
    if grown["open files"] > 0:
        wrong.append(f"{last['open files'] - settled['open files']:g} more open files after {weeks} weeks")
    if grown["memory"] > GROWTH:
        wrong.append(f"memory grows by {grown['memory']:.2f} MB a week")
    if weeks and len(measured) > KEPT + 2 and grown["artifacts"] > 0.05:
        wrong.append(f"artifacts grow by {grown['artifacts']:.2f} MB a week")
    kept = {"home": folder / "home", "source": str(folder / "log.csv"), "keep_weeks": KEPT}
    wrong += _faults(Home(given_settings(kept)))
    sizes = ", ".join(f"{name} {last[name]:.1f} MB ({grown[name]:+.2f})" for name in last if name != "open files")
    seen = f"{last['open files']:g} open files ({grown['open files']:+g} a week), {sizes}"
    return f"{given.weeks} weeks one after the other, in one process", seen, wrong


def _measure(home: Path) -> dict[str, float]:
    gc.collect()  # `tgn` collects seldom
    trim_malloc()
    process = psutil.Process()

    def size(*paths: Path) -> float:
        files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
        return sum(file.stat().st_size for file in files if file.is_file()) / 1e6

    return {
        "open files": process.num_fds(),
        "memory": process.memory_info().rss / 1e6,
        "warehouse": size(home / "warehouse.duckdb"),
        "artifacts": size(home / "artifacts"),
        "history": size(home / "dagster"),
    }


def crowd(folder: Path, given: argparse.Namespace) -> tuple[str, str, list[str]]:
    """Eight processes on one home."""
    log, draw, last = Log(folder), random.Random(given.seed), CLOSED + 4
    log.close_weeks(CLOSED)
    settings = log.settings(folder, last)
    for closed in (CLOSED - 2, CLOSED - 1):
        in_child(partial(do_pending, log.settings(folder, closed)), folder / "output", must=True)
    end = time.monotonic() + 60 * given.minutes

    def writing() -> None:
        for week in range(last - CLOSED + 1):
            time.sleep(60 * given.minutes / (last - CLOSED + 2))
            log.close_weeks(1)
            log.be_late(draw.randrange(log.weeks), f"late {week}")

    arguments = {
        "refresh": ["refresh", "--if-needed"],
        "status": ["status"],
        "top5": ["top5", "user 1"],
        "report": ["report"],
    }
    loops = [_Loop(settings, folder, name, arguments[name]) for name in ("refresh", "refresh", *list(arguments)[1:])]
    wrong, read = list[str](), 0
    with dev_server(folder, _environment(settings)):
        writer = os.fork()
        if writer == 0:
            writing()
            os._exit(0)
        while time.monotonic() < end:
            for loop in loops:
                loop.go_on(kill_after=draw.uniform(5, 60) if loop.name == "refresh" else None)
            wrong += _unwhole(settings.home)
            read += 1
            time.sleep(0.3)
        for loop in loops:
            loop.end()
        os.waitpid(writer, 0)
    wrong += [fault for loop in loops for fault in loop.wrong]
    if in_child(lambda: do_pending(settings), folder / "output"):
        wrong.append(f"what is pending fails: {(folder / 'output').read_text()[-500:]}")
    wrong += _faults(Home(settings))
    ended = sum((loop.ended for loop in loops), Counter[str]())
    seen = ", ".join(f"{count} x {what}" for what, count in sorted(ended.items()))
    return f"eight processes at once, {given.minutes:g} minutes", f"{seen}, {read} x lists read", wrong


class _Loop:
    """A command of `tgn` that is run again and again, each time in a process of its own."""

    def __init__(self, settings: Settings, folder: Path, name: str, arguments: list[str]) -> None:
        self.name, self.arguments, self.environment = name, arguments, _environment(settings)
        self.output = folder / f"{name}-{id(self)}"
        self.wrong, self.ended = list[str](), Counter[str]()
        self._process, self._kill_at, self._killed = 0, float("inf"), False

    def go_on(self, kill_after: float | None) -> None:
        """Starts the command if it does not run; kills it when its time has come."""
        if self._process and time.monotonic() > self._kill_at:
            os.kill(self._process, signal.SIGKILL)
            self._killed, self._kill_at = True, float("inf")
        if self._process:
            self._look(os.WNOHANG)
        if not self._process:
            self._killed, self._kill_at = False, time.monotonic() + (kill_after or float("inf"))
            self._process = os.fork()
            if self._process == 0:
                self._run()

    def end(self) -> None:
        """Waits for the command."""
        if self._process:
            self._look(0)

    def _look(self, how: int) -> None:
        found, code = os.waitpid(self._process, how)
        if not found:
            return
        self._process = 0
        self.ended[f"{self.name} killed" if self._killed else self.name] += 1
        if code and not self._killed:
            self.wrong.append(f"tgn {self.name} ended with {os.waitstatus_to_exitcode(code)}: {self._said()}")

    def _said(self) -> str:
        return self.output.read_text()[-300:].strip()

    def _run(self) -> None:
        code = 1
        try:
            out = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.environ.update(self.environment)
            cli(self.arguments, prog_name="tgn")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)


def backfill(folder: Path, _given: argparse.Namespace) -> tuple[str, str, list[str]]:
    """A backfill of five weeks; the page of the third cannot be written."""
    log, number = Log(folder), CLOSED + 5
    log.close_weeks(number)
    settings = log.settings(folder, number - 1)
    in_child(lambda: do_pending(log.settings(folder, CLOSED - 1)), folder / "output", must=True)
    weeks = [shift(FIRST, CLOSED + at) for at in range(5)]
    hindrance = settings.home / "reports" / f"{weeks[2]}.html"
    hindrance.mkdir(parents=True)
    with dev_server(folder, _environment(settings)) as server:
        runs = server.runs_of_backfill(server.launch_backfill(weeks), len(weeks), seconds=600)
    told = {run["tags"]["dagster/partition"]: run["status"] for run in runs}
    expected = dict.fromkeys(weeks, "SUCCESS") | {weeks[2]: "FAILURE"}
    wrong = [] if told == expected else [f"runs ended as {told}"]
    sections = dict(status.status_sections(Home(settings)))
    if [run["weeks"] for run in sections["failed_runs"]] != [weeks[2]]:
        wrong.append(f"tgn status says of failed runs: {sections['failed_runs']}")
    hindrance.rmdir()
    if in_child(lambda: do_pending(settings), folder / "output"):
        wrong.append(f"what is pending fails: {(folder / 'output').read_text()[-500:]}")
    wrong += _faults(Home(settings))
    said = "; ".join(str(run["cause"])[:120] for run in sections["failed_runs"])
    return "a backfill of five weeks, one of which fails", f"four complete, said of the other: {said}", wrong


PARTS: dict[str, Callable[[Path, argparse.Namespace], tuple[str, str, list[str]]]] = {
    "weeks": soak,
    "processes": crowd,
    "backfill": backfill,
}


def _faults(home: Home) -> list[str]:
    """What is wrong with a home on which nobody works."""
    wrong = [str(fault.text) for fault in doctor.findings(home) if fault.to_do]
    wrong += [f"{item.weeks} is pending: {item.reason}" for item in Backlog(home).work_items()]
    wrong += [f"{path} is left" for path in home.root.rglob("*") if path.name.endswith((".new", ".old"))]
    run_launcher.START_SECONDS = 0.0  # nobody is about to start a run
    sections = dict(status.status_sections(home))
    return wrong + [f"run of {run['weeks']} is {run['status']}" for run in sections["unfinished_runs"]]


def _unwhole(home: Path) -> Iterator[str]:
    """What is wrong with the lists that a reader finds now."""
    with duckdb.connect(home / "current.duckdb", read_only=True) as con:
        lists = con.execute("SELECT user_id, list(rank ORDER BY rank) FROM current_top5 GROUP BY ALL").fetchall()
        (users,) = con.execute("SELECT users FROM published_weeks ORDER BY week DESC LIMIT 1").fetchall()[0]
    if len(lists) != users:
        yield f"{len(lists)} lists where {users} were published"
    yield from (f"{user} has ranks {ranks}" for user, ranks in lists if ranks != list(range(1, len(ranks) + 1)))


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "TGN_HOME": str(settings.home),
        "TGN_SOURCE": settings.source,
        "TGN_END_WEEK": str(settings.end_week),
        "PYTHONPATH": str(ROOT),
    }


if __name__ == "__main__":
    sys.exit(main())
