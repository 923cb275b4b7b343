"""What a source holds: its first and newest weeks, what cannot be used of it, and digests that tell when it changed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.safe_text import shortened
from tgn_assets.ml.sources.files import load_summaries, save_summaries
from tgn_assets.ml.sources.reader import (
    FILTERED,
    FORGOTTEN,
    IN_FUTURE,
    LEFT_OUT,
    OUT_OF_RANGE,
    UNREADABLE_LINE,
    UNREADABLE_TIME,
    Scan,
    kind_of,
    scan,
    source_errors,
)
from tgn_assets.ml.sources.relations import FileSummary, RowGroup
from tgn_assets.ml.sources.spec import (
    EMPTY_DIGEST,
    WEEK_NUMBER,
    SourceError,
    SourceExtent,
    SourceSpec,
    empty_source,
    horizon,
)
from tgn_assets.ml.sources.timestamp_sql import EARLIEST, time_remedy
from tgn_assets.ml.weeks import FIRST_MONDAY, shift, week_number, week_of, weeks_between

DIGEST_SQL = "sum(hash(hash(user_id, event_id, ts))::HUGEINT)"
"""Of a set of rows, in any order; the outer hash keeps apart rows that have exchanged a value."""

GROUPS_SQL = f"""
    SELECT count(*), reason, week::VARCHAR, min(ts) FILTER (WHERE dated), max(ts) FILTER (WHERE dated),
           {DIGEST_SQL} FILTER (WHERE reason IS NULL),
           min(text) FILTER (WHERE reason IN ('{UNREADABLE_TIME}', '{OUT_OF_RANGE}', '{IN_FUTURE}'))[:40], file
    FROM (SELECT *, reason IS NULL OR reason = '{FORGOTTEN}' AND week IS NOT NULL AS dated FROM {{rows}})
    GROUP BY reason, week, file
