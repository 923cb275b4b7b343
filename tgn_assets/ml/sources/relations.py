"""The files of a source, grouped by shape, as relations that DuckDB can read."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.csv_repair import count_lines, split_records
from tgn_assets.ml.sources.row_filter import check_filter, filter_columns, renamed, unknown_column
from tgn_assets.ml.sources.spec import (
    WEEK_NUMBER,
    SourceError,
    SourceSpec,
    empty_source,
    format_of,
    is_compressed,
    local_files,
)

DELIMITERS = ",\t;|"

HEADER_BYTES = 1 << 20
# As text, so that a line which is no JSON can be recorded as it is. Valid JSON has no raw control character.
LINES_SQL = """(FROM read_csv($files, auto_detect = false, header = false, delim = chr(31), quote = '', escape = '',
               store_rejects = true, rejects_limit = 0, columns = {line: 'VARCHAR'}) WHERE line <> '')"""
IS_OBJECT_SQL = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"
FIRST_LINES = 1000
"""Lines of a JSON file in which a column must turn up: an object may leave out a key, but hardly so many do."""
FIRST_KEYS_SQL = f"""
    SELECT DISTINCT unnest(json_keys(line)) FROM (FROM {LINES_SQL} LIMIT {FIRST_LINES}) WHERE {IS_OBJECT_SQL}
"""
# Nothing is sniffed: how a line is read must not depend on rows of later weeks. Strict, since DuckDB otherwise drops a
# line's surplus columns, or the character after a stray carriage return, without a word.
CSV_SQL = """read_csv($files, auto_detect = false, header = true, delim = '<delimiter>', quote = '"', escape = '"',
             strict_mode = true, store_rejects = true, rejects_limit = 0, parallel = <parallel>,
             columns = {<columns>})"""


@dataclass(frozen=True)
class Column:
    """A column as SQL, and the name of its DuckDB type."""

    sql: str
    dtype: str


@dataclass(frozen=True)
class Part:
    """Files of one shape: `read` is the SQL of their rows, with the files' names as its parameter $files."""

    read: str
    files: tuple[str, ...]
    user: Column
    event: Column
    time: Column
    numbers_weeks: bool = False
    """Whether `time` is the number of a week."""
    csv: tuple[str, int] | None = None
    """Of CSV: the delimiter and the number of columns."""
    readable: str = "true"
    """SQL: whether a row could be made out at all; where not, `user` is the line."""
    lines: bool = False
    """Whether there is a row per line: of JSON."""
    keep: str = "true"
    """SQL on the columns `filtered`: whether a row is to be read at all."""
    filtered: tuple[str, ...] = ()
    """SQL of the columns filter_0, filter_1, ... that `keep` looks at."""

    @property
    def patterns(self) -> list[str]:
        """`files` as DuckDB must be given them, which would take a bracket in a name for a pattern."""
        return [_pattern(file) for file in self.files]


@dataclass(frozen=True)
class Table:
    """A file, how it is read, and its columns by name."""

    name: str
    file: str
    """Where it is read from: not `name` if it had to be copied or unpacked."""
    read: str
    columns: dict[str, Column]
    csv: tuple[str, int] | None = None
    readable: str = "true"
    lines: bool = False


def open_parts(con: duckdb.DuckDBPyConnection, spec: SourceSpec, folder: Path) -> list[Part]:
    """The source's files by shape; what lies behind a URL is copied and compressed text unpacked into `folder`.

    SourceError names a column that is missing, or says that there is not even a header.
    """
    files = local_files(spec.location, folder)
    tables = [table for name, file in files if (table := _open(con, spec, name, file, folder))]
    if not tables:
        raise empty_source(spec)
    return parts_of(spec, tables)


def parts_of(spec: SourceSpec, tables: Sequence[Table]) -> list[Part]:
    """`tables` by shape, with the columns that `spec` names. SourceError names one that is missing."""
    # One kind of time for all files, or the ones without timestamps would be dated by something else unnoticed.
    dated = spec.timestamp_column != WEEK_NUMBER and any(_spelling(t.columns, spec.timestamp_column) for t in tables)
    weekly = not dated and any(_spelling(table.columns, WEEK_NUMBER) for table in tables)
    parts: dict[Part, list[str]] = {}
    for table in tables:
        user = _column(table, spec.user_column, "TGN_USER_COLUMN")
        event = _column(table, spec.event_column, "TGN_EVENT_COLUMN")
        time = _column(table, WEEK_NUMBER if weekly else spec.timestamp_column, "TGN_TIMESTAMP_COLUMN")
        keep = row_filter(spec.row_filter, table.name, table.columns)
        shape = Part(table.read, (), user, event, time, weekly, table.csv, table.readable, table.lines, *keep)
        parts.setdefault(shape, []).append(table.file)
    return [replace(shape, files=tuple(files)) for shape, files in parts.items()]


def row_filter(condition: str | None, name: str, columns: Mapping[str, Column]) -> tuple[str, tuple[str, ...]]:
    """`Part.keep` and `Part.filtered` for the file `name` with `columns`. SourceError if it lacks one of them."""
    if condition is None:
        return "true", ()
    names, filtered = {}, []
    for number, wanted in enumerate(filter_columns(check_filter(condition))):
        found = _spelling(columns, wanted)
        if found is None:
            raise unknown_column(condition, wanted, name, columns)
        names[wanted] = f"filter_{number}"
        filtered.append(columns[found].sql)
    return f"COALESCE(CAST({renamed(condition, names)} AS BOOLEAN), false)", tuple(filtered)


