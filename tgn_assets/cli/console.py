"""What `tgn` says while it works: one line of progress, redrawn on a terminal, repeated every few seconds elsewhere."""

import threading
import time
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.status import Status

from tgn_assets.ml.progress import duration

HEARTBEAT = 5.0
"""Seconds without a word after which the line is printed again where it cannot be redrawn."""


class Progress(AbstractContextManager["Progress"]):
    """Says on stderr what is being done and for how long; results go to stdout, so that they can be piped."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, highlight=False)
        self.task, self.detail = "", ""
        self._since = self._spoken = time.monotonic()
        self._stop = threading.Event()
        self._status = Status("", console=self.console) if self.console.is_terminal else None
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Progress":
        if self._status:
            self._status.start()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        if self._status:
            self._status.stop()

    def begin(self, task: str) -> None:
        """What the time counts for from now on."""
        self.task, self.detail, self._since = task, "", time.monotonic()

    def update(self, detail: str) -> None:
        """What the task is at."""
        self.detail = detail

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)
        self._spoken = time.monotonic()

    def _beat(self) -> None:
        while not self._stop.wait(0.2):
            if not self.task:
                continue
            doing = ", ".join(part for part in (self.task, self.detail) if part)
            line = f"{doing} ({duration(time.monotonic() - self._since)} so far)"
            if self._status:
                self._status.update(line.replace("[", r"\["))
            elif time.monotonic() - self._spoken >= HEARTBEAT:
                self.say(line)


def stdout() -> Console:
    """Where results go; as wide as they need when that is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)