"""
"""A `RowGroup` and its file. A row that is left out as forgotten still tells that time went on: weeks stay closed."""

FIRST_YEAR_AND_WEEK, LAST_YEAR_AND_WEEK = 190001, 220000
"""Week numbers within look like 202401: nobody counts that many weeks."""
YEARLY = "seem to begin anew with the year"
YEARLY_REMEDY = (
    "name a column of dates in TGN_TIMESTAMP_COLUMN, or count weeks on over the years; ISO years and weeks such as "
    "202401 are read with TGN_TIMESTAMP_COLUMN=week_number TGN_TIMESTAMP_FORMAT=%G%V"
)
LAST_OF_YEAR = 53
"""The largest number of a week in its year."""
SHORT_GAP = 4
"""Numbers between two weeks: fewer are hardly a part of the year in which nothing is recorded."""
LONG_GAP = 5 * 52
"""Weeks without a row, after which what lies before them is hardly the same log."""


def source_signature(spec: SourceSpec, now: datetime | None = None) -> str:
    """A text that moves when the source may have changed; no row is read. SourceError if there is no file."""
    with source_errors(spec):
        state = kind_of(spec).state(now or datetime.now(UTC))
    return hashlib.sha256(repr((spec.location, spec, spec.forgotten_ids.state, state)).encode()).hexdigest()


def describe_source(spec: SourceSpec) -> SourceExtent:
    """First and newest closed week of the source.

    SourceError if the source cannot be read, is empty, or has no valid row: then it counts the rejected ones by reason.
    """
    with source_errors(spec):
        extent = kind_of(spec).extent() or _sought(spec)
    return extent or survey_source(spec)[0]


def survey_source(spec: SourceSpec, *, since: str | None = None) -> tuple[SourceExtent, dict[str, str] | None]:
    """`describe_source` and the digest of each week with valid rows, in one reading.

    None instead of the digests where the extent is known without a reading. A source that can be asked for weeks is
    asked for those from `since` on (None: all); if no row of these counts, there are no digests.
    """
    with source_errors(spec):
        kind = kind_of(spec)
        if extent := kind.extent():
            return extent, None
    weeks = weeks_between(since, week_of(horizon())) if since and not kind.reads_all else None
    groups, numbers_weeks = _read_groups(spec, weeks)
    if weeks is not None and not any(group.reason is None for group in groups):
        return describe_source(spec), {}
    return extent_of(spec, groups, numbers_weeks=numbers_weeks), digests_of(groups)


def digests_of(groups: Iterable[RowGroup]) -> dict[str, str]:
    """week -> the digest of its valid rows."""
    rows, totals = Counter[str](), Counter[str]()
    for group in groups:
        if group.reason is None and group.week:
            rows[group.week] += group.rows
            totals[group.week] += group.digest or 0
    return {week: digest(rows[week], totals[week]) for week in rows}


def _read_groups(spec: SourceSpec, weeks: Sequence[str] | None) -> tuple[list[RowGroup], bool]:
    """All rows, or at least those of `weeks`, and whether they have the number of a week and no time.

    What is read of a file that its key tells is remembered.
    """
    with connect() as con:
        found = scan(con, spec, GROUPS_SQL, weeks=weeks, summarise=weeks is None)
    by_file: dict[str, list[RowGroup]] = {name: [] for name in found.keys}
    for *group, file in found.rows:
        by_file.setdefault(file, []).append(RowGroup(*group))
    for file, count in found.unreadable.by_file.items():
        by_file.setdefault(file, []).append(RowGroup(count, UNREADABLE_LINE, None))
    if spec.summaries and weeks is None and by_file.keys() == found.keys.keys():
        _remember(spec.summaries, found, by_file)
    groups = [*found.unread_groups(), *chain.from_iterable(by_file.values()), unreadable_group(found, rows=0)]
    return groups, found.numbers_weeks


def _remember(path: Path, found: Scan, by_file: Mapping[str, list[RowGroup]]) -> None:
    """Remembers the files of the source as they are now; not one with rows whose time has yet to come."""
    fresh = {
        key: FileSummary(found.numbers_weeks, groups)
        for file, groups in by_file.items()
        if (key := found.keys[file]) and not any(group.reason == IN_FUTURE for group in groups)
    }
    if fresh or len(found.unread) < len(load_summaries(path)):
        save_summaries(path, {**found.unread, **fresh})


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
    return {week: found.get(week, EMPTY_DIGEST) for week in weeks}


def smallest_week_number(spec: SourceSpec) -> int | None:
    """The smallest number in the column `week_number` of a source without timestamps; None for one that has them.

    To be pinned with its Monday as `SourceSpec.week_number_anchor`: a smaller one that arrives later must not move the
    weeks. SourceError as in `describe_source`, and if the numbers begin anew with the year.
    """
    query = f"""
        SELECT count(*), reason, min(week::VARCHAR), min(number), max(number),
               list(DISTINCT number) FILTER (WHERE number <= {LAST_OF_YEAR}), min(text)
        FROM {{rows}} GROUP BY reason
    """
    with connect() as con, source_errors(spec):
        if not kind_of(spec).numbers_weeks(con):
            return None
        anywhere = replace(spec, week_number_anchor=(0, FIRST_MONDAY.isoformat()))
        found = scan(con, anywhere, query)
    numbers = [row[3:6] for row in found.rows if row[1] in (None, OUT_OF_RANGE)]
    if not numbers:
        groups = [RowGroup(rows, reason, week, sample=row[-1]) for rows, reason, week, *row in found.rows]
        raise _no_valid_row(anywhere, [*groups, unreadable_group(found)])
    smallest, largest = min(least for least, _, _ in numbers), max(most for _, most, _ in numbers)
    _refuse_yearly_numbers(spec, smallest, largest, chain.from_iterable(some or () for _, _, some in numbers))
    return int(smallest)


def _refuse_yearly_numbers(spec: SourceSpec, smallest: float, largest: float, within_year: Iterable[float]) -> None:
    """SourceError if weeks of several years seem to be numbered from 1 on each year, or by year and week: put in their
    order, or counted, they would lie elsewhere."""
    ascending = sorted(set(within_year))
    gaps = [pair for pair in pairwise(ascending) if pair[1] - pair[0] > SHORT_GAP]
    if smallest >= 1 and ascending and largest == ascending[-1] >= LAST_OF_YEAR - 1 and gaps:
        before, after = gaps[-1]
        found = f"there are {smallest:.0f} to {before:.0f} and {after:.0f} to {largest:.0f}"
    elif smallest >= FIRST_YEAR_AND_WEEK and largest < LAST_YEAR_AND_WEEK:
        found = f"{smallest:.0f} to {largest:.0f} look like years and weeks"
    else:
        return
    raise SourceError(f"the week numbers of TGN_SOURCE={spec.shown} {YEARLY} ({found}): {YEARLY_REMEDY}")


def digest(rows: int, total: int | None) -> str:
    """The text of a digest, from the number of rows and their `DIGEST_SQL`."""
    return f"{rows}-{total or 0:x}"


def newest_closed_week(extent: SourceExtent, *, first_week: str, end_week: str | None, last_ended: str) -> str | None:
    """The newest week from `first_week` to `end_week` (None: no end) that is over by the calendar, which has come to
    `last_ended`, and in the source of that `extent`.

    In the source a week is over when there is a row on its Sunday or later. `end_week`, and a week that is known by its
    number alone, are over as soon as they have rows. None if there is no such week.
    """
    closed = end_week if end_week and week_of(extent.newest_row) >= end_week else extent.closed_by_rows
    newest = min(week for week in (closed, last_ended, end_week) if week) if closed else None
    return newest if newest and newest >= first_week else None


def first_week_of(spec: SourceSpec) -> str:
    """The first week with rows. SourceError if years without any follow it: then one row's clock may have been wrong.

    SourceError as in `describe_source`, too.
    """
    with source_errors(spec):
        if extent := kind_of(spec).extent() or _sought(spec):
            after = kind_of(spec).span(date.fromisoformat(shift(extent.first_week, 1)), horizon().date())
            weeks: Iterable[str] = [extent.first_week, *(after or ())[:1]]
    if not extent:
        extent, digests = survey_source(spec)
        weeks = digests or ()
    check_first_week(spec, weeks)
    return extent.first_week


def check_first_week(spec: SourceSpec, weeks: Iterable[str]) -> None:
    """SourceError if years without a row follow the first of the `weeks` with rows."""
    starts = sorted(weeks)
    for before, then in pairwise(starts):
        if week_number(then) - week_number(before) >= LONG_GAP:
            raise SourceError(
                f"the first rows of TGN_SOURCE={spec.shown} are of week {starts[0]}, and after {before} there are none "
                f"until {then}: set TGN_START_WEEK={then} to begin there, or TGN_START_WEEK={starts[0]} if these times "
                "are right"
            )


def unreadable_group(found: Scan, rows: int | None = None) -> RowGroup:
    """The lines that are no record, or none of them where each file has its own, and the first as a sample."""
    lines = found.unreadable
    sample = lines.first[0] if lines.first else None
    return RowGroup(lines.count if rows is None else rows, UNREADABLE_LINE, None, sample=sample)


def extent_of(spec: SourceSpec, groups: Sequence[RowGroup], *, numbers_weeks: bool) -> SourceExtent:
    """What the rows `groups` of the source span. SourceError as in `describe_source`."""
    first = min((group.first for group in groups if group.first), default=None)
    newest = max((group.last for group in groups if group.last), default=None)
    if first is None or newest is None:
        raise _no_valid_row(spec, groups)
    return _extent(first, newest, groups, numbers_weeks=numbers_weeks)


def _rejected(groups: Iterable[RowGroup]) -> dict[str, int]:
    rejected = Counter[str]()
    for group in groups:
        if group.reason is not None and group.reason not in LEFT_OUT:
            rejected[group.reason] += group.rows
    return dict(+rejected)


def _no_valid_row(spec: SourceSpec, groups: Sequence[RowGroup]) -> SourceError:
    """The error for a source of which only rejected rows, or none at all, could be read."""
    rejected, filtered = _rejected(groups), sum(group.rows for group in groups if group.reason == FILTERED)
    if filtered and not rejected:
        return SourceError(
            f"none of the {filtered} rows of TGN_SOURCE={spec.shown} meets TGN_ROW_FILTER={spec.row_filter}; mend it"
        )
    if not rejected:
        return empty_source(spec)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items(), key=lambda item: -item[1]))
    remedy = "check TGN_USER_COLUMN, TGN_EVENT_COLUMN and TGN_TIMESTAMP_COLUMN, and how the source writes its times"
    samples = {group.reason: group.sample for group in groups if group.sample}
    sample, future = samples.get(UNREADABLE_TIME) or samples.get(OUT_OF_RANGE), samples.get(IN_FUTURE)
    if future and re.fullmatch("[0-9]{10}", future):  # 2024013115 would be of 2034 as seconds, and may be %Y%m%d%H
        sample = sample or future
    elif future:
        remedy += f": one is {future!r}, which the clock of this machine says is to come"
    if sample and not spec.week_number_anchor and (told := time_remedy(sample)):
        remedy += f": times such as {sample!r} may be {told}"
    elif sample and spec.week_number_anchor:
        remedy += f": one is {sample!r}, and {WEEK_NUMBER} has whole numbers; ISO years and weeks such as 2024-W05 are "
        remedy += f"read with TGN_TIMESTAMP_COLUMN={WEEK_NUMBER} TGN_TIMESTAMP_FORMAT=%G-W%V"
    elif sample:
        remedy += f": one is {sample!r}; set TGN_TIMESTAMP_FORMAT to its strptime format, such as %d.%m.%Y %H:%M"
        if present := spec.time_style.format:
            remedy += f"; it is {present!r} now"
    if line := samples.get(UNREADABLE_LINE):
        remedy = (
            f"one line is {shortened(repr(line))}: it takes as many values as the first line has names, in UTF-8, and "
            f"a quote within quotes is written twice; {remedy}"
        )
    return SourceError(
        f"none of the {sum(rejected.values())} rows of TGN_SOURCE={spec.shown} can be used ({reasons}); {remedy}"
    )


def _extent(first: datetime, newest: datetime, groups: Sequence[RowGroup], *, numbers_weeks: bool) -> SourceExtent:
    first_week, newest_week = week_of(first), week_of(newest)
    dated = Counter[str]()
    for group in groups:
        if group.week:
            dated[group.week] += group.rows
    closed = newest_week if numbers_weeks or newest.weekday() == 6 else shift(newest_week, -1)
    closed_by_rows = closed if closed >= first_week else None
    utc = newest.replace(tzinfo=UTC)
    return SourceExtent(first_week, closed_by_rows, utc, numbers_weeks, _rejected(groups), dated)


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
            groups, numbers_weeks = _read_groups(spec, [shift(start, week) for week in range(weeks)])
            if counted := [moment for group in groups if (moment := group.last if backwards else group.first)]:
                ends.append(max(counted) if backwards else min(counted))
                break
            edge = date.fromisoformat(start if backwards else shift(start, weeks))
            if not (further := kind.span(*((EARLIEST, edge) if backwards else (edge, end)))):
                return None
            at, weeks = further, 2 * weeks
    return _extent(ends[0], ends[1], groups, numbers_weeks=numbers_weeks)
