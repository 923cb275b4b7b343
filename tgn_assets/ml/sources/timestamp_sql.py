"""SQL that reads the time of an interaction, whatever it is written as, as a TIMESTAMP in UTC.

Each row is read by itself: whether a number means seconds or milliseconds must not depend on other rows, or rows of a
later week could move those of an earlier one.
"""

import re
from datetime import date

from tgn_assets.ml.weeks import week_number

EARLIEST, LATEST = date(1970, 1, 1), date(2200, 1, 1)
"""A time before the first or not before the second is out of range."""

MILLISECONDS_FROM = 100_000_000_000
"""A larger number is unix milliseconds (from March 1973 on), another one unix seconds (up to the year 5138)."""

_MONDAY_US, _WEEK_US = "345600e6", "604800e6"  # of 1970-01-05; of a week
_JUST_OUTSIDE = ("-1e6", "7258118400e6")  # what lies further off is clamped to these, so that no cast overflows


def number_sql(value: str, dtype: str) -> str:
    """DOUBLE: the number that the SQL expression `value` of DuckDB type `dtype` holds or spells, or NULL."""
    if dtype != "VARCHAR":
        return f"TRY_CAST({value} AS DOUBLE)" if is_number(dtype) else "NULL::DOUBLE"
    # An ISO date has its first separator there. Trying to read each one as a number would double the cost.
    return f"CASE WHEN substring({value}, 5, 1) NOT IN ('-', '/') THEN TRY_CAST({value} AS DOUBLE) END"


def timestamp_sql(value: str, number: str, dtype: str) -> str:
    """TIMESTAMP: when `value` was, NULL if it cannot be read; `number` is a column that holds its `number_sql`.

    The session's time zone must be UTC, which a text without an offset is in.
    """
    if dtype != "VARCHAR":
        if "TIME ZONE" in dtype or "TZ" in dtype:
            return f"make_timestamp(epoch_us(CAST({value} AS TIMESTAMPTZ)))"
        return _unix_sql(number) if is_number(dtype) else f"TRY_CAST({value} AS TIMESTAMP)"
    iso = f"COALESCE({_iso_sql(value)}, {_iso_sql(f'trim({value})')})"
    return f"CASE WHEN {number} IS NULL THEN {iso} ELSE {_unix_sql(number)} END"


def week_start_sql(number: str, anchor: tuple[int, str]) -> str:
    """TIMESTAMP: Monday 00:00 of the week that `number` counts, where `anchor` says which Monday one number is.

    NULL unless the number is whole.
    """
    known, monday = anchor
    microseconds = f"({number} - {known} + {week_number(monday)}) * {_WEEK_US} + {_MONDAY_US}"
    return f"CASE WHEN isfinite({number}) AND {number} = floor({number}) THEN {_clamped(microseconds)} END"


def week_sql(timestamp: str) -> str:
    """DATE: the Monday of the week that `timestamp` falls into; NULL if it is out of range."""
    day, valid = f"CAST({timestamp} AS DATE)", f"{timestamp} >= DATE '{EARLIEST}' AND {timestamp} < DATE '{LATEST}'"
    return f"CASE WHEN {valid} THEN ({day} - (isodow({day}) - 1)::INTEGER) END"


def is_number(dtype: str) -> bool:
    """Whether the DuckDB type is numeric."""
    return re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(.*\)", dtype) is not None


def is_time(dtype: str) -> bool:
    """Whether a value of that type is a moment or a day."""
    return dtype.startswith("TIMESTAMP") or dtype == "DATE"


def _unix_sql(number: str) -> str:
    scale = f"CASE WHEN abs({number}) > {MILLISECONDS_FROM} THEN 1e3 ELSE 1e6 END"
    return f"CASE WHEN isfinite({number}) THEN {_clamped(f'{number} * {scale}')} END"


def _clamped(microseconds: str) -> str:
    low, high = _JUST_OUTSIDE
    return f"make_timestamp(round(greatest({low}, least({high}, {microseconds})))::BIGINT)"


def _iso_sql(text: str) -> str:
    # A cast to TIMESTAMP ignores an offset, one to TIMESTAMPTZ costs three times as much: only the shapes that have no
    # room for an offset take the short way (a date, a time to the second with a T or a blank before it, a Z after it).
    shapes = " OR ".join(
        f"{text} LIKE '{shape}'" for shape in ("____-__-_____:__:__", "____-__-_____:__:__Z", "____-__-__")
    )
    return (
        f"CASE WHEN {shapes} THEN TRY_CAST({text} AS TIMESTAMP) "
        f"ELSE make_timestamp(epoch_us(TRY_CAST({text} AS TIMESTAMPTZ))) END"
    )
