"""The progress line of `tgn` where it cannot be redrawn."""

import re
import time
from io import StringIO

import pytest
from rich.console import Console

from tgn_assets.cli import console
from tgn_assets.cli.console import Progress


def test_the_line_names_task_progress_and_time_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT", 0.01)
    written = StringIO()
    with Progress(Console(file=written)) as progress:
        progress.begin("week 2024-01-22")
        progress.update("lists: 512 of 9,000 users, 250 a second, 34 s left")
        until = time.monotonic() + 30
        while not written.getvalue():
            assert time.monotonic() < until
            time.sleep(0.01)
    first = written.getvalue().splitlines()[0]
    assert re.sub(r"\d\.\d", "0.0", first) == (
        "week 2024-01-22, lists: 512 of 9,000 users, 250 a second, 34 s left (0.0 s so far)"
    )


def test_nothing_is_printed_before_a_task_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT", 0.01)
    written = StringIO()
    with Progress(Console(file=written)):
        time.sleep(0.5)
    assert written.getvalue() == ""
