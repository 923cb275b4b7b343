"""The rows of a source as they are understood: ids as text, times in UTC, and why a row cannot be used."""

from __future__ import annotations

import csv
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from tgn_assets.ml.connectors.duckdb_session import confine, was_interrupted
from tgn_assets.ml.connectors.object_store import StoreError, full_disk, is_full
from tgn_assets.ml.connectors.postgres import PostgresError, is_postgres, server_message
from tgn_assets.ml.forgotten import ForgottenIds
from tgn_assets.ml.safe_text import listed, safe_error
from tgn_assets.ml.schema import EVENT, USER, literal
from tgn_assets.ml.sources.csv_repair import LINES_KEPT, UnreadableLines
from tgn_assets.ml.sources.files import FileSource
from tgn_assets.ml.sources.formats import expected_rows, well_formed
from tgn_assets.ml.sources.postgres import PostgresSource
from tgn_assets.ml.sources.relations import (
    NESTED,
    Column,
    FileSummary,
    Part,
    RowGroup,
    SourceKind,
    TableSource,
    id_text,
)
from tgn_assets.ml.sources.row_filter import briefly
from tgn_assets.ml.sources.spec import SYNTHETIC, SourceError, SourceSpec, horizon
from tgn_assets.ml.sources.synthetic import SyntheticSource
from tgn_assets.ml.sources.timestamp_sql import (
    EARLIEST,
    LATEST,
    is_number,
    is_number_text,
    is_time,
    names_zone_sql,
    no_time_sql,
    number_sql,
    one_of,
    timestamp_sql,
    week_sql,
    week_start_sql,
)

logger = logging.getLogger(__name__)

UNREADABLE_LINE, OUT_OF_RANGE, IN_FUTURE = "unreadable_line", "time_out_of_range", "time_in_future"
UNREADABLE_TIME, NESTED_ID, ID_TOO_LONG = "unreadable_time", "nested_id", "id_too_long"
FILTERED = "filtered"
"""The reason of a row that could be used, but does not meet the row filter: it is no rejection."""
FORGOTTEN = "forgotten"
"""The reason of a row of a forgotten user or event: it is no rejection, and its values are not kept."""
LEFT_OUT = (FILTERED, FORGOTTEN)
"""Reasons that are no rejection."""
ID_LENGTH = 1000
"""Characters that an id may have."""
IS_BLANK_SQL = "CASE WHEN {0} >= '!' THEN false ELSE coalesce(trim({0}), '') = '' END"
"""Whether an id is missing or all blanks. Ids from `!` on do not begin with a blank: they are spared `trim`, which is
slow."""
REASON_SQL = f"""CASE WHEN NOT readable THEN '{UNREADABLE_LINE}' WHEN NOT keep THEN '{FILTERED}'
    WHEN {{forgotten}} THEN '{FORGOTTEN}'
    WHEN {IS_BLANK_SQL.format("user_id")} THEN 'missing_user'
    WHEN {IS_BLANK_SQL.format("event_id")} THEN 'missing_event'
    WHEN strlen(user_id) + strlen(event_id) > {ID_LENGTH}
         AND greatest(length(user_id), length(event_id)) > {ID_LENGTH} THEN '{ID_TOO_LONG}'
    WHEN {{nested}} THEN '{NESTED_ID}'
    WHEN value IS NULL OR {{zero}} THEN 'missing_time'
    WHEN ts IS NULL THEN CASE WHEN {{no_time}} THEN 'missing_time' WHEN {{header}} ELSE '{UNREADABLE_TIME}' END
    WHEN week IS NULL AND ts >= DATE '{EARLIEST}' AND ts < DATE '{LATEST}' THEN '{IN_FUTURE}'
    WHEN week IS NULL THEN '{OUT_OF_RANGE}' END"""
