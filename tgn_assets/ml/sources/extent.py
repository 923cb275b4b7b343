"""What a source holds: its first and newest weeks, what cannot be used of it, and digests that tell when it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.sources.reader import FILTERED, OUT_OF_RANGE, UNREADABLE_TIME, Scan, kind_of, scan, source_errors
from tgn_assets.ml.sources.spec import SourceError, SourceExtent, SourceSpec, empty_source, horizon
from tgn_assets.ml.sources.timestamp_sql import EARLIEST
from tgn_assets.ml.weeks import FIRST_MONDAY, shift, week_number, week_of

DIGEST_SQL = "sum(hash(hash(user_id, event_id, ts))::HUGEINT)"
"""Of a set of rows, in any order; the outer hash keeps apart rows that have exchanged a value."""

SPAN_SQL = "SELECT count(*), reason, min(ts), max(ts) FROM {rows} GROUP BY reason"
"""A row for each reason: how many, the reason, their first and their last time."""
WEEKS_SQL = f"""
    SELECT count(*), reason, min(ts), max(ts), week::VARCHAR, {DIGEST_SQL} FILTER (WHERE valid)
    FROM (SELECT *, reason IS NULL AS valid FROM {{rows}}) GROUP BY reason, week
"""
"""The same for each reason and week, with the week and the `DIGEST_SQL` of its valid rows."""

LONG_GAP = 5 * 52
"""Weeks without a row, after which what lies before them is hardly the same log."""


def source_signature(spec: SourceSpec, now: datetime | None = None) -> str:
    """A text that moves when the source may have changed; no row is read. SourceError if there is no file."""
    with source_errors(spec):
        state = kind_of(spec).state(now or datetime.now(UTC))
    return hashlib.sha256(repr((spec.location, spec, state)).encode()).hexdigest()


def describe_source(spec: SourceSpec, now: datetime | None = None) -> SourceExtent:
    """First and newest closed week of the source; `now` says which week a synthetic one has come to.

    SourceError if the source cannot be read, is empty, or has no valid row: then it counts the rejected ones by reason.
    """
    return _described(spec, SPAN_SQL, now)[0]


def survey_source(spec: SourceSpec) -> tuple[SourceExtent, dict[str, str] | None]:
    """`describe_source` and the digest of each week with valid rows, in one reading.

    None instead of the digests where the extent is known without reading all rows.
    """
    extent, found = _described(spec, WEEKS_SQL)
    if found is None:
        return extent, None
    return extent, {week: digest(rows, total) for rows, reason, _, _, week, total in found.rows if reason is None}


def _described(spec: SourceSpec, query: str, now: datetime | None = None) -> tuple[SourceExtent, Scan | None]:
    """The extent, and the result of `query`, which begins as `SPAN_SQL` does, if it had to be run for that."""
    with source_errors(spec):
        extent = kind_of(spec).extent(now) or _sought(spec)
    if extent:
        return extent, None
    found = _summary(spec, query=query)
    filtered = sum(rows for rows, reason, *_ in found.rows if reason == FILTERED)
    spans = [(first, last) for _, reason, first, last, *_ in found.rows if reason is None]
    if not spans and filtered and not found.rejected_by_reason():
        raise SourceError(
            f"none of the {filtered} rows of TGN_SOURCE={spec.shown} meets TGN_ROW_FILTER={spec.row_filter}; mend it"
        )
    if not spans:
        raise _no_valid_row(spec, found)
    return _extent(min(first for first, _ in spans), max(last for _, last in spans), found), found


def source_digests(spec: SourceSpec, weeks: Sequence[str]) -> dict[str, str]:
    """A digest of each week's valid rows as they are now in the source: `ingested_weeks.digest` if nothing changed.

    The order of rows does not matter, their number does. SourceError if the source cannot be read.
    """
    weeks = list(dict.fromkeys(weeks))
    query = f"""
        SELECT count(*), week::VARCHAR, count(*) FILTER (WHERE valid), {DIGEST_SQL} FILTER (WHERE valid)
        FROM (SELECT *, reason IS NULL AS valid FROM {{rows}}) GROUP BY week
    """
    with connect() as con:
        found = {week: digest(rows, total) for _, week, rows, total in scan(con, spec, query, weeks=weeks).rows}
    return {week: found.get(week, digest(0, None)) for week in weeks}


def smallest_week_number(spec: SourceSpec) -> int | None:
    """The smallest number in the column `week_number` of a source without timestamps; None for one that has them.

    To be pinned with its Monday as `SourceSpec.week_number_anchor`: a smaller one that arrives later must not move the
    weeks. SourceError as in `describe_source`.
    """
    with connect() as con, source_errors(spec):
        if not kind_of(spec).numbers_weeks(con):
            return None
        anywhere = replace(spec, week_number_anchor=(0, FIRST_MONDAY.isoformat()))
        found = scan(con, anywhere, "SELECT count(*), reason, min(number) FROM {rows} GROUP BY reason")
    numbers = [number for _, reason, number in found.rows if reason in (None, OUT_OF_RANGE)]
    if not numbers:
        raise _no_valid_row(anywhere, found)
    return int(min(numbers))


def digest(rows: int, total: int | None) -> str:
    """The text of a digest, from the number of rows and their `DIGEST_SQL`."""
    return f"{rows}-{total or 0:x}"


def first_week_of(spec: SourceSpec) -> str:
    """The first week with rows. SourceError if years without any follow it: then one row's clock may have been wrong.

    SourceError as in `describe_source`, too.
    """
    first = describe_source(spec).first_week
    # Of a source that can be asked for its span, reading the weeks up to the gap is enough.
    with source_errors(spec):
        after = kind_of(spec).span(date.fromisoformat(shift(first, 1)), horizon().date())
    if after:
        starts = [first, after[0]]
    else:
        query = "SELECT count(*), week::VARCHAR, bool_or(reason IS NULL) FROM {rows} GROUP BY week"
        with connect() as con:
            starts = sorted(week for _, week, valid in scan(con, spec, query).rows if valid)
    for before, then in pairwise(starts):
        if week_number(then) - week_number(before) >= LONG_GAP:
            raise SourceError(
                f"the first rows of TGN_SOURCE={spec.shown} are of week {first}, and after {before} there are none "
                f"until {then}: set TGN_START_WEEK={then} to begin there, or TGN_START_WEEK={first} if these times are "
                "right"
            )
    return first


def _no_valid_row(spec: SourceSpec, found: Scan) -> SourceError:
    """The error for a source of which only rejected rows, or none at all, could be read."""
    rejected = found.rejected_by_reason()
    if not rejected:
        return empty_source(spec)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items(), key=lambda item: -item[1]))
    remedy = "check TGN_USER_COLUMN, TGN_EVENT_COLUMN and TGN_TIMESTAMP_COLUMN, and how the source writes its times"
    if UNREADABLE_TIME in rejected or OUT_OF_RANGE in rejected:
        sample = _sample_time(spec)
        remedy += f": one is {sample!r}; set TGN_TIMESTAMP_FORMAT to its strptime format, such as %d.%m.%Y %H:%M"
        if present := spec.time_style.format:
            remedy += f"; it is {present!r} now"
    return SourceError(
        f"none of the {sum(rejected.values())} rows of TGN_SOURCE={spec.shown} can be used ({reasons}); {remedy}"
    )


def _sample_time(spec: SourceSpec) -> str:
    """One of the times that cannot be read, shortened."""
    query = f"SELECT count(*), min(text) FILTER (WHERE reason IN ('{UNREADABLE_TIME}', '{OUT_OF_RANGE}')) FROM {{rows}}"
    with connect() as con:
        return str(scan(con, spec, query).rows[0][1])[:40]


def _summary(spec: SourceSpec, weeks: Sequence[str] | None = None, query: str = SPAN_SQL) -> Scan:
    with connect() as con:
        return scan(con, spec, query, weeks=weeks)


def _extent(first: datetime, newest: datetime, found: Scan) -> SourceExtent:
    first_week, newest_week = week_of(first), week_of(newest)
    closed = newest_week if found.numbers_weeks or newest.weekday() == 6 else shift(newest_week, -1)
    return SourceExtent(
        first_week,
        closed if closed >= first_week else None,
        newest.replace(tzinfo=UTC),
        found.numbers_weeks,
        found.rejected_by_reason(),
    )


def _sought(spec: SourceSpec) -> SourceExtent | None:
    """The extent of a source that can be asked for its smallest and largest times; None if it cannot, or no row counts.

    Whether the rows with these times count, only reading their weeks tells: from both ends towards the middle until
    there is one that does, twice as many weeks each time.
    """
    kind, end = kind_of(spec), horizon().date() + timedelta(days=1)
    if not (whole := kind.span(EARLIEST, end)):
        return None
    ends: list[datetime] = []
    for backwards in (False, True):
        at, weeks = whole, 1
        while True:
            start = shift(at[1], 1 - weeks) if backwards else at[0]
            found = _summary(spec, [shift(start, week) for week in range(weeks)])
            if counted := [last if backwards else first for _, reason, first, last in found.rows if reason is None]:
                ends.append(counted[0])
                break
            edge = date.fromisoformat(start if backwards else shift(start, weeks))
            if not (further := kind.span(*((EARLIEST, edge) if backwards else (edge, end)))):
                return None
            at, weeks = further, 2 * weeks
    return _extent(ends[0], ends[1], found)
