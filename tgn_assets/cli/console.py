"""What `tgn` prints: results on stdout, as text or JSON, and on stderr the progress line.

That line is redrawn on a terminal and printed every few seconds elsewhere.
"""

import json
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from math import isfinite
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from tgn_assets.cli.base import is_json
from tgn_assets.ml.progress import duration
from tgn_assets.ml.safe_text import printable
from tgn_assets.reporting.tables import ResultTable

HEARTBEAT = 5.0
"""Seconds between two lines where they cannot be redrawn."""


class _Console(Console):
    """As that of rich, which ends the process once a reader has gone: the work goes on, and is printed no more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Progress(AbstractContextManager["Progress"]):
    """Shows on stderr what is being done and for how long. Results go to stdout, so that they can be piped."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _Console(stderr=True, highlight=False)
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


UNLIMITED = 100_000
"""Cells: more than a table has."""
Shown = Mapping[str, Callable[[Any], Iterable[str | ResultTable]]]
"""Section of an answer -> the lines and tables that it is shown as; a section that is not here is in the JSON only."""
WITHIN_INTERVAL = re.compile(r"(?<=\d,) (?=[^\s\]]+\])")
INDENT = " " * 11
"""Before the second and later lines of a text: the first begins with a word of this width."""


def answer(sections: Iterable[tuple[str, Any]], shown: Shown, closing: Iterable[str] = ()) -> None:
    """Prints the named `sections` of a command's results: with `--json` as one document, or else as `shown` says.

    `closing` are lines at the end of the text.

    Text appears section by section: what is known comes before the error that ends the command. A reader that has gone
    is no error: whether the command failed is what it did before.
    """
    if is_json():
        document = json.dumps({name: plain(value) for name, value in sections}, indent=2, allow_nan=False)
        with suppress(BrokenPipeError):
            click.echo(document)
        return
    for name, value in sections:
        if name in shown:
            results = list(shown[name](value))
            try:
                print_results(results)
            except BrokenPipeError:
                return
    with suppress(BrokenPipeError):
        print_results(closing)


def print_results(results: Iterable[str | ResultTable]) -> None:
    """Prints lines and tables: on a terminal within its width, otherwise as wide as they are."""
    terminal = Console()
    width = terminal.width if terminal.is_terminal else None
    for result in results:
        if isinstance(result, str):
            click.echo(wrapped(printable(result), width, INDENT))
            continue
        for part in result.render(width):
            if isinstance(part, str):
                click.echo(wrapped(printable(part), width))
            else:
                _Console(highlight=False, width=UNLIMITED).print(part)  # it fits by itself, or is not to be cut


def fitted(message: str, before: str, indent: str) -> str:
    """`message`, which follows `before` on stderr, in lines that fit if that is a terminal."""
    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        return message
    lines = (before + message).split("\n")
    return "\n".join(wrapped(line, terminal.width, indent) for line in lines).removeprefix(before)


def wrapped(line: str, width: int | None, indent: str = "") -> str:
    """`line` in lines of at most `width` cells, broken at blanks, but not within an interval; None: as it is."""
    if width is None or len(line) <= width:
        return line
    start = len(indent)  # what stands there stays beside the first word, however long that is
    whole = line[:start].replace(" ", "\0") + WITHIN_INTERVAL.sub("\0", line[start:])
    filled = textwrap.fill(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")


def plain(value: Any) -> Any:
    """`value` as JSON has it: tables as their rows, dates as text, null for a number that is none."""
    if isinstance(value, ResultTable):
        return plain(value.rows)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat() + ("Z" if isinstance(value, datetime) and value.tzinfo is None else "")
    return None if isinstance(value, float) and not isfinite(value) else value
