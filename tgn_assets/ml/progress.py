"""Progress of long steps as log lines: how much is done, how fast, and how long the rest will take. tqdm counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
from tqdm import tqdm

LogFn = Callable[[str], None]
SECONDS_BETWEEN = 3.0
"""Between two lines about the same work: a line in Dagster's event log costs as much as ranking some users."""


def no_log(_: str) -> None:
    """Logs nothing."""


class ProgressReporter(tqdm):
    """A tqdm that hands lines to `log` where others draw a bar; `unit` is singular, such as "user".

    With `at_most`, the work may end before `total` is done.
    """

    monitor_interval = 0  # no thread: work that stands still has nothing to log

    def __init__(self, log: LogFn, what: str, total: int, unit: str, *, at_most: bool = False) -> None:
        self._log, self.what, self._bound, self._detail = log, what, "at most " if at_most else "", ""
        super().__init__(total=total, unit=unit, miniters=0, disable=False, gui=True)  # gui: display() is ours

    def add(self, amount: float, detail: str = "") -> None:
        """Counts `amount` as done; logs a line if there is a `detail`, or some seconds after the last line."""
        self._detail, self.mininterval = detail, 0 if detail else SECONDS_BETWEEN
        self.update(amount)

    def set_remaining(self, amount: int) -> None:
        """Corrects the total: `amount` is still to be done."""
        self.total = self.n + amount

    def log(self, detail: str = "") -> None:
        """Logs a line with `detail` now."""
        self._detail, self.mininterval = detail, 0
        self.update(0)

    def display(self, *_: Any, **__: Any) -> None:
        """Logs one line; tqdm calls this when a bar would be drawn."""
        state = self.format_dict
        done, total, rate = state["n"], state["total"], state["rate"] or state["n"] / (state["elapsed"] or 1)
        if state["unit"] == "%":
            parts = [f"{done:.0f}%"]
        else:
            parts = [f"{done:,} of {self._bound if done < total else ''}{total:,} {state['unit']}s"]
            if rate:
                parts.append(f"{rate:,.0f} a second" if rate >= 1 else f"{1 / rate:.1f} s each")
        if rate and done < total:
            parts.append(f"{self._bound}{duration((total - done) / rate)} left")
        self._log(f"{self.what}: {'; '.join(filter(None, (self._detail, ', '.join(parts))))}")


@contextmanager
def log_query_progress(con: duckdb.DuckDBPyConnection, log: LogFn, what: str) -> Iterator[None]:
    """Logs, every few seconds, how much of the statement that `con` is executing is done."""
    con.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    ended = threading.Event()

    def watch() -> None:
        progress = ProgressReporter(log, what, 100, "%")
        while not ended.wait(SECONDS_BETWEEN):
            done = max(con.query_progress(), 0.0)  # -1 between two statements
            if done < progress.n:
                progress = ProgressReporter(log, what, 100, "%")
            progress.n = done
            progress.log()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """`0.4 s`, `48 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
