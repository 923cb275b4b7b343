"""The progress line of `tgn` where it cannot be redrawn, and how results are printed."""

import os
import re
import sys
import time
from datetime import datetime
from io import StringIO

import pytest
from rich.console import Console

from tgn_assets.cli import console
from tgn_assets.cli.console import Progress, plain, print_results
from tgn_assets.reporting.tables import Column, ResultTable


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


def test_work_goes_on_when_nobody_reads_the_progress() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", gone)
        with Progress() as progress:
            progress.say("week 2024-01-22: done in 4 s")
            progress.say("week 2024-01-29: done in 4 s")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # so that it can be closed


# results


class Terminal(StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


TABLE = ResultTable(
    "lists",
    [Column("week", "week"), *(Column(f"c{i}", f"column {i}", drop=i) for i in range(20))],
    [{"week": "2024-01-01"} | {f"c{i}": 0.123456789 for i in range(20)}],
)
LINE = "score      the lists for the week of 2024-01-22 scored NDCG@5 0.1679, which is an interval of [0.1361, 0.2031]"


def printed(monkeypatch: pytest.MonkeyPatch, out: StringIO) -> list[str]:
    """What is printed on `out` while the environment says that there are 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", out)
    print_results([LINE, TABLE])
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()


def test_results_fit_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, Terminal())
    assert max(map(len, lines)) <= 80
    assert lines[1] == "           an interval of [0.1361, 0.2031]"
    assert any(re.search(r"2024-01-01   +0\.1235   +0\.1235", line) for line in lines)
    assert "not shown in 80 columns: column 7, " in "\n".join(lines)


def test_piped_results_are_as_wide_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, StringIO())
    assert lines[0] == LINE
    assert sum(line.count("0.1235") for line in lines) == 20
    assert not any("not shown" in line for line in lines)


def test_json_has_dates_as_text_and_no_nan() -> None:
    values = {"when": datetime(2024, 1, 1, 12), "nan": float("nan"), "table": ResultTable("t", [], [{"a": (1, 2.5)}])}
    assert plain(values) == {"when": "2024-01-01T12:00:00Z", "nan": None, "table": [{"a": [1, 2.5]}]}
