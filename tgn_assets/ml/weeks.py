"""The week: the Monday it starts on (UTC) as a key `YYYY-MM-DD`, and the same week as an integer for arithmetic."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta

FIRST_MONDAY = date(1970, 1, 5)


def week_number(key: str) -> int:
    """Whole weeks from Monday 1970-01-05 to the Monday `key`; a ValueError says why a key is no Monday.

    >>> week_number("1970-01-12")
    1
    """
    try:
        day = date.fromisoformat(key)
    except ValueError:
        raise ValueError(f"{key!r} is no date; write the Monday of the week as YYYY-MM-DD") from None
    weeks, days = divmod((day - FIRST_MONDAY).days, 7)
    if days:
        raise ValueError(f"{key} is a {day:%A}; a week is named by its Monday, {week_of(day)}")
    return weeks


def is_week(name: str) -> bool:
    """Whether `name` is the key of a week."""
    try:
        return week_key(week_number(name)) == name
    except ValueError:
        return False


def week_key(number: int) -> str:
    """The Monday of week `number`, as `YYYY-MM-DD`.

    >>> week_key(1)
    '1970-01-12'
    """
    return (FIRST_MONDAY + timedelta(weeks=number)).isoformat()


def shift(key: str, weeks: int) -> str:
    """The key `weeks` weeks after `key` (before it, if negative).

    >>> shift("2024-01-01", -1)
    '2023-12-25'
    """
    return week_key(week_number(key) + weeks)


def weeks_between(first: str, last: str) -> list[str]:
    """The keys from `first` to `last`, both included; none if `last` is earlier.

    >>> weeks_between("2024-01-01", "2024-01-08")
    ['2024-01-01', '2024-01-08']
    """
    return [week_key(number) for number in range(week_number(first), week_number(last) + 1)]


def week_of(moment: date | datetime) -> str:
    """The key of the week that `moment` (UTC) falls into.

    >>> week_of(date(2024, 1, 7))
    '2024-01-01'
    """
    day = moment.date() if isinstance(moment, datetime) else moment
    return (day - timedelta(days=day.weekday())).isoformat()


def span_of(weeks: Iterable[str]) -> str:
    """The first and the last of `weeks`, in words.

    >>> span_of(["2024-01-15", "2024-01-01"]), span_of(["2024-01-01"])
    ('2024-01-01 to 2024-01-15', '2024-01-01')
    """
    ordered = sorted(weeks)
    return " to ".join(dict.fromkeys((ordered[0], ordered[-1])))
