"""What long work says while it goes on: how far it is, how fast it goes, how much longer it will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb

LogFn = Callable[[str], None]
SECONDS_BETWEEN = 3.0
"""Between two lines about the same work: a line in Dagster's history costs as much as ranking some users."""
MEASURED_AFTER = 0.5
"""Seconds after which a rate says something about what is left."""


def no_log(_: str) -> None:
    """Says nothing."""


class ProgressReporter:
    """Tells `say`, every few seconds, how much of `total` is done of `what`, in units such as "user".

    Rate and time left are those of the work since the first of it began. Where it may end early, `at_most` so much is
    left.
    """

    def __init__(
        self,
        say: LogFn,
        what: str,
        total: int,
        unit: str,
        at_most: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.done = what, total, 0
        self._say, self._unit, self._bound, self._clock = say, unit, "at most " if at_most else "", clock
        self._began = self._spoke = clock()

    def add(self, amount: int, detail: str = "") -> None:
        """So much more is done; with a `detail` it is said whenever it was last said."""
        self.done += amount
        if detail or self._clock() - self._spoke >= SECONDS_BETWEEN:
            self.tell(detail)

    def left(self, amount: int) -> None:
        """So much is left to be done, whatever was expected."""
        self.total = self.done + amount

    def tell(self, detail: str = "") -> None:
        """Says `detail`, and where the work is, now."""
        self._spoke = self._clock()
        self._say(f"{self.what}: {'; '.join(filter(None, (detail, self._state())))}")

    def _state(self) -> str:
        seconds, left = self._clock() - self._began, self.total - self.done
        said = [f"{self.done:,} of {self._bound if left else ''}{self.total:,} {self._unit}s"]
        if self.done and seconds >= MEASURED_AFTER:
            rate = self.done / seconds
            said.append(f"{rate:,.0f} a second" if rate >= 1 else f"{1 / rate:.1f} s each")
            if left > 0:
                said.append(f"{self._bound}{duration(left / rate)} left")
        return ", ".join(said)


@contextmanager
def log_query_progress(con: duckdb.DuckDBPyConnection, say: LogFn, what: str) -> Iterator[None]:
    """Tells `say`, every few seconds, how much of the statement that `con` is at DuckDB takes to be done."""
    con.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    ended = threading.Event()

    def watch() -> None:
        before, began = 0.0, time.monotonic()
        while not ended.wait(SECONDS_BETWEEN):
            done = max(con.query_progress(), 0.0)  # percent; -1 between two statements
            if done < before:
                began = time.monotonic()
            before, seconds = done, time.monotonic() - began
            left = f", {duration(seconds * (100 - done) / done)} left" if done and seconds else ""
            say(f"{what}: {done:.0f}%{left}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """`48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
