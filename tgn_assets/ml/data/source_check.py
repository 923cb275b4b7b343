"""What the program understood of a source, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.safe_text import shortened
from tgn_assets.ml.sources.reader import OUT_OF_RANGE, UNREADABLE_LINE, UNREADABLE_TIME, scan
from tgn_assets.ml.sources.spec import SourceSpec

LOOK_SQL = "CREATE OR REPLACE TEMP TABLE looked AS SELECT user_id, event_id, ts, week, reason, text FROM {rows}"
REASONS_SQL = """
    SELECT reason, count(*), first([user_id, event_id, text] ORDER BY user_id, event_id, text)
    FROM looked WHERE reason IS NOT NULL GROUP BY reason ORDER BY count(*) DESC, reason
"""
SIZES_SQL = """
    SELECT count(*), count(DISTINCT user_id), count(DISTINCT event_id), min(ts), max(ts), count(DISTINCT week),
           count(*) FILTER (WHERE week < $start_week::DATE), count(*) FILTER (WHERE week > $end_week::DATE)
    FROM looked WHERE reason IS NULL
"""
IDS_SQL = """
    SELECT {node}_id, count(*), count(*) / sum(count(*)) OVER (),
           trim({node}_id) <> {node}_id, list_contains($stand_ins, lower(trim({node}_id)))
    FROM looked WHERE reason IS NULL GROUP BY {node}_id ORDER BY count(*) DESC, {node}_id
"""
SUSPICIOUS_SQL = f"""
    SELECT count(*) FILTER (WHERE blank), min(id) FILTER (WHERE blank), list(id) FILTER (WHERE stand_in),
           any_value(id) FILTER (WHERE place = 1), max(share) FILTER (WHERE place = 1), count(*)
    FROM (SELECT *, row_number() OVER (ORDER BY rows DESC, id) AS place
          FROM ({IDS_SQL}) AS t(id, rows, share, blank, stand_in))
"""
STAND_INS = [
    "null",
    "<na>",
    "nat",
    "#n/a",
    "(null)",
    "nan",
    "none",
    "n/a",
    "na",
    "nil",
    "undefined",
    "unknown",
    "anonymous",
    "guest",
    "-",
    "?",
    "0",
    "-1",
]
"""Ids, in lower case, that often stand for no id at all."""
NAMES = ("user", "event", "time")
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
    weeks: int
    """With rows."""
    before_start: int
    after_end: int
    """Of the rows that can be used, those before the first and after the last week that the settings name."""
    rejected: list[Rejection]
    """By reason, most rows first; rows that the row filter leaves out are among them."""
    suspicions: list[str]
    """What looks odd though it can be used, in sentences."""


def check_source(
    spec: SourceSpec,
    start_week: str | None = None,
    end_week: str | None = None,
    *,
    weeks: Sequence[str] | None = None,
) -> SourceCheck:
    """Reads all of the source, or of one that has no end the `weeks`; `start_week` and `end_week` (None: none) limit
    what would be ingested.

    SourceError if it cannot be read.
    """
    with connect() as con:
        unreadable = scan(con, spec, LOOK_SQL, weeks=weeks).unreadable
        sizes = con.execute(SIZES_SQL, {"start_week": start_week, "end_week": end_week}).fetchall()[0]
        rejected = [
            Rejection(
                reason,
                rows,
                ", ".join(f"{name} {shortened(repr(value))}" for name, value in zip(NAMES, row, strict=True)),
            )
            for reason, rows, row in con.execute(REASONS_SQL).fetchall()
        ]
        if unreadable.count:
            rejected.append(Rejection(UNREADABLE_LINE, unreadable.count, repr(unreadable.first[0])))
        suspicions = [text for node in ("user", "event") for text in _suspicions(con, node)]
        no_time = sum(found.rows for found in rejected if found.reason in (UNREADABLE_TIME, OUT_OF_RANGE))
        if no_time > sizes[0]:
            suspicions.append(f"most rows have times that cannot be read ({no_time:,}): set TGN_TIMESTAMP_FORMAT")
    rows, users, events, first, last, with_rows, before, after = sizes
    return SourceCheck(rows, users, events, first, last, with_rows, before, after, rejected, suspicions)


def _suspicions(con: duckdb.DuckDBPyConnection, node: str) -> Iterator[str]:
    query = SUSPICIOUS_SQL.format(node=node)
    blank, sample, stand_ins, largest, share, count = con.execute(query, {"stand_ins": STAND_INS}).fetchall()[0]
    if blank:
        yield f"{blank:,} of {count:,} {node} ids have blanks at an end, such as {sample!r}: not the id without them"
    if stand_ins:
        yield f"the {node} ids {', '.join(map(repr, stand_ins[:5]))} may stand for a missing value"
    if count > 1 and share > LARGE_SHARE:
        yield f"{share:.0%} of the rows are of one {node}, {largest!r}"
