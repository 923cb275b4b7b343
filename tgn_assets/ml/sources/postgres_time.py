"""Weeks as conditions on a column of PostgreSQL that counts time, so that an index on it can answer them.

A condition may let through more than the weeks asked for, never less: what a row's time means is decided once, by the
same SQL as for every other source (`ml.sources.timestamp_sql`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from tgn_assets.ml.sources.timestamp_sql import (
    DAY_KEYS,
    EARLIEST,
    MICROSECONDS_FROM,
    MILLISECONDS_FROM,
    MINUTE_KEYS,
    NANOSECONDS_FROM,
    SECOND_KEYS,
    SECONDS_FROM,
    TimeStyle,
)
from tgn_assets.ml.weeks import shift, week_key, week_number, week_of

TIMES = ("timestamp", "timestamptz", "date")
INTEGERS = ("int2", "int4", "int8")
NUMBERS = (*INTEGERS, "float4", "float8", "numeric")
DAY = 86_400


@dataclass(frozen=True)
class Clock:
    """One way to read a column's values as times."""

    at: Callable[[date], Any]
    """The smallest value that is not before this day (00:00 UTC)."""
    week: Callable[[Any], str]
    """The week of a value."""
    rounds: bool = False
    """Whether a value just before a day may be rounded up to it, since times have whole microseconds."""

    def since(self, day: date) -> Any:
        """No value that is understood as `day` or later is smaller."""
        return self.at(day) - 1 if self.rounds else self.at(day)

    def range(self, column: str, first: date, end: date) -> str:
        """SQL condition: from `first` until before `end`."""
        return f"{column} >= {self.since(first)} AND {column} < {self.at(end)}"


def clocks(dtype: str, anchor: tuple[int, str] | None, style: TimeStyle, *, numbers_weeks: bool) -> list[Clock]:
    """How a column of PostgreSQL's type `dtype` may count time, smaller values first; none if only reading it tells.

    A number is a unix time of some unit or a day written as digits, each row by itself, or that of a week, which
    `anchor` ties to a Monday. Of times that need a `style` to be read, only reading tells.
    """
    if numbers_weeks:
        return [_week_numbers(*anchor)] if anchor and dtype in NUMBERS else []
    if dtype == "timestamptz" or (dtype in TIMES and not style.zone):
        return [Clock(lambda day: f"'{day}'", week_of)]
    if dtype not in NUMBERS or style.format or style.zone:
        return []
    rounds = dtype not in INTEGERS
    units = ((1, SECONDS_FROM), (10**3, MILLISECONDS_FROM), (10**6, MICROSECONDS_FROM), (10**9, NANOSECONDS_FROM))
    return [Clock(_day_key, _week_of_key), *(_unix(*unit, rounds) for unit in units)]


def weeks_condition(column: str, dtype: str, ways: Sequence[Clock], weeks: Sequence[str], end: date) -> str:
    """SQL: the rows of `weeks`, and those that belong to none: without a time, out of range, or not before `end`."""
    asked = [way.range(column, first, end) for first, end in _spans(weeks) for way in ways]
    bounds = [(way.at(EARLIEST), way.since(end)) for way in ways]
    gaps = [f"{column} >= {high} AND {column} <= {low}" for (_, high), (low, _) in pairwise(bounds)]
    if len(ways) > 1:
        gaps += [f"{column} BETWEEN {low} AND {high}" for low, high in (MINUTE_KEYS, SECOND_KEYS)]
    nowhere = [f"{column} IS NULL", f"{column} < {bounds[0][0]}", *gaps, f"{column} >= {bounds[-1][1]}"]
    if len(ways) == 1 and dtype in NUMBERS and dtype not in INTEGERS:
        nowhere.append(f"{column} <> floor({column})")  # no number of a week
    return " OR ".join(f"({condition})" for condition in [*asked, *nowhere])


def span_sql(column: str, dtype: str, way: Clock, first: date, end: date) -> str:
    """SELECT list and WHERE of the smallest and the largest value from `first` until before `end`."""
    cast = "timestamp" if dtype in TIMES else "float8"
    return f"min({column})::{cast}, max({column})::{cast} FROM {{source}} WHERE {way.range(column, first, end)}"


def _week_numbers(known: int, monday: str) -> Clock:
    start = date.fromisoformat(monday)
    return Clock(
        lambda day: known - (start - day).days // 7,  # rounded up: a week counts by its Monday
        lambda value: week_key(int(value) - known + week_number(monday)),
    )


def _spans(weeks: Sequence[str]) -> Iterator[tuple[date, date]]:
    """First day and the one after the last of each run of `weeks`."""
    first: str | None = None
    for week in (ordered := sorted(weeks)):
        first = first or week
        if (end := shift(week, 1)) not in ordered:
            yield date.fromisoformat(first), date.fromisoformat(end)
            first = None


def _unix(per_second: int, least: int, rounds: bool) -> Clock:
    return Clock(
        lambda day: max((day - EARLIEST).days * DAY * per_second, least),
        lambda value: week_of(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(value) / per_second)),
        rounds,
    )


def _day_key(day: date) -> int:
    return min(max(int(f"{day:%Y%m%d}"), DAY_KEYS[0]), DAY_KEYS[1] + 1)


def _week_of_key(value: float) -> str:
    try:
        return week_of(datetime.strptime(str(int(value)), "%Y%m%d"))
    except ValueError:  # no day of the calendar: read by itself, and rejected
        return week_of(EARLIEST)
