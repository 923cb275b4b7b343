"""Long work says how far it is, how fast it goes and how much longer it takes; not all the time."""

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
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("total", "unit", "done", "said"),
    [
        (10_000, "user", 1000, "1,000 of 10,000 users, 250 a second, 36 s left"),
        (3, "week", 1, "1 of 3 weeks, 4.0 s each, 8 s left"),
    ],
)
def test_rate_and_time_left_are_those_of_the_work_so_far(
    clock: Clock, total: int, unit: str, done: int, said: str
) -> None:
    lines: list[str] = []
    pace = ProgressReporter(lines.append, "it", total, unit, clock=clock)
    clock.now += 4
    pace.add(done)
    assert lines == [f"it: {said}"]


def test_it_speaks_every_few_seconds_and_not_at_every_step(clock: Clock) -> None:
    said: list[str] = []
    pace = ProgressReporter(said.append, "lists", 1000, "user", clock=clock)
    for _ in range(100):
        clock.now += SECONDS_BETWEEN / 10
        pace.add(10)
    assert 8 <= len(said) <= 10


def test_work_that_may_end_early_is_bounded_and_what_it_skips_is_not_waited_for(clock: Clock) -> None:
    said: list[str] = []
    pace = ProgressReporter(said.append, "phase 1", 900, "link", at_most=True, clock=clock)
    clock.now += 2
    pace.add(100)
    pace.tell("epoch 0, loss 2.5000")
    pace.left(200)
    pace.tell()
    pace.add(200)
    pace.tell("epoch final")
    assert said == [
        "phase 1: epoch 0, loss 2.5000; 100 of at most 900 links, 50 a second, at most 16 s left",
        "phase 1: 100 of at most 300 links, 50 a second, at most 4 s left",
        "phase 1: epoch final; 300 of 300 links, 150 a second",
    ]


def test_nothing_is_foretold_from_no_work(clock: Clock) -> None:
    said: list[str] = []
    pace = ProgressReporter(said.append, "lists", 10, "user", clock=clock)
    clock.now += 60
    pace.tell()
    assert said == ["lists: 0 of 10 users"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_long_statement_says_how_much_of_it_is_done() -> None:
    said: list[str] = []
    with duckdb.connect() as con, log_query_progress(con, said.append, "reading"):
        until = time.monotonic() + 60
        while not any("left" in line for line in said):
            assert time.monotonic() < until, f"in a minute it said {said}"
            con.execute("CREATE OR REPLACE TABLE numbers AS SELECT hash(i) AS number FROM range(5_000_000) AS r(i)")
    assert all(line.startswith("reading: ") and "%" in line for line in said)


@pytest.mark.usefixtures("impatient")
def test_a_statement_that_fails_is_not_watched_any_longer() -> None:
    said: list[str] = []
    with duckdb.connect() as con:
        with pytest.raises(duckdb.ConversionException), log_query_progress(con, said.append, "reading"):
            con.execute("SELECT CAST('x' AS INTEGER)")
        before = len(said)
        time.sleep(0.1)
        assert len(said) == before


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (48.4, "48 s"), (185, "3 min 05 s"), (59.6, "1 min 00 s"), (7800, "2 h 10 min")]
)
def test_durations_are_told_in_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said
