"""Long steps log progress, rate and time left, every few seconds."""

import time

import duckdb
import pytest

from tgn_assets.ml import progress
from tgn_assets.ml.progress import SECONDS_BETWEEN, ProgressReporter, duration, log_query_progress


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of tqdm."""
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


@pytest.mark.parametrize(
    ("total", "unit", "done", "line"),
    [
        (10_000, "user", 1000, "1,000 of 10,000 users, 250 a second, 36 s left"),
        (3, "week", 1, "1 of 3 weeks, 4.0 s each, 8.0 s left"),
    ],
)
def test_a_line_has_progress_rate_and_time_left(clock: Clock, total: int, unit: str, done: int, line: str) -> None:
    lines: list[str] = []
    reporter = ProgressReporter(lines.append, "it", total, unit)
    clock.now += 4
    reporter.add(done)
    assert lines == [f"it: {line}"]


def test_a_line_every_few_seconds_not_at_every_step(clock: Clock) -> None:
    lines: list[str] = []
    reporter = ProgressReporter(lines.append, "lists", 1000, "user")
    for _ in range(100):
        clock.now += SECONDS_BETWEEN / 10
        reporter.add(10)
    assert 8 <= len(lines) <= 10


def test_the_time_left_of_work_that_may_end_early_is_a_bound(clock: Clock) -> None:
    lines: list[str] = []
    reporter = ProgressReporter(lines.append, "encoder", 900, "link", at_most=True)
    clock.now += 2
    reporter.add(100)
    reporter.log("epoch 0, loss 2.5000")
    reporter.set_remaining(200)
    reporter.what = "encoder, week 2"
    reporter.log()
    clock.now += 4
    reporter.add(200, "epoch final")
    assert lines == [
        "encoder: epoch 0, loss 2.5000; 100 of at most 900 links, 50 a second, at most 16 s left",
        "encoder, week 2: 100 of at most 300 links, 50 a second, at most 4.0 s left",
        "encoder, week 2: epoch final; 300 of 300 links, 50 a second",
    ]


def test_no_rate_and_no_time_left_before_anything_is_done(clock: Clock) -> None:
    lines: list[str] = []
    reporter = ProgressReporter(lines.append, "lists", 10, "user")
    clock.now += 60
    reporter.log()
    assert lines == ["lists: 0 of 10 users"]


def test_nothing_is_written_to_the_terminal(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    reporter = ProgressReporter(lambda line: None, "lists", 10, "user")
    clock.now += 60
    reporter.add(5)
    reporter.close()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_long_query_logs_percent_and_time_left() -> None:
    lines: list[str] = []
    with duckdb.connect() as con, log_query_progress(con, lines.append, "reading"):
        until = time.monotonic() + 60
        while not any("left" in line for line in lines):
            assert time.monotonic() < until, f"in a minute it logged {lines}"
            con.execute("CREATE OR REPLACE TABLE numbers AS SELECT hash(i) AS number FROM range(5_000_000) AS r(i)")
    assert all(line.startswith("reading: ") and "%" in line for line in lines)


@pytest.mark.usefixtures("impatient")
def test_a_query_that_fails_is_no_longer_watched() -> None:
    lines: list[str] = []
    with duckdb.connect() as con:
        with pytest.raises(duckdb.ConversionException), log_query_progress(con, lines.append, "reading"):
            con.execute("SELECT CAST('x' AS INTEGER)")
        before = len(lines)
        time.sleep(0.1)
        assert len(lines) == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.21, "0.2 s"), (9.96, "10 s"), (48.4, "48 s"), (185, "3 min 05 s"), (59.6, "1 min 00 s"), (7800, "2 h 10 min")],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
