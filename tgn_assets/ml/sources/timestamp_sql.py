"""SQL that reads the time of an interaction, whatever it is written as, as a TIMESTAMP in UTC.

Each row is read by itself: whether a number means seconds or milliseconds must not depend on other rows, or rows of a
later week could move those of an earlier one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from tgn_assets.ml.safe_text import shortened
from tgn_assets.ml.schema import literal
from tgn_assets.ml.weeks import week_number

EARLIEST, LATEST = date(1970, 1, 1), date(2200, 1, 1)
"""A time before the first or not before the second is out of range."""

MILLISECONDS_FROM, MICROSECONDS_FROM, NANOSECONDS_FROM = 10**11, 10**14, 7 * 10**17
"""A number from there on is unix milliseconds, microseconds (both from March 1973 on), nanoseconds (from 1992 on)."""
TICKS_FROM = 10**17
"""A number from there to the nanoseconds may count 100 ns since the year 1 (.NET) or 1601 (Windows): it is not read."""
SECONDS_FROM = 10**8
"""A number from there on is unix seconds, from March 1973 on."""
DAY_KEYS = (1970_01_01, 2199_12_31)
"""A whole number within is a day written as digits, such as 20240101: as unix seconds it would be of August 1970."""
MINUTE_KEYS = (1970_01_01_00_00, 2199_12_31_23_59)
"""A number within may be a minute written as digits, or milliseconds of 1976: it is not read without a format."""
SECOND_KEYS = (10_01_01_00_00_00, 99_12_31_23_59_59)
"""A whole number within whose digits may be a second (`SECOND_DIGITS`) may be that, or milliseconds of 1973 to 2001: it
is not read without a format."""
SECOND_DIGITS = "[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"
"""A year of two digits, and month, day, hour, minute and second."""
SERIAL_DAYS = (25_569, 73_050)
"""A number within may be a day of 1970 to 2099 as spreadsheets count them: it is not read."""
TICKS_REMEDY = "ticks of 100 ns, as .NET and Windows count them: export them as dates"
NUMBER_REMEDY = (
    "numbers, but not for certain unix times (seconds to nanoseconds) or days such as 20240131: export them as dates, "
    "or set TGN_TIMESTAMP_FORMAT if they are a date in digits, such as %Y%m%d%H%M"
)
ZONE_AFTER = ":[0-9.]+ *([^0-9.: ].*)$"
"""Of a time as text, the zone behind it is the first group."""
ZONE = "[+-](0[0-9]|1[0-5])(:?[0-5][0-9]){0,2}|Z|(?i:UTC|GMT)([+-][0-9:]+)?|[A-Za-z_]+/[A-Za-z0-9_/+-]+"
"""A zone that means one thing alone: an offset, or an IANA name. BST is that of London, of Dhaka, and more."""
ZONE_REMEDY = (
    "in a zone whose name does not say which one it is: write an offset, such as +01:00, or an IANA name, such as "
    "Europe/London, or leave it out and set TGN_TIME_ZONE"
)
DAY_BEFORE_MONTH = "[0-9]{4}[-/.](1[3-9]|2[0-9]|3[01])[-/.](0[1-9]|1[0-2])([^0-9].*)?"
DAY_BEFORE_MONTH_REMEDY = (
    "of a log that writes the day before the month, so that days up to the 12th are read as months: set "
    "TGN_TIMESTAMP_FORMAT, such as %Y-%d-%m"
)
SHORTENED = r"\s*[0-9](\.[0-9]{0,6})?[eE][+]?[0-9]{1,2}\s*"
"""A unix time as spreadsheets and R shorten it: what is left of it are steps of a quarter of an hour and more."""
SHORTENED_REMEDY = "numbers that were shortened, so that their last digits are lost: export them in full, or as dates"
SEPARATED_REMEDY = "numbers with a comma, or with separators of thousands: export them without, or as dates"
SERIAL_REMEDY = "days as a spreadsheet counts them: export them as dates"

TIMES_SAMPLED = 20
"""Times that cannot be read, of which one may tell what they are: the first ones in the order of text."""

TO_THE_SECOND = "____-__-_____:__:__"
"""A date and a time without room for a zone, for LIKE, which is quick."""
_MONDAY_US, _WEEK_US = "345600e6", "604800e6"  # of 1970-01-05; of a week
_JUST_OUTSIDE = ("-1e6", "7258118400e6")  # what lies further off is clamped to these, so that no cast overflows


def number_sql(value: str, dtype: str) -> str:
    """DOUBLE: the number that the SQL expression `value` of DuckDB type `dtype` holds or spells, or NULL."""
    if dtype != "VARCHAR":
        return f"TRY_CAST({value} AS DOUBLE)" if is_number(dtype) else "NULL::DOUBLE"
    # An ISO date has its first separator there. Trying to read each one as a number would double the cost.
    return f"CASE WHEN substring({value}, 5, 1) NOT IN ('-', '/') THEN TRY_CAST({value} AS DOUBLE) END"


@dataclass(frozen=True)
class TimeStyle:
    """How a source writes its times, as far as they do not tell by themselves."""

    format: str | None = None
    """Of text and of numbers, as strptime has it; None: ISO 8601, a unix time, or a day written as digits."""
    zone: str | None = None
    """IANA name of the zone of times without an offset; None: UTC."""


PLAIN = TimeStyle()


def timestamp_sql(value: str, number: str, dtype: str, style: TimeStyle) -> str:
    """TIMESTAMP: when `value` was, in UTC, NULL if it cannot be read; `number` is a column that holds its `number_sql`.

    The session's time zone must be UTC.
    """
    if "TIME ZONE" in dtype or "TZ" in dtype:
        return _utc_sql(f"CAST({value} AS TIMESTAMPTZ)")
    if is_time(dtype):
        return _in_zone(f"TRY_CAST({value} AS TIMESTAMP)", style)
    if style.format is not None:
        read = f"try_strptime(trim(CAST({value} AS VARCHAR)), {literal(style.format)})"
        return _utc_sql(read) if re.search("%[zZ]", style.format) else _in_zone(read, style)
    unix = _unix_sql(number, style)
    if dtype != "VARCHAR":
        return unix if is_number(dtype) else f"TRY_CAST({value} AS TIMESTAMP)"
    # `10:00:00 +0200` and `10:00:00,123`, which DuckDB does not read, as it does.
    tidy = f"regexp_replace(regexp_replace(trim({value}), '([0-9]),([0-9])', '\\1.\\2'), ' +([+-][0-9:]+)$', '\\1')"
    iso = ", ".join(_iso_sql(text, style) for text in (value, f"trim({value})", tidy))
    has_exponent = f"contains({value}, 'E') OR contains({value}, 'e')"
    return f"""CASE WHEN {number} IS NULL THEN COALESCE({iso})
        WHEN ({has_exponent}) AND regexp_full_match({value}, '{SHORTENED}') THEN NULL ELSE {unix} END"""


def no_time_sql(ts: str, style: TimeStyle) -> str:
    """BOOLEAN: whether the TIMESTAMP `ts` is 1970-01-01 00:00, by which systems that have no time say so."""
    zero = f"TIMESTAMP '{EARLIEST}'"
    return f"{ts} = {zero} OR {ts} = {_in_zone(zero, style)}" if style.zone else f"{ts} = {zero}"


def names_zone_sql(value: str, dtype: str, style: TimeStyle) -> str:
    """BOOLEAN: whether `value` says in which zone it is; NULL for a day, a number, and where `style` has a zone."""
    if style.zone or dtype == "DATE" or is_number(dtype):
        return "NULL::BOOLEAN"
    if is_time(dtype):
        return str("TIME ZONE" in dtype or "TZ" in dtype).lower()
    if style.format is not None:
        return str(re.search("%[zZ]", style.format) is not None).lower()
    named = f"regexp_matches({value}, ':[0-9.,]+ *[^0-9.,: ]')"
    return f"CASE WHEN {value} LIKE '{TO_THE_SECOND}' THEN false WHEN contains({value}, ':') THEN {named} END"


def mixed_zones(with_zone: int, without: int) -> str | None:
    """What to say of so many usable times that name a zone and that do not; None unless there are both."""
    if not (with_zone and without):
        return None
    return (
        f"{with_zone:,} times have an offset or a zone, {without:,} have none and are read as UTC: set TGN_TIME_ZONE "
        "to the zone of these, or to UTC if they are right"
    )


def moment_sql(value: str, dtype: str) -> str:
    """TIMESTAMPTZ: `value` cast to it, in a session in UTC; an error for text in a zone that may be several."""
    if dtype != "VARCHAR":
        return f"{value}::TIMESTAMPTZ"
    zone, fault = f"regexp_extract({value}, '{ZONE_AFTER}', 1)", literal(f"a time is {ZONE_REMEDY}")
    doubtful = f"{zone} <> '' AND NOT regexp_full_match({zone}, '{ZONE}')"
    return f"CASE WHEN {doubtful} THEN error({fault}) ELSE {value}::TIMESTAMPTZ END"


def week_start_sql(number: str, anchor: tuple[int, str]) -> str:
    """TIMESTAMP: Monday 00:00 of the week that `number` counts, where `anchor` says which Monday one number is.

    NULL unless the number is whole.
    """
    known, monday = anchor
    microseconds = f"({number} - {known} + {week_number(monday)}) * {_WEEK_US} + {_MONDAY_US}"
    return f"CASE WHEN isfinite({number}) AND {number} = floor({number}) THEN {_clamped(microseconds)} END"


def week_sql(timestamp: str, end: date | datetime = LATEST) -> str:
    """DATE: the Monday of the week that `timestamp` falls into; NULL before `EARLIEST` and from `end` on."""
    day = f"CAST({timestamp} AS DATE)"
    valid = f"{timestamp} >= DATE '{EARLIEST}' AND {timestamp} < TIMESTAMP '{end:%Y-%m-%d %H:%M:%S}'"
    return f"CASE WHEN {valid} THEN ({day} - (isodow({day}) - 1)::INTEGER) END"


def is_number(dtype: str) -> bool:
    """Whether the DuckDB type is numeric."""
    return re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(.*\)", dtype) is not None


def is_number_text(text: str) -> bool:
    """Whether the text spells a number that can be written into SQL as it is."""
    return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is not None


def time_remedy(text: str) -> str | None:
    """What `text`, a time that cannot be read, may be, and what to do; None if it does not tell.

    >>> time_remedy("45322.5")
    'days as a spreadsheet counts them: export them as dates'
    """
    if re.fullmatch("-?[0-9]+,[0-9]+|-?[0-9]{1,3}([,. '][0-9]{3}){2,}", text.strip()):
        return SEPARATED_REMEDY
    if not is_number_text(text):
        if re.fullmatch(SHORTENED, text):
            return SHORTENED_REMEDY
        if re.fullmatch(DAY_BEFORE_MONTH, text.strip()):
            return DAY_BEFORE_MONTH_REMEDY
        zone = re.search(ZONE_AFTER, text.strip())
        return ZONE_REMEDY if zone and not re.fullmatch(f"{ZONE}|[^A-Za-z].*|(?i:[ap].?m.?)", zone[1]) else None
    if SERIAL_DAYS[0] <= float(text) <= SERIAL_DAYS[1]:
        return SERIAL_REMEDY
    return TICKS_REMEDY if TICKS_FROM <= float(text) < NANOSECONDS_FROM else NUMBER_REMEDY


def unread_times(texts: Iterable[str]) -> str | None:
    """What to say of `texts`, times that cannot be read, if one of them tells what it may be.

    >>> unread_times(["#N/A", "45322.5"])
    "times such as '45322.5' cannot be read and may be days as a spreadsheet counts them: export them as dates"
    """
    told = ((text, remedy) for text in texts if (remedy := time_remedy(text)))
    return next(
        (f"times such as {shortened(repr(text))} cannot be read and may be {what}" for text, what in told), None
    )


def is_time(dtype: str) -> bool:
    """Whether a value of that type is a moment or a day."""
    return dtype.startswith("TIMESTAMP") or dtype == "DATE"


def one_of(text: str, values: Iterable[str]) -> str:
    """SQL: whether `text` is one of these. Not with IN, which DuckDB turns into a join that all rows go through."""
    return f"contains({literal(chr(31).join(['', *values, '']))}, concat(chr(31), {text}, chr(31)))"


def _unix_sql(number: str, style: TimeStyle) -> str:
    size = f"abs({number})"
    scale = (
        f"CASE WHEN {size} >= {NANOSECONDS_FROM} THEN 1e-3 WHEN {size} >= {MICROSECONDS_FROM} THEN 1 "
        f"WHEN {size} > {MILLISECONDS_FROM} THEN 1e3 ELSE 1e6 END"
    )
    key = f"try_strptime(CAST(CAST({number} AS BIGINT) AS VARCHAR), '%Y%m%d')"
    return f"""CASE WHEN NOT isfinite({number}) THEN NULL
        WHEN {number} BETWEEN {DAY_KEYS[0]} AND {DAY_KEYS[1]} AND {number} = floor({number}) THEN {_in_zone(key, style)}
        WHEN {number} > 0 AND {number} < {SECONDS_FROM} THEN NULL
        WHEN {number} BETWEEN {MINUTE_KEYS[0]} AND {MINUTE_KEYS[1]} THEN NULL
        WHEN {number} BETWEEN {SECOND_KEYS[0]} AND {SECOND_KEYS[1]} AND {number} = floor({number})
            AND regexp_full_match(CAST(CAST({number} AS BIGINT) AS VARCHAR), '{SECOND_DIGITS}') THEN NULL
        WHEN {size} >= {TICKS_FROM} AND {size} < {NANOSECONDS_FROM} THEN NULL
        ELSE {_clamped(f"{number} * {scale}")} END"""


def _utc_sql(moment: str) -> str:
    return f"make_timestamp(epoch_us({moment}))"


def _in_zone(local: str, style: TimeStyle) -> str:
    """The TIMESTAMP `local` as a moment; of two that a clock shows twice, the later one."""
    return _utc_sql(f"timezone({literal(style.zone)}, {local})") if style.zone else local


def _clamped(microseconds: str) -> str:
    low, high = _JUST_OUTSIDE
    return f"make_timestamp(round(greatest({low}, least({high}, {microseconds})))::BIGINT)"


def _iso_sql(text: str, style: TimeStyle) -> str:
    # A cast to TIMESTAMP ignores an offset, one to TIMESTAMPTZ costs three times as much: only the shapes that have no
    # room for an offset take the short way (a date, a time to the second with a T or a blank before it, a Z after it).
    local = _in_zone(f"TRY_CAST({text} AS TIMESTAMP)", style)
    bare = " ".join(f"WHEN {text} LIKE '{shape}' THEN {local}" for shape in (TO_THE_SECOND, "____-__-__"))
    moment = _utc_sql(f"TRY_CAST({text} AS TIMESTAMPTZ)")
    # Without a zone behind it, the cast would take it for UTC.
    other = f"""CASE WHEN NOT regexp_matches({text}, '{ZONE_AFTER}') THEN {local if style.zone else moment}
        WHEN regexp_full_match(regexp_extract({text}, '{ZONE_AFTER}', 1), '{ZONE}') THEN {moment} END"""
    # The usual offsets, +02:00 and Z, without an expression.
    sign, hours, colon = (f"substring({text}, {place})" for place in ("-6, 1", "-5, 2", "-3, 1"))
    offset = f"{sign} IN ('+', '-') AND {colon} = ':' AND {hours} < '16'"
    usual = f"{offset} OR suffix({text}, 'Z') AND substring({text}, -2, 1) BETWEEN '0' AND '9'"
    return (
        f"CASE {bare} WHEN {text} LIKE '{TO_THE_SECOND}Z' THEN TRY_CAST({text} AS TIMESTAMP) "
        f"WHEN {usual} THEN {moment} ELSE {other} END"
    )
