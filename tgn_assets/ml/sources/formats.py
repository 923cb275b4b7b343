"""The formats of files: a new one is a function here and its entry in `FORMATS`."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.csv_repair import LINE_SHOWN, count_lines, split_records
from tgn_assets.ml.sources.relations import Column, Part, Relation, Table, pattern
from tgn_assets.ml.sources.spec import SourceError, SourceSpec

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
class FileFormat:
    """A format of files: how to tell that a file is of it, and how to read it."""

    suffixes: tuple[str, ...]
    open: Callable[[duckdb.DuckDBPyConnection, SourceSpec, str, str], Table | None]
    """(connection, source, name, file) -> how to read the file, which users know by its name; None if it is empty."""
    magic: bytes = b""
    """What a file begins with, where that tells the format of one with any other name."""
    is_text: bool = True
    """Whether files may be compressed, and named so."""

    @property
    def all_suffixes(self) -> tuple[str, ...]:
        """What names of its files end with, those of compressed ones included."""
        return tuple(suffix + more for more in ("", *(UNPACKERS if self.is_text else ())) for suffix in self.suffixes)


def open_file(con: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str, folder: Path) -> Table | None:
    """How to read the `file` of this machine, which users know as `name`; None if there is not a line in it.

    Compressed text is unpacked into `folder`. SourceError if there is no header or the like.
    """
    known = format_of(name, file)
    unpack = next((unpack for suffix, unpack in UNPACKERS.items() if _plain(name).endswith(suffix)), None)
    if known.is_text and unpack:
        copy = folder / hashlib.sha256(file.encode()).hexdigest()
        with unpack(file, "rb") as packed, copy.open("wb") as out:
            shutil.copyfileobj(packed, out)
        file = str(copy)
    return known.open(con, spec, name, file)


def expected_rows(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> int | None:
    """Rows and unreadable lines, more than come if values span lines; None where no file has a line per row."""
    if all(part.relation.header_lines is None for part in parts):
        return None
    rows = 0
    for part in parts:
        if (header := part.relation.header_lines) is not None:
            rows += sum(count_lines(Path(file)) - header for file in part.files)
        else:
            query = f"SELECT count(*) FROM {part.relation.sql}"
            rows += con.execute(query, {"files": part.patterns}).fetchall()[0][0]
    return rows


def well_formed(parts: Iterable[Part], folder: Path) -> tuple[list[Part], list[str]]:
    """`parts` with copies, in `folder`, of the well-formed records of all CSV; and the lines that belong to none."""
    safe, bad = list[Part](), list[str]()
    for part in parts:
        if shape := part.relation.csv:
            copies = [folder / f"{len(safe)}-{number}.csv" for number in range(len(part.files))]
            for file, copy in zip(part.files, copies, strict=True):
                bad += split_records(Path(file), copy, *shape)
            relation = replace(part.relation, sql=_csv_sql(*shape, parallel=False))
            part = replace(part, relation=relation, files=tuple(map(str, copies)))
        safe.append(part)
    return safe, bad


def format_of(name: str, file: str) -> FileFormat:
    """The format of a file, by its `name`, or else by how its copy `file` begins; OSError if that cannot be opened."""
    if found := [known for known in FORMATS if _plain(name).endswith(known.all_suffixes)]:
        return found[0]
    with open(file, "rb") as opened:
        begin = opened.read(16)
    return next((known for known in FORMATS if known.magic and begin.startswith(known.magic)), CSV)


def _plain(name: str) -> str:
    """`name` in lower case, without the query of a URL."""
    name = name.lower()
    return name.split("?")[0] if name.startswith(("http://", "https://")) else name


def _open_parquet(con: duckdb.DuckDBPyConnection, _: SourceSpec, name: str, file: str) -> Table:
    described = con.execute("DESCRIBE FROM read_parquet($file)", {"file": pattern(file)}).fetchall()
    columns = {column: Column(quoted(column), dtype) for column, dtype, *_ in described}
    return Table(name, file, columns, Relation("read_parquet($files)"))


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
    return Table(name, file, columns, Relation(_csv_sql(*shape, parallel=True), header_lines=1, csv=shape))


def _open_json(con: duckdb.DuckDBPyConnection, _: SourceSpec, name: str, file: str) -> Table | None:
    found = con.execute(FIRST_KEYS_SQL, {"files": [pattern(file)]}).fetchall()
    con.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    if not found:
        if not count_lines(Path(file)):
            return None
        raise SourceError(
            f"none of the first {FIRST_LINES} lines of {name} is a JSON object; TGN_SOURCE takes one each"
        )
    columns = {key: Column(f"CASE WHEN readable THEN line ->> {_key(key)} END", "VARCHAR") for (key,) in sorted(found)}
    line = f"left(line, {LINE_SHOWN})"
    return Table(name, file, columns, Relation(LINES_SQL, 0, readable=IS_OBJECT_SQL, unreadable_text=line))


def _key(name: str) -> str:
    """The JSON path of a member as an SQL text."""
    path = '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "'" + path.replace("'", "''") + "'"


def _header(file: str) -> str | None:
    """The first line of a CSV file; None if there is none."""
    with open(file, "rb") as opened:
        begin = opened.read(HEADER_BYTES)
    return re.split(rb"[\r\n]", begin, maxsplit=1)[0].decode("utf-8-sig") if begin else None


def _csv_sql(delimiter: str, columns: int, *, parallel: bool) -> str:
    struct = ", ".join(f"c{number}: 'VARCHAR'" for number in range(columns))
    sql = CSV_SQL.replace("<delimiter>", delimiter).replace("<columns>", struct)
    return sql.replace("<parallel>", str(parallel).lower())


def _split_header(line: str, wanted: Iterable[str]) -> tuple[str, list[str]]:
    """The delimiter that yields the wanted columns, or else the most columns; and the names of the columns."""
    found: list[tuple[tuple[bool, int], str, list[str]]] = []
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
        merit = {name.lower() for name in wanted} <= {name.lower() for name in names}, len(names)
        found.append((merit, delimiter, names))
    return max(found, key=lambda one: one[0])[1:]  # the first of equal ones


CSV = FileFormat((".csv", ".tsv"), _open_csv)
FORMATS = (
    CSV,
    FileFormat((".jsonl", ".ndjson"), _open_json),
    FileFormat((".parquet", ".pq"), _open_parquet, magic=b"PAR1", is_text=False),
)
"""Every format. A file that none of them claims is CSV."""
UNPACKERS = {".gz": gzip.open}
"""How compressed text is opened, by what its name ends with behind the suffix of its format."""
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.all_suffixes)