EXACT_UP_TO = {"FLOAT": 2**24, "DOUBLE": 2**53}
"""Whole numbers beyond it may be rounded to others: as ids they would merge users."""
NO_ROWS = """SELECT NULL::VARCHAR AS user_id, NULL::VARCHAR AS event_id, NULL::TIMESTAMP AS ts, NULL::DATE AS week,
    NULL::VARCHAR AS reason, NULL::VARCHAR AS text, NULL::DOUBLE AS number, NULL::VARCHAR AS file,
    NULL::BOOLEAN AS names_zone WHERE false"""


def kind_of(spec: SourceSpec) -> SourceKind:
    """The source at `spec`, as one of its kind: here every kind has its entry."""
    if spec.table is not None:
        return TableSource(spec)
    if spec.location == SYNTHETIC:
        return SyntheticSource(spec)
    return PostgresSource(spec) if is_postgres(spec.location) else FileSource(spec)


@dataclass(frozen=True)
class Scan:
    """What one reading of a source brought."""

    rows: list[tuple]
    """The result of the query."""
    unreadable: UnreadableLines
    """Lines of CSV that are no record, and of JSON that cannot even be split off."""
    numbers_weeks: bool
    """Whether the rows have the number of a week and no time."""
    unread: Mapping[str, FileSummary] = field(default_factory=dict)
    """By key: what is remembered of files that were not read, as `Opened` has it."""
    keys: Mapping[str, str | None] = field(default_factory=dict)
    """The same for those that were, by the name that rows have in the column file."""
    unended: Sequence[str] = ()
    """Files whose last line may be cut, as `Opened` has them."""

    def cut_short(self) -> str | None:
        """What to say of files whose last line may be cut; None if there are none."""
        if not self.unended:
            return None
        return f"the last line of {listed(self.unended, 3)} has no line end and may be cut: is the file whole?"

    def unread_groups(self) -> list[RowGroup]:
        """The rows of the files that were not read."""
        return [group for summary in self.unread.values() for group in summary.groups]


def scan(
    con: duckdb.DuckDBPyConnection,
    spec: SourceSpec,
    query: str,
    parameters: Mapping[str, Any] | None = None,
    weeks: Sequence[str] | None = None,
    *,
    summarise: bool = False,
) -> Scan:
    """Runs `query` over the source, once: `{rows}` in it stands for the rows, with the columns user_id, event_id, ts,
    week, reason (NULL: the row is valid), text (the time of a row that is not), number (see `week_number`), file and
    names_zone (whether the time of a valid row says in which zone it is, NULL where that matters not).

    The first column of the query's result must add up to the number of rows that it was given: this is how rows that
    DuckDB loses are noticed, and the query run again over a safer reading. `SourceKind.open` says which rows there are
    beside those of `weeks`, and what it is to `summarise`. Not within a transaction. SourceError if the source cannot
    be read.
    """
    with (
        source_errors(spec),
        kind_of(spec).open(con, weeks, summarise) as opened,
        TemporaryDirectory(prefix="tgn-source-") as folder,
    ):
        parts, forgotten = opened.parts, spec.forgotten_ids
        unreadable, names = UnreadableLines(), dict[str, str]()
        if forgotten:
            forgotten.write_table(con)
        if spec.row_filter:  # checked as it is, it is SQL that a user wrote
            confine(con, [name for part in parts for name in (*part.files, *part.patterns)], folder)
        rows, expected = list[tuple](), expected_rows(con, parts)
        try:
            rows = _run(con, parts, query.replace("{rows}", _union(parts, spec, forgotten)), parameters)
            as_expected = expected is None or sum(row[0] for row in rows) == expected
        except duckdb.Error as error:  # its CSV reader gives up at mixed line ends, and at short lines beside long ones
            if expected is None or not (isinstance(error, duckdb.InvalidInputException) or "CSV Error" in str(error)):
                raise
            as_expected = False
        if not as_expected:
            logger.info("%s has values that span lines, or malformed lines: reading it line by line", spec.shown)
            safe, unreadable = well_formed(parts, Path(folder))
            con.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
            rows = _run(con, safe, query.replace("{rows}", _union(safe, spec, forgotten)), parameters)
            unreadable.extend(_rejects(con))
            if forgotten:  # a line may hold a forgotten id, and what its columns are cannot be known
                unreadable.first.clear()
            names = dict(zip(*(chain(*(part.files for part in some)) for some in (parts, safe)), strict=True))
        keys = {names.get(file, file): key for file, key in opened.keys.items()}
        return Scan(rows, unreadable, True in opened.kinds_of_time, opened.unread, keys, opened.unended)


