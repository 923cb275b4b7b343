"""What the program understood of a source, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import duckdb

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.safe_text import listed, shortened
from tgn_assets.ml.sources.extent import GROUPS_SQL, digests_of, extent_of, unreadable_group
from tgn_assets.ml.sources.reader import OUT_OF_RANGE, UNREADABLE_LINE, UNREADABLE_TIME, kind_of, scan
from tgn_assets.ml.sources.relations import RowGroup
from tgn_assets.ml.sources.spec import SourceExtent, SourceSpec
from tgn_assets.ml.sources.timestamp_sql import TIMES_SAMPLED, mixed_zones, unread_times
from tgn_assets.ml.weeks import shift, week_number, weeks_between

LOOK_SQL = "CREATE OR REPLACE TEMP TABLE looked AS SELECT * EXCLUDE (number, file), '' AS file FROM {rows}"
REASONS_SQL = """
    SELECT reason, count(*), first([user_id, event_id, text] ORDER BY user_id, event_id, text)
    FROM looked WHERE reason IS NOT NULL GROUP BY reason ORDER BY count(*) DESC, reason
"""
SIZES_SQL = """
    SELECT count(*), count(DISTINCT user_id), count(DISTINCT event_id), min(ts), max(ts),
           count(*) - count(DISTINCT hash(user_id, event_id, ts)),
           count(*) FILTER (WHERE week < $start_week::DATE), count(*) FILTER (WHERE week > $end_week::DATE),
           count(*) FILTER (WHERE names_zone), count(*) FILTER (WHERE NOT names_zone)
    FROM looked WHERE reason IS NULL
"""
IDS_SQL = """
    SELECT {node}_id, count(*), count(*) / sum(count(*)) OVER (),
           trim({node}_id) <> {node}_id, regexp_full_match({node}_id, $scientific),
           regexp_full_match(lower(trim({node}_id)), $stand_ins),
           regexp_matches({node}_id, $quotes), regexp_matches({node}_id, $invisible)
    FROM looked WHERE reason IS NULL GROUP BY {node}_id ORDER BY count(*) DESC, {node}_id
"""
SUSPICIOUS_SQL = f"""
    SELECT count(*) FILTER (WHERE blank), min(id) FILTER (WHERE blank), list(id) FILTER (WHERE stand_in),
           any_value(id) FILTER (WHERE place = 1), max(share) FILTER (WHERE place = 1), count(*), max(rows),
           count(*) FILTER (WHERE scientific), min(id) FILTER (WHERE scientific),
           count(*) FILTER (WHERE in_quotes), min(id) FILTER (WHERE in_quotes),
           count(*) FILTER (WHERE invisible), min(id) FILTER (WHERE invisible)
    FROM (SELECT *, row_number() OVER (ORDER BY rows DESC, id) AS place
          FROM ({IDS_SQL}) AS t(id, rows, share, blank, scientific, stand_in, in_quotes, invisible))
"""
ALIKE_SQL = """
    SELECT count(*), min(pair) FROM (
        SELECT [min(id), max(id)] AS pair FROM (SELECT DISTINCT {node}_id AS id FROM looked WHERE reason IS NULL)
        GROUP BY CASE WHEN regexp_full_match(id, '[0-9]+') THEN ltrim(id, '0') ELSE lower(nfc_normalize(id)) END
        HAVING count(*) > 1
    )
"""
TIMES_SQL = f"""
    SELECT count(*), min(text, {TIMES_SAMPLED}) FILTER (WHERE reason = '{UNREADABLE_TIME}')
    FROM looked WHERE reason IN ('{UNREADABLE_TIME}', '{OUT_OF_RANGE}')
