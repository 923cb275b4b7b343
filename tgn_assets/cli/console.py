"""The progress line of `tgn`: redrawn on a terminal, printed every few seconds elsewhere."""

import threading
import time
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from tgn_assets.ml.progress import duration
from tgn_assets.ml.safe_text import printable

HEARTBEAT = 5.0
"""Seconds between two lines where they cannot be redrawn."""


class Progress(AbstractContextManager["Progress"]):
    """Shows on stderr what is being done and for how long. Results go to stdout, so that they can be piped."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.task, self.detail = "", ""
        self._since = self._printed = time.monotonic()
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
        """Names the task and starts its clock."""
        self.task, self.detail, self._since = task, "", time.monotonic()

    def update(self, detail: str) -> None:
        """Names the current step of the task."""
        self.detail = detail

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(printable(text, keep="\n"), markup=False, soft_wrap=True)
        self._printed = time.monotonic()

    def _beat(self) -> None:
        while not self._stop.wait(0.2):
            if not self.task:
                continue
            doing = ", ".join(part for part in (self.task, self.detail) if part)
            line = f"{doing} ({duration(time.monotonic() - self._since)} so far)"
            if self._status:
                self._status.update(escape(printable(line)))
            elif time.monotonic() - self._printed >= HEARTBEAT:
                self.say(line)


def stdout() -> Console:
    """The console for results; wide enough for every table if it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)
