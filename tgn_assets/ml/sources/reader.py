"""The rows of a source as they are understood: ids as text, times in UTC, and why a row cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pandas as pd

from tgn_assets.ml.connectors.postgres import is_postgres
from tgn_assets.ml.sources.csv_repair import LINE_SHOWN, shown
from tgn_assets.ml.sources.postgres import is_empty, open_rows
from tgn_assets.ml.sources.relations import Column, Part, expected_rows, open_parts, row_filter, well_formed
from tgn_assets.ml.sources.spec import SYNTHETIC, SourceError, SourceSpec, source_errors
from tgn_assets.ml.sources.timestamp_sql import (
    EARLIEST,
    LATEST,
    is_number,
    is_time,
    number_sql,
    timestamp_sql,
    week_sql,
    week_start_sql,
)

logger = logging.getLogger(__name__)

UNREADABLE_LINE, OUT_OF_RANGE = "unreadable_line", "time_out_of_range"
FILTERED = "filtered"
"""The reason of a row that could be used, but does not meet the row filter: it is no rejection."""
REASON_SQL = f"""CASE WHEN NOT readable THEN '{UNREADABLE_LINE}' WHEN NOT keep THEN '{FILTERED}'
    WHEN user_id IS NULL THEN 'missing_user' WHEN event_id IS NULL THEN 'missing_event'
    WHEN value IS NULL THEN 'missing_time' WHEN ts IS NULL THEN 'unreadable_time'
    WHEN week IS NULL THEN '{OUT_OF_RANGE}' END"""

SYNTHETIC_PART = Part(
    "synthetic_rows", (), Column("user_id", "VARCHAR"), Column("event_id", "VARCHAR"), Column("ts", "TIMESTAMP")
)


SYNTHETIC_COLUMNS = {column.sql: column for column in (SYNTHETIC_PART.user, SYNTHETIC_PART.event, SYNTHETIC_PART.time)}


@dataclass(frozen=True)
class Scan:
    """What one reading of a source brought."""

    rows: list[tuple]
    """The result of the query."""
    unreadable: list[str]
    """Lines of CSV that are no record, and of JSON that cannot even be split off."""

    def rejected_by_reason(self) -> dict[str, int]:
        """Rows that cannot be used, for a query whose columns begin with a count and the reason."""
        rejected = {reason: count for count, reason, *_ in self.rows if reason not in (None, FILTERED)}
        if self.unreadable:
            rejected[UNREADABLE_LINE] = rejected.get(UNREADABLE_LINE, 0) + len(self.unreadable)
        return rejected


def scan(
    con: duckdb.DuckDBPyConnection,
    spec: SourceSpec,
    query: str,
    parameters: Mapping[str, Any] | None = None,
    weeks: Sequence[str] | None = None,
) -> Scan:
    """Runs `query` over the source, once: `{rows}` in it stands for the rows, with the columns user_id, event_id, ts,
    week, reason (NULL: the row is valid), text (the time of a row that is not) and number (see `week_number`).

    The first column of the query's result must add up to the number of rows that it was given: this is how rows that
    DuckDB loses are noticed, and the query run again over a safer reading. Of a synthetic source there are `weeks`
    only; of PostgreSQL these, the rows without a week, and others only where the server cannot tell them apart. Not
    within a transaction. SourceError if the source cannot be read.
    """
    con.execute("SET TimeZone = 'UTC'")  # text without an offset, and TIMESTAMPTZ written as text
    if spec.location == SYNTHETIC:
        con.register("synthetic_rows", generate(spec, weeks or ()))
        try:
            with source_errors(spec):
                keep, filtered = row_filter(spec.row_filter, spec.location, SYNTHETIC_COLUMNS)
                return _run(con, spec, [replace(SYNTHETIC_PART, keep=keep, filtered=filtered)], query, parameters)
        finally:
            con.unregister("synthetic_rows")
    if is_postgres(spec.location):
        with source_errors(spec), open_rows(con, spec, weeks) as part:
            return _run(con, spec, [part], query, parameters)
    with source_errors(spec), TemporaryDirectory(prefix="tgn-source-") as folder:
        parts = open_parts(con, spec, Path(folder))
        expected = expected_rows(con, parts)
        try:
            found = _run(con, spec, parts, query, parameters)
            if expected is None or sum(row[0] for row in found.rows) + len(found.unreadable) == expected:
                return found
        except duckdb.InvalidInputException:  # the state machine of its CSV reader gives up at mixed line ends
            if expected is None:
                raise
        logger.info("%s has values that span lines, or malformed lines: reading it line by line", spec.location)
        safe, bad = well_formed(parts, Path(folder))
        found = _run(con, spec, safe, query, parameters)
        return Scan(found.rows, bad + found.unreadable)


def nothing_there(spec: SourceSpec) -> bool:
    """Whether a source of which a scan found no row has none at all."""
    return is_empty(spec) if is_postgres(spec.location) else spec.location != SYNTHETIC


def generate(spec: SourceSpec, weeks: Sequence[str]) -> pd.DataFrame:
    """The rows of `weeks` of the synthetic source: user_id, event_id, ts."""
    from tgn_assets.ml.sources.synthetic import World, generate_week

    frames = [generate_week(week, World(seed=spec.seed)) for week in weeks]
    no_log = pd.DataFrame({"user_id": "", "event_id": "", "ts": pd.Series(dtype="datetime64[us]")})
    return pd.concat(frames, ignore_index=True) if frames else no_log


def _run(
    con: duckdb.DuckDBPyConnection,
    spec: SourceSpec,
    parts: Sequence[Part],
    query: str,
    parameters: Mapping[str, Any] | None,
) -> Scan:
    con.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    union = " UNION ALL ".join(_rows_sql(part, number, spec) for number, part in enumerate(parts))
    files = {f"files{number}": part.patterns for number, part in enumerate(parts) if part.files}
    rows = con.execute(query.replace("{rows}", f"({union})"), {**files, **(parameters or {})}).fetchall()
    unreadable: list[str] = []
    if any(part.csv or part.lines for part in parts):
        # A line has an entry for each of its errors.
        rejects = con.execute("SELECT DISTINCT scan_id, file_id, line, line_byte_position, csv_line FROM reject_errors")
        unreadable = [shown(text) for *_, text in rejects.fetchall()]
        con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return Scan(rows, unreadable)


def _rows_sql(part: Part, number: int, spec: SourceSpec) -> str:
    """SELECT of the rows of `part`; its files are the parameter $files`number`."""
    time = _present(part.time)
    read = part.read.replace("$files", f"$files{number}")
    if part.numbers_weeks and spec.week_number_anchor is None:
        raise SourceError(
            f"TGN_SOURCE={spec.location} counts its weeks; set TGN_START_WEEK to the Monday of the first one"
        )
    ts = (
        week_start_sql("number", spec.week_number_anchor)
        if part.numbers_weeks and spec.week_number_anchor
        else timestamp_sql("value", "number", time.dtype)
    )
    user = _id_sql(part.user)
    if part.lines:
        user = f"CASE WHEN readable THEN {user} ELSE left(line, {LINE_SHOWN}) END"
    filtered = "".join(f", {sql} AS filter_{at}" for at, sql in enumerate(part.filtered))
    # One step after the other, so that DuckDB computes each column once.
    return f"""
        SELECT user_id, event_id, ts, week, reason, CASE WHEN reason IS NOT NULL THEN value::VARCHAR END AS text, number
        FROM (SELECT *, {REASON_SQL} AS reason
        FROM (SELECT *, CASE WHEN ts >= DATE '{EARLIEST}' AND ts < DATE '{LATEST}' THEN {week_sql("ts")} END AS week
        FROM (SELECT *, {ts} AS ts
        FROM (SELECT *, {number_sql("value", time.dtype)} AS number
        FROM (SELECT {user} AS user_id, {_id_sql(part.event)} AS event_id, {time.sql} AS value, readable,
                     {part.keep} AS keep
        FROM (SELECT *{filtered} FROM (SELECT *, {part.readable} AS readable FROM {read})))))))
    """


def _id_sql(column: Column) -> str:
    present = _present(column)
    return present.sql if present.dtype == "VARCHAR" else f"CAST({present.sql} AS VARCHAR)"


def _present(column: Column) -> Column:
    """`column` with NULL for what stands for a missing value, and as text unless it is a number or a time."""
    if column.dtype in ("FLOAT", "DOUBLE"):
        return Column(f"CASE WHEN NOT isnan({column.sql}) THEN {column.sql} END", column.dtype)
    if is_number(column.dtype) or is_time(column.dtype):
        return column
    text = column.sql if column.dtype == "VARCHAR" else f"CAST({column.sql} AS VARCHAR)"
    return Column(f"NULLIF({text}, '')", "VARCHAR")