def expected_rows(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> int | None:
    """Rows and unreadable lines that text must bring, with any Parquet beside it; None where there is no text.

    More lines are expected than come if values span lines.
    """
    rows = 0
    if not any(part.csv or part.lines for part in parts):
        return None
    for part in parts:
        if not (part.csv or part.lines):
            query = "SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata($files)"
            rows += con.execute(query, {"files": part.patterns}).fetchall()[0][0]
        else:
            header = 0 if part.lines else 1
            rows += sum(count_lines(Path(file)) - header for file in part.files)
    return rows


def well_formed(parts: Iterable[Part], folder: Path) -> tuple[list[Part], list[str]]:
    """`parts` with copies, in `folder`, of the well-formed records of all CSV; and the lines that belong to none."""
    safe: list[Part] = []
    bad: list[str] = []
    for part in parts:
        if part.csv is not None:
            copies = [folder / f"{len(safe)}-{number}.csv" for number in range(len(part.files))]
            for file, copy in zip(part.files, copies, strict=True):
                bad += split_records(Path(file), copy, *part.csv)
            part = replace(part, read=_read_csv(*part.csv, parallel=False), files=tuple(map(str, copies)))
        safe.append(part)
    return safe, bad


def _open(con: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str, folder: Path) -> Table | None:
    """None for a text file without a line."""
    kind = format_of(name, file)
    if kind != "parquet" and is_compressed(name):
        file = _unpack(file, folder)
    return OPENERS[kind](con, spec, name, file)


def _open_parquet(con: duckdb.DuckDBPyConnection, _: SourceSpec, name: str, file: str) -> Table:
    described = con.execute("DESCRIBE FROM read_parquet($file)", {"file": _pattern(file)}).fetchall()
    columns = {column: Column(quoted(column), dtype) for column, dtype, *_ in described}
    return Table(name, file, "read_parquet($files)", columns)


def _open_csv(_: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str) -> Table | None:
    header = _header(file)
    if header is None:
        return None
    if not header:
        raise SourceError(f"the first line of {name} is empty; a CSV file in TGN_SOURCE begins with its columns' names")
    delimiter, names = _split_header(header, (spec.user_column, spec.event_column))
    columns: dict[str, Column] = {}
    for number, column in enumerate(names):
        columns.setdefault(column, Column(f"c{number}", "VARCHAR"))
    shape = delimiter, len(names)
    return Table(name, file, _read_csv(*shape, parallel=True), columns, shape)


def _open_json(con: duckdb.DuckDBPyConnection, _: SourceSpec, name: str, file: str) -> Table | None:
    found = con.execute(FIRST_KEYS_SQL, {"files": [_pattern(file)]}).fetchall()
    con.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    if not found:
        if not count_lines(Path(file)):
            return None
        raise SourceError(
            f"none of the first {FIRST_LINES} lines of {name} is a JSON object; TGN_SOURCE takes one each"
        )
    columns = {key: Column(f"CASE WHEN readable THEN line ->> {_key(key)} END", "VARCHAR") for (key,) in sorted(found)}
    return Table(name, file, LINES_SQL, columns, None, IS_OBJECT_SQL, lines=True)


OPENERS: Mapping[str, Callable[[duckdb.DuckDBPyConnection, SourceSpec, str, str], Table | None]] = {
    "csv": _open_csv,
    "json": _open_json,
    "parquet": _open_parquet,
}
"""The registry of file formats: (connection, source, name, file) -> how to read it; None for a file without rows."""


def _key(name: str) -> str:
    """The JSON path of a member as an SQL text."""
    path = '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "'" + path.replace("'", "''") + "'"


def _header(file: str) -> str | None:
    """The first line of a CSV file; None if there is none."""
    with open(file, "rb") as opened:
        begin = opened.read(HEADER_BYTES)
    return re.split(rb"[\r\n]", begin, maxsplit=1)[0].decode("utf-8-sig") if begin else None


def _read_csv(delimiter: str, columns: int, parallel: bool) -> str:
    struct = ", ".join(f"c{number}: 'VARCHAR'" for number in range(columns))
    sql = CSV_SQL.replace("<delimiter>", delimiter).replace("<columns>", struct)
    return sql.replace("<parallel>", str(parallel).lower())


def _split_header(line: str, wanted: Iterable[str]) -> tuple[str, list[str]]:
    """The delimiter that yields the wanted columns, or else the most columns; and the names of the columns."""
    best: tuple[tuple[bool, int], str, list[str]] | None = None
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
        merit = {name.lower() for name in wanted} <= {name.lower() for name in names}, len(names)
        if best is None or merit > best[0]:
            best = merit, delimiter, names
    assert best is not None
    return best[1], best[2]


def _column(table: Table, name: str, setting: str) -> Column:
    found = _spelling(table.columns, name)
    if found is None:
        also = f" and none named {WEEK_NUMBER!r}" if setting == "TGN_TIMESTAMP_COLUMN" else ""
        existing = ", ".join(map(repr, table.columns))
        raise SourceError(f"{table.name} has no column {name!r}{also}; set {setting} to one of its columns: {existing}")
    return table.columns[found]


def _spelling(columns: Mapping[str, Column], wanted: str) -> str | None:
    """The name of the column `wanted`: spelt exactly so, or else in other case."""
    if wanted in columns:
        return wanted
    return next((name for name in columns if name.lower() == wanted.lower()), None)


def _pattern(file: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", file)


def _unpack(file: str, folder: Path) -> str:
    target = folder / hashlib.sha256(file.encode()).hexdigest()
    with gzip.open(file, "rb") as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out)
    return str(target)
