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

from tgn_assets.ml.sources.timestamp_sql import EARLIEST, LATEST, MILLISECONDS_FROM
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


def clocks(dtype: str, anchor: tuple[int, str] | None, numbers_weeks: bool) -> list[Clock]:
    """How a column of PostgreSQL's type `dtype` may count time, smaller values first; none if only reading it tells.

    A number is seconds or milliseconds, each row by itself, or that of a week, which `anchor` ties to a Monday.
    """
    if numbers_weeks:
        return [_week_numbers(*anchor)] if anchor and dtype in NUMBERS else []
    if dtype in TIMES:
        return [Clock(lambda day: f"'{day}'", week_of)]
    if dtype not in NUMBERS:
        return []
    rounds = dtype not in INTEGERS
    return [
        Clock(_seconds, lambda value: _week_of_seconds(float(value)), rounds),
        Clock(_milliseconds, lambda value: _week_of_seconds(float(value) / 1000), rounds),
    ]


def weeks_condition(column: str, dtype: str, ways: Sequence[Clock], weeks: Sequence[str]) -> str:
    """SQL: the rows of `weeks`, and those that belong to none: without a time, or with one that is out of range."""
    asked = [way.range(column, first, end) for first, end in _spans(weeks) for way in ways]
    bounds = [(way.at(EARLIEST), way.since(LATEST)) for way in ways]
    gaps = [f"{column} >= {high} AND {column} <= {low}" for (_, high), (low, _) in pairwise(bounds)]
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


def _seconds(day: date) -> int:
    return (day - EARLIEST).days * DAY


def _milliseconds(day: date) -> int:
    return max(_seconds(day) * 1000, MILLISECONDS_FROM)


def _week_of_seconds(seconds: float) -> str:
    return week_of(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