@contextmanager
def source_errors(spec: SourceSpec) -> Iterator[None]:
    """Turns what DuckDB or the file system say of a source that cannot be read into a SourceError."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except StoreError as error:
        raise SourceError(f"TGN_SOURCE={spec.shown} cannot be read: {error}") from safe_error(error)
    except PostgresError as error:
        raise SourceError(f"TGN_SOURCE={spec.shown} cannot be read ({error}); {error.remedy}") from safe_error(error)
    # DuckDB's binding raises RuntimeError for a name that it cannot hand to Python.
    except (duckdb.Error, OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error, RuntimeError) as error:
        if is_full(error):
            raise SourceError(f"TGN_SOURCE={spec.shown} cannot be read: {full_disk()}") from safe_error(error)
        if was_interrupted(error):
            raise KeyboardInterrupt from None
        reason, cause = server_message(error), safe_error(error)
        if reason.startswith(fault := "Invalid Input Error: the column "):
            raise SourceError(f"TGN_SOURCE={spec.shown}: the column {reason.removeprefix(fault)}") from cause
        if of_style := _fault_of_style(spec, reason):
            raise SourceError(of_style) from cause
        if spec.row_filter and isinstance(error, (duckdb.ConversionException, duckdb.BinderException)):
            raise SourceError(
                f"TGN_SOURCE={spec.shown} cannot be read with TGN_ROW_FILTER={briefly(spec.row_filter)} ({reason}); "
                "the columns of CSV and JSON lines are text: write TRY_CAST(amount AS DOUBLE) > 5 for a number"
            ) from cause
        raise SourceError(f"TGN_SOURCE={spec.shown} cannot be read ({reason}); {kind_of(spec).remedy}") from cause


def _fault_of_style(spec: SourceSpec, reason: str) -> str | None:
    """What to say of a setting of how times are written, if that is the `reason` why a source cannot be read."""
    if "format specifier" in reason:
        return f"TGN_TIMESTAMP_FORMAT={spec.time_style.format} cannot be used ({reason})"
    if "Unknown TimeZone" in reason and spec.time_style.zone:
        zone = spec.time_style.zone
        return f"TGN_TIME_ZONE={zone} cannot be used ({reason}): write an IANA name such as Europe/Berlin"
    return None


def _union(parts: Sequence[Part], spec: SourceSpec, forgotten: ForgottenIds) -> str:
    return f"({' UNION ALL '.join(_rows_sql(part, at, spec, forgotten) for at, part in enumerate(parts)) or NO_ROWS})"


def _run(
    con: duckdb.DuckDBPyConnection, parts: Sequence[Part], query: str, parameters: Mapping[str, Any] | None
) -> list[tuple]:
    files = {f"files{number}": part.patterns for number, part in enumerate(parts) if part.files}
    # A damaged Parquet file may claim times between two days, so that DuckDB would not compare them with these.
    con.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        return con.execute(query, {**files, **(parameters or {})}).fetchall()
    finally:
        con.execute("RESET disabled_optimizers")


def _rejects(con: duckdb.DuckDBPyConnection) -> UnreadableLines:
    """The lines that DuckDB rejected although they looked well-formed."""
    # A line has an entry for each of its errors.
    lines = """(SELECT DISTINCT file_path, line, line_byte_position, csv_line
                FROM reject_errors JOIN reject_scans USING (scan_id, file_id))"""
    counts = dict(con.execute(f"SELECT file_path, count(*) FROM {lines} GROUP BY file_path").fetchall())
    first = con.execute(f"SELECT csv_line FROM {lines} LIMIT {LINES_KEPT}").fetchall()
    con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return UnreadableLines(sum(counts.values()), [text for (text,) in first], Counter(counts))


def _rows_sql(part: Part, number: int, spec: SourceSpec, forgotten: ForgottenIds) -> str:
    """SELECT of the rows of `part` without `forgotten` values; its files are the parameter $files`number`."""
    nulls = spec.null_values
    time = _present(part.time, nulls)
    read = part.relation.sql.replace("$files", f"$files{number}")
    ts = timestamp_sql("value", "number", time.dtype, spec.time_style)
    if time.dtype == "FLOAT" and not part.numbers_weeks:
        raise _no_time(spec, "has 32-bit floats, which round times")
    if re.match(f"{NESTED}|TIME( |$)|INTERVAL|BOOLEAN|BLOB|UUID", part.time.dtype):
        raise _no_time(spec, f"has values of type {part.time.dtype}")
    if part.numbers_weeks:
        if spec.week_number_anchor is None:
            raise SourceError(
                f"TGN_SOURCE={spec.shown} counts its weeks; set TGN_START_WEEK to the Monday of the first one"
            )
        ts = week_start_sql("number", spec.week_number_anchor)
    user, event = _id_sql(part.user, spec.user_column, nulls), _id_sql(part.event, spec.event_column, nulls)
    if text := part.relation.unreadable_text:
        user = f"CASE WHEN readable THEN {user} ELSE {text} END"
    no_time = one_of("value", nulls) if nulls and time.dtype == "VARCHAR" else "false"
    reason = REASON_SQL.format(
        no_time=no_time,
        zero=no_time_sql("ts", spec.time_style),
        header=_other_header_sql(part, spec),
        nested=" OR ".join(_nested_sql(part)) or "false",
        forgotten=f"{forgotten.sql('user_id', USER)} OR {forgotten.sql('event_id', EVENT)}" if forgotten else "false",
    )
    filtered = "".join(f", {sql} AS filter_{at}" for at, sql in enumerate(part.filtered))
    # One step after the other, so that DuckDB computes each column once.
    return f"""
        SELECT {_kept("user_id", forgotten)} AS user_id, {_kept("event_id", forgotten)} AS event_id, ts, week, reason,
               CASE WHEN reason IS NOT NULL THEN {_kept("value::VARCHAR", forgotten)} END AS text, number, file,
               CASE WHEN reason IS NULL THEN {names_zone_sql("value", time.dtype, spec.time_style)} END AS names_zone
        FROM (SELECT *, {reason} AS reason
        FROM (SELECT *, {week_sql("ts", horizon())} AS week
        FROM (SELECT *, {ts} AS ts
        FROM (SELECT *, {number_sql("value", time.dtype)} AS number
        FROM (SELECT {user} AS user_id, {event} AS event_id, {time.sql} AS value, readable, {part.keep} AS keep,
                     {part.relation.file} AS file
        FROM (SELECT *{filtered} FROM (SELECT *, {part.relation.readable} AS readable FROM {read})))))))
    """


def _kept(column: str, forgotten: ForgottenIds) -> str:
    """SQL: a value of a row, unless the row is rejected and the value is, or may hold, an id that is `forgotten`."""
    if not forgotten:
        return column
    unchecked = ", ".join(map(literal, (FORGOTTEN, UNREADABLE_LINE, NESTED_ID, ID_TOO_LONG)))
    # Of other rows nothing is asked: a lookup in a subquery is made for each row, whatever CASE it stands in.
    of_rejected = f"CASE WHEN reason IS NOT NULL THEN {column} END"
    doubtful = f"reason IN ({unchecked}) OR {forgotten.sql(of_rejected)}"
    return f"CASE WHEN reason IS NULL THEN {column} WHEN {doubtful} THEN NULL ELSE {column} END"


def _no_time(spec: SourceSpec, fault: str) -> SourceError:
    return SourceError(
        f"the column {spec.timestamp_column!r} of TGN_SOURCE={spec.shown} {fault}: write it as a timestamp, or name "
        "another column with TGN_TIMESTAMP_COLUMN"
    )


def _id_sql(column: Column, name: str, null_values: Sequence[str]) -> str:
    if column.dtype in EXACT_UP_TO:
        fault = f"the column {name!r} holds {column.dtype} numbers too large to be exact: write it as integers or text"
        inexact = f"abs({column.sql}) > {EXACT_UP_TO[column.dtype]} AND isfinite({column.sql})"
        text = id_text(column.sql, column.dtype, null_values)
        return f"CASE WHEN {inexact} THEN error({literal(fault)}) ELSE {text} END"
    if column.dtype != "BLOB":
        return id_text(column.sql, column.dtype, null_values)
    fault = f"the column {name!r} holds bytes that are no UUID; write it as text, or name another column"
    dashed = "'(.{8})(.{4})(.{4})(.{4})(.{12})', '\\1-\\2-\\3-\\4-\\5'"
    # The bytes of a UUID are hardly all characters of ASCII: those that are spell a text. Others are cast to `\\x00`.
    is_uuid = f"octet_length({column.sql}) = 16 AND strlen(CAST({column.sql} AS VARCHAR)) > 16"
    return f"""CASE WHEN octet_length({column.sql}) = 0 THEN NULL
        WHEN {is_uuid} THEN regexp_replace(lower(hex({column.sql})), {dashed})
        WHEN {column.sql} IS NOT NULL THEN error({literal(fault)}) END"""


def _other_header_sql(part: Part, spec: SourceSpec) -> str:
    """WHEN … THEN an error: a line of names in other places than the first one, so that of all after it users, events
    and times would be mixed up."""
    if part.relation.csv is None:
        return "false THEN NULL"
    user, event, time = map(literal, (spec.user_column, spec.event_column, spec.timestamp_column))
    names = (
        f"(user_id IN ({event}, {time}))::INT + (event_id IN ({user}, {time}))::INT + (value IN ({user}, {event}))::INT"
    )
    fault = (
        "a line within it has the columns' names in another order: files were joined that should be read as a folder"
    )
    return f"{names} >= 2 THEN error({literal(fault)})"


def _nested_sql(part: Part) -> list[str]:
    """Whether the JSON member that an id was read from is an object or an array."""
    ids = [name for name, column in (("user_id", part.user), ("event_id", part.event)) if column.of_json]
    return [f"left({name}, 1) IN ('{{', '[') AND json_valid({name})" for name in ids]


def _present(column: Column, null_values: Sequence[str]) -> Column:
    """The time `column` with NULL for a null value that could be read as a time; text unless it is number or time."""
    dtype = column.dtype
    if is_time(dtype):
        return column
    values = [value for value in null_values if re.search("[0-9]", value)]
    if is_number(dtype):
        missing = [value for value in values if is_number_text(value)]
        missing += ["'nan'"] if dtype in ("FLOAT", "DOUBLE") else []
        sql = f"CASE WHEN {column.sql} NOT IN ({', '.join(missing)}) THEN {column.sql} END"
        return Column(sql, dtype) if missing else column
    text = column.sql if dtype == "VARCHAR" else f"CAST({column.sql} AS VARCHAR)"
    present = f"NOT {one_of(text, ('', *values))}" if values else f"{text} <> ''"
    return Column(f"CASE WHEN {present} THEN {text} END", "VARCHAR")