"""
STAND_INS = (
    "[[:punct:]]*(null|nat|nan|none|n/?a|nil|empty|blank|missing|undefined|unknown|anonymous|guest|not[ _]set)?"
    r"[[:punct:]]*|\\+n|-?0|-1|0{8}(-?0{4}){3}-?0{12}"
)
"""Ids, in lower case, that often stand for no id at all: such words, in brackets or not, signs alone, zeros."""
QUOTES = r"""^'.*'$|^".*"$|\\["']|["]{2}"""
"""An id that was quoted or escaped twice, such as `'a'`, `"a"`, `a\\"`, `""a`."""
SCIENTIFIC = r"[0-9](\.[0-9]+)?[eE][+]?[0-9]{1,2}"
"""A number as spreadsheets and R shorten it."""
INVISIBLE = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"
"""Control characters, line separators of Unicode, zero-width blanks, byte order marks, marks of direction."""
NAMES = ("user", "event", "time")
MANY_REPEATED = 0.4
"""Of the rows: more that are like another one are hardly an accident."""
LONG_AGO = datetime(2000, 1, 1)
"""Before it, logs of interactions were rare; seconds since 2001, as Apple counts them, are of 31 years before."""
LONG_PAUSE = 4
"""Weeks without rows: fewer are holidays."""
MANY_IDS = 20
"""Ids: that each of fewer is in one row alone may be chance."""
MOST_PAIRS = 5
"""Of files that are the same, so many are named."""
LARGE_SHARE = 0.5
"""Of the rows: an id with more is hardly one user or one event."""


@dataclass(frozen=True)
class Rejection:
    """Rows that cannot be used for one reason."""

    reason: str
    rows: int
    example: str


@dataclass(frozen=True)
class SourceCheck:
    """What a source holds, as it was understood."""

    rows: int
    """That can be used."""
    users: int
    events: int
    first: datetime | None
    last: datetime | None
    """Of the rows that can be used, UTC."""
    before_start: int
    after_end: int
    """Of the rows that can be used, those before the first and after the last week that the settings name."""
    rejected: list[Rejection]
    """By reason, most rows first; rows that the row filter leaves out are among them."""
    suspicions: list[str]
    """What looks odd though it can be used, in sentences."""
    extent: SourceExtent
    digests: dict[str, str]
    """Of the rows that can be used, by week with some."""


def check_source(spec: SourceSpec, start_week: str | None = None, end_week: str | None = None) -> SourceCheck:
    """Reads all of the source once, or of one that has no end the closed weeks; `start_week` and `end_week` (None:
    none) limit what would be ingested.

    SourceError if it cannot be read, or has no row that can be used.
    """
    extent = kind_of(spec).extent()
    weeks = weeks_between(extent.first_week, extent.closed_by_rows) if extent and extent.closed_by_rows else None
    with connect() as con:
        found = scan(con, spec, LOOK_SQL, weeks=weeks)
        groups = [RowGroup(*row) for *row, _ in con.execute(GROUPS_SQL.replace("{rows}", "looked")).fetchall()]
        groups.append(unreadable_group(found))
        extent = extent or extent_of(spec, groups, numbers_weeks=found.numbers_weeks)
        asked = {"start_week": start_week, "end_week": end_week}
        sizes = con.execute(SIZES_SQL, asked).fetchall()[0]
        rows, users, events, first, last, repeated, before, after, *zones = sizes
        rejected = [
            Rejection(
                reason,
                count,
                ", ".join(f"{name} {shortened(repr(value))}" for name, value in zip(NAMES, row, strict=True)),
            )
            for reason, count, row in con.execute(REASONS_SQL).fetchall()
        ]
        if found.unreadable.count:
            lines = found.unreadable.first
            rejected.append(
                Rejection(UNREADABLE_LINE, found.unreadable.count, repr(lines[0]) if lines else "not shown")
            )
        suspicions = [text for node in ("user", "event") for text in _suspicions(con, node)]
        suspicions += _time_suspicions(con, usable=rows)
        if mixed := mixed_zones(*zones):
            suspicions.append(mixed)
        if last and last < LONG_AGO:
            suspicions.append(
                f"the newest row is of {last:%Y-%m-%d}: numbers may count from another year than 1970, such as 2001"
            )
        if repeated > MANY_REPEATED * rows:
            suspicions.append(
                f"{repeated:,} of {rows:,} rows are like another one in user, event and time: a file twice?"
            )
        if cut := found.cut_short():
            suspicions.append(cut)
        suspicions += same_files(spec)
        if others := kind_of(spec).other_files():
            suspicions.append(f"files in the folder are not read, as their names tell no format: {listed(others, 5)}")
    digests = digests_of(groups)
    suspicions += _pauses(digests)
    return SourceCheck(rows, users, events, first, last, before, after, rejected, suspicions, extent, digests)


def same_files(spec: SourceSpec) -> list[str]:
    """What to say of files of the source that are the same."""
    pairs = kind_of(spec).same_files()[:MOST_PAIRS]
    return [f"the files {one} and {other} are the same: their rows count twice" for one, other in pairs]


def _pauses(weeks: Iterable[str]) -> Iterator[str]:
    for before, after in pairwise(sorted(weeks)):
        if (empty := week_number(after) - week_number(before) - 1) >= LONG_PAUSE:
            yield f"{empty} weeks in a row have no rows that can be used, from {shift(before, 1)} on"


def _time_suspicions(con: duckdb.DuckDBPyConnection, *, usable: int) -> Iterator[str]:
    unread, sampled = con.execute(TIMES_SQL).fetchall()[0]
    if told := unread_times(sampled or ()):
        yield told
    elif unread > usable:
        yield f"most rows have times that cannot be read ({unread:,}): set TGN_TIMESTAMP_FORMAT"


def _suspicions(con: duckdb.DuckDBPyConnection, node: str) -> Iterator[str]:
    query = SUSPICIOUS_SQL.format(node=node)
    asked = {"stand_ins": STAND_INS, "quotes": QUOTES, "scientific": SCIENTIFIC, "invisible": INVISIBLE}
    blank, sample, stand_ins, largest, share, count, most, *odd = con.execute(query, asked).fetchall()[0]
    shortened_ids, short, quoted, in_quotes, unseen, with_unseen = odd
    if blank:
        yield f"{blank:,} of {count:,} {node} ids have blanks at an end, such as {sample!r}: not the id without them"
    if shortened_ids:
        yield (
            f"{shortened_ids:,} of {count:,} {node} ids are numbers such as {short}, as spreadsheets and R write them: "
            "several may have become one, and one several; export them as text"
        )
    if quoted:
        yield (
            f"{quoted:,} of {count:,} {node} ids have quotes in them, such as {in_quotes}: the export may have quoted "
            "or escaped them twice"
        )
    if unseen:
        yield f"{unseen:,} of {count:,} {node} ids have characters that are not seen, such as {with_unseen!a}"
    if stand_ins:
        yield f"the {node} ids {', '.join(map(repr, stand_ins[:5]))} may stand for a missing value"
    if most == 1 and count >= MANY_IDS:
        yield (
            f"no {node} is in more than one row, so that there is nothing to learn about any: is "
            f"TGN_{node.upper()}_COLUMN the number of a row, a session or an order?"
        )
    if count > 1 and share > LARGE_SHARE:
        yield f"{share:.0%} of the rows are of one {node}, {largest!r}"
    alike, pair = con.execute(ALIKE_SQL.format(node=node)).fetchall()[0]
    if alike:
        one, other = map(ascii, pair)
        ways = f"in more than one way (case, leading zeros or Unicode form), such as {one} and {other}"
        yield f"{alike:,} {node} ids are written {ways}: they count as different {node}s"
