"""The formats of files: a new one is a function here and its entry in `FORMATS`."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import shutil
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb

from tgn_assets.ml.schema import literal, quoted
from tgn_assets.ml.sources.csv_repair import (
    LINE_SHOWN,
    LONGEST_RECORD,
    UnreadableLines,
    count_lines,
    is_utf8,
    split_lines,
    split_records,
)
from tgn_assets.ml.sources.relations import Column, Part, Relation, Table, pattern, spelling
from tgn_assets.ml.sources.row_filter import check_filter, filter_columns
from tgn_assets.ml.sources.spec import WEEK_NUMBER, SourceError, SourceSpec

DELIMITERS = ",\t;|"
HEADER_BYTES, EDGE_BYTES = 1 << 20, 1000
HEADER_LENGTH = 100_000
"""Characters of the names of a file's columns: ten thousand columns are read in seconds, many more are not."""
COUNTED, STORED = "ignore_errors = true", "store_rejects = true, rejects_limit = 0"
"""What becomes of lines that DuckDB rejects: their number is missed, or each is kept in memory (1 kB)."""
LINE_LIMIT = f"max_line_size = {LONGEST_RECORD}"
NO_FOLDERS = "hive_partitioning = false"
"""Or a folder c0=x/ would take the place of the first column."""
# As text, so that a line which is no JSON can be recorded as it is. Valid JSON has no raw control character.
FILE_NAME = "tgn_source_file"
LINES_SQL = f"""(FROM read_csv($files, auto_detect = false, header = false, delim = chr(31), quote = '', escape = '',
               {COUNTED}, {LINE_LIMIT}, columns = {{line: 'VARCHAR'}}, {NO_FOLDERS}, filename = '{FILE_NAME}')
               WHERE line <> '')"""
IS_OBJECT_SQL = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"
FIRST_LINES = 1000
"""Lines of a JSON file in which a column must turn up: an object may leave out a key, but hardly so many do."""
ARRAY_SQL = f"""(SELECT CAST(json AS VARCHAR) AS line, {FILE_NAME}
                FROM read_json_objects($files, format = 'array', {NO_FOLDERS}, filename = '{FILE_NAME}'))"""
JSON_LINES = Relation(LINES_SQL, 0, IS_OBJECT_SQL, FILE_NAME, f"left(line, {LINE_SHOWN})")
JSON_ARRAY = replace(JSON_LINES, sql=ARRAY_SQL, header_lines=None)
PARQUET_SQL = f"read_parquet($files, {NO_FOLDERS}, filename = '{FILE_NAME}')"
JSON_BEGIN = rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*["}]'
GZIP, GZIPPED, PACKED = ".gz", b"\x1f\x8b", (".zst", ".zip", ".bz2", ".xz")
"""Endings of compressed text: of what is read, and of what is found, and refused."""
FOREIGN = {
    rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]": (
        "text in UTF-32",
        "write it in UTF-8: iconv -f UTF-32 -t UTF-8",
    ),
    rb"\xff\xfe|\xfe\xff|[^\0]\0|\0[^\0]": ("text in UTF-16", "write it in UTF-8: iconv -f UTF-16 -t UTF-8"),
    rb"PK\x03\x04": ("a ZIP archive or a workbook", "unpack it, or save its sheet as CSV"),
    rb"\xd0\xcf\x11\xe0": ("a workbook", "save its sheet as CSV"),
    rb"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it with zstd -d, or compress it with gzip"),
    rb"\x1f\x8b": (
        "compressed by gzip",
        "give it a name that ends in .csv.gz or .jsonl.gz, or unpack it if it is an archive (.tgz)",
    ),
    rb"BZh[1-9]1AY": ("compressed by bzip2", "unpack it with bunzip2, or compress it with gzip"),
    rb"\xfd7zXZ": ("compressed by xz", "unpack it with unxz, or compress it with gzip"),
    rb"PAR1": ("Parquet by its content", "give it a name that ends in .parquet"),
    rb"[\s\S]{8}DUCK": ("a database of DuckDB", "write its table as Parquet"),
    rb"SQLite format 3": ("a database of SQLite", "write its table as CSV"),
    rb"(?:\xef\xbb\xbf)?\s*<(?i:!doctype html|html)": (
        "a web page",
        "look at it in a browser: it may be a login, or say what is wrong",
    ),
    rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|[^<>,;|\t\r\n]+>\s*<[^,;|\t])": ("XML", "write it as CSV or JSON lines"),
    rb"%PDF-|\{\\rtf": ("a document", "save its table as CSV"),
    rb"[\s\S]{257}ustar|7z\xbc\xaf|Rar!\x1a": ("an archive", "unpack it"),
    rb"ARROW1|ORC[^ -~\s]|Obj\x01": ("Arrow, ORC or Avro", "write it as Parquet"),
    rb"\x89HDF|FEA1|\x93NUMPY|RD[AX][23]\n|\x80[\x02-\x05]|[^\0\r\n]{0,999}\0": (
        "no text, but of a format for programs",
        "write its table as CSV, JSON lines or Parquet",
    ),
}
"""What files of formats that are not read begin with: what that is, and what to do."""


@dataclass(frozen=True)
class FileFormat:
    """A format of files: how to tell that a file is of it, and how to read it."""

    suffixes: tuple[str, ...]
    open: Callable[[duckdb.DuckDBPyConnection, SourceSpec, str, str], Table | None]
    """(connection, source, name, file) -> how to read the file, which users know by its name; None if it is empty."""
    magic: bytes = b"(?!)"
    """A pattern of what a file begins with, where that tells the format of one whose name tells none."""
    is_text: bool = True
    """Whether files may be compressed, and named so."""

    @property
    def all_suffixes(self) -> tuple[str, ...]:
        """What names of its files end with, those of compressed ones included."""
        more = ("", GZIP, *PACKED) if self.is_text else ("",)
        return tuple(suffix + end for end in more for suffix in self.suffixes)


def open_file(con: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str, folder: Path) -> Table | None:
    """How to read the `file` of this machine, which users know as `name`; None if there is not a line in it.

    Compressed text is unpacked into `folder`. SourceError if there is no header or the like.
    """
    known = format_of(name, file)
    if known.is_text and _plain(name).endswith(GZIP):
        copy = folder / hashlib.sha256(file.encode()).hexdigest()
        with open(file, "rb") as packed, copy.open("wb") as out:
            # Of a web server it may come unpacked, whatever it is called. DuckDB would go by the name.
            is_packed = packed.peek(2)[:2] in (GZIPPED, b"")
            shutil.copyfileobj(gzip.GzipFile(fileobj=packed) if is_packed else packed, out)
        file = str(copy)
    check_format(f"TGN_SOURCE: {name}", file, known)
    return known.open(con, spec, name, file)


def check_format(where: str, file: str, known: FileFormat) -> None:
    """SourceError, which begins with `where`, if the file is not of the binary format `known` but of one that is not
    read, or its text is not in UTF-8."""
    with open(file, "rb") as opened:
        begin = opened.read(HEADER_BYTES)
    if not known.is_text and re.match(known.magic, begin):
        return
    for magic, (what, remedy) in FOREIGN.items():
        if re.match(magic, begin):
            raise SourceError(f"{where} is {what}, which is not read: {remedy}")
    lines = begin.splitlines() if known.is_text and not is_utf8(begin) else []
    whole = lines[:-1] if len(begin) == HEADER_BYTES else lines
    faults = [number for number, line in enumerate(whole) if not is_utf8(line)]
    # A few damaged lines among many are rejected, each by itself.
    if faults and (faults[0] == 0 or len(faults) * 100 >= len(lines)):
        raise SourceError(
            f"{where} is not text in UTF-8 (line {faults[0] + 1}); if it is Latin-1 or Windows-1252, "
            "write it in UTF-8: iconv -f WINDOWS-1252 -t UTF-8"
        )


def table_of_file(where: str, file: str, wanted: Iterable[str]) -> tuple[str, bool]:
    """SQL of the rows of a CSV or Parquet file beside the log, and whether its columns, `wanted` ones among them, have
    types. What a row of text lacks at its end is NULL. SourceError, which begins with `where`, if it is neither.
    """
    known = format_of(file, file)
    packed = known.is_text and file.lower().endswith(GZIP)
    if not packed:
        check_format(where, file, known)
    if not known.is_text:
        return f"read_parquet({literal(pattern(file))}, {NO_FOLDERS})", True
    with gzip.open(file) if packed else open(file, "rb") as opened:
        header = re.split(rb"[\r\n]", opened.read(HEADER_BYTES), maxsplit=1)[0].decode("utf-8-sig")
    if not header or len(header) > HEADER_LENGTH:
        raise SourceError(
            f"{where}: its first line has the names of the columns, of {HEADER_LENGTH:,} characters at most"
        )
    delimiter, names = _split_header(header, wanted)
    names = [name or f"column{place}" for place, name in enumerate(names)]
    in_lower_case = [name.lower() for name in names]
    if twice := [name for name in names if in_lower_case.count(name.lower()) > 1]:
        raise SourceError(f"{where} has the column {twice[0]} twice; rename one")
    struct = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    # Nothing is sniffed: a short or a long row would change what the columns are.
    return (
        f"""read_csv({literal(pattern(file))}, auto_detect = false, header = true, delim = '{delimiter}', quote = '"',
        escape = '"', strict_mode = true, null_padding = true, parallel = false, {NO_FOLDERS},
        {LINE_LIMIT}, columns = {{{struct}}})""",
        False,
    )


def expected_rows(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> int | None:
    """Rows and unreadable lines, more than come if values span lines; None where no file has a line per row."""
    if all(part.relation.header_lines is None for part in parts):
        return None
    return sum(
        _count_rows(con, part.relation, part.files)
        if (header := part.relation.header_lines) is None
        else sum(count_lines(Path(file)) - header for file in part.files)
        for part in parts
    )


def _count_rows(con: duckdb.DuckDBPyConnection, relation: Relation, files: Sequence[str]) -> int:
    query = f"SELECT count(*) FROM {relation.sql}"
    return con.execute(query, {"files": [pattern(file) for file in files]}).fetchall()[0][0]


def well_formed(parts: Iterable[Part], folder: Path) -> tuple[list[Part], UnreadableLines]:
    """`parts` with copies, in `folder`, of the well-formed records of all text; and the lines that belong to none."""
    safe, bad = list[Part](), UnreadableLines()
    for part in parts:
        if part.relation.header_lines is not None:
            shape = part.relation.csv
            copies = [folder / f"{len(safe)}-{number}.csv" for number in range(len(part.files))]
            for file, copy in zip(part.files, copies, strict=True):
                lines = split_records(Path(file), copy, *shape) if shape else split_lines(Path(file), copy)
                lines.by_file[str(copy)] = lines.count
                bad.extend(lines)
            sql = _csv_sql(*shape, parallel=False) if shape else part.relation.sql.replace(COUNTED, STORED)
            part = replace(part, relation=replace(part.relation, sql=sql), files=tuple(map(str, copies)))
        safe.append(part)
    return safe, bad


def format_of(name: str, file: str) -> FileFormat:
    """The format of a file, by its `name`, or else by how its copy `file` begins; OSError if that cannot be opened."""
    if found := [known for known in FORMATS if _plain(name).endswith(known.all_suffixes)]:
        return found[0]
    with open(file, "rb") as opened:
        begin = opened.read(EDGE_BYTES)
    return next((known for known in FORMATS if re.match(known.magic, begin)), CSV)


def _plain(name: str) -> str:
    """`name` in lower case, without the query of a URL."""
    name = name.lower()
    return name.split("?")[0] if name.startswith(("http://", "https://")) else name


def _open_parquet(con: duckdb.DuckDBPyConnection, _: SourceSpec, name: str, file: str) -> Table:
    described = con.read_parquet(pattern(file), hive_partitioning=False)
    found = list(zip(described.columns, described.types, strict=True))
    # DuckDB calls the second of two columns user, or of User and user, user_1.
    names = {column.lower() for column in described.columns}
    twice = _repeated(con, file) if any(f"{name}_1" in names for name in names) else set[str]()
    columns = {column: Column(quoted(column), str(dtype), repeated=column.lower() in twice) for column, dtype in found}
    for column, dtype in found:
        columns = _members(column, quoted(column), dtype) | columns
    # Columns that are in the names of folders alone, as text: DuckDB's guess of their type depends on other folders.
    for column in re.findall("(?<=/)[^/=]+(?==[^/]*/)", file):
        value = f"url_decode(regexp_extract({FILE_NAME}, {literal(f'/{re.escape(column)}=([^/]*)/')}, 1))"
        columns.setdefault(column, Column(f"NULLIF({value}, '__HIVE_DEFAULT_PARTITION__')", "VARCHAR"))
    return Table(name, file, columns, Relation(PARQUET_SQL, file=FILE_NAME))


def _repeated(con: duckdb.DuckDBPyConnection, file: str) -> set[str]:
    """The names, in lower case, that several columns of a Parquet file have."""
    names, below = list[str](), 0
    query = "SELECT lower(name), coalesce(num_children, 0) FROM parquet_schema($file)"
    for name, children in con.execute(query, {"file": pattern(file)}).fetchall()[1:]:  # the first one is the whole
        names += [] if below else [name]
        below += children - (below > 0)
    return {name for name in names if names.count(name) > 1}


def _members(name: str, sql: str, dtype: Any) -> dict[str, Column]:
    """The members of a STRUCT, and theirs, under names such as user.id."""
    columns: dict[str, Column] = {}
    for member, kind in dtype.children if dtype.id == "struct" else ():
        inner = f"{name}.{member}", f"struct_extract({sql}, {literal(member)})"
        columns |= {inner[0]: Column(inner[1], str(kind)), **_members(*inner, kind)}
    return columns


def _open_csv(_: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str) -> Table | None:
    with open(file, "rb") as opened:
        begin = opened.read(HEADER_BYTES)
    if not begin:
        return None
    header = re.split(rb"[\r\n]", begin, maxsplit=1)[0].decode("utf-8-sig")
    rule = "a CSV file in TGN_SOURCE begins with its columns' names"
    if re.match(JSON_BEGIN, begin):
        raise SourceError(f"TGN_SOURCE: {name} is JSON by its content: give it a name that ends in .jsonl")
    if not header:
        raise SourceError(f"the first line of {name} is empty; {rule}")
    if len(header) > HEADER_LENGTH:
        length = f"{len(header):,} characters; {rule}, which may have {HEADER_LENGTH:,} together"
        raise SourceError(f"the first line of {name} has {length}")
    delimiter, names = _split_header(header, (spec.user_column, spec.event_column))
    places = {column: names.index(column) for column in names}
    has_ids = all(spelling(places, wanted) for wanted in (spec.user_column, spec.event_column))
    if re.match('"?sep=.?"?$|#', header) and not has_ids:
        raise SourceError(f"the first line of {name} is {header[:40]!r}; {rule}: remove what comes before them")
    wanted = _wanted_places(places, spec)
    shape = delimiter, len(names), max(wanted, default=-1) + 1
    short = 0 < shape[2] < len(names)
    readable = f"c{shape[2] - 1} IS NOT NULL" if short else "true"
    relation = Relation(_csv_sql(*shape, parallel=True), 1, readable, FILE_NAME, csv=shape)
    columns = {
        column: Column(f"c{place}", "VARCHAR", repeated=names.count(column) > 1, keeps_empty=short)
        for column, place in places.items()
    }
    return Table(name, file, columns, relation)


def _wanted_places(places: Mapping[str, int], spec: SourceSpec) -> list[int]:
    """Where in a line of CSV the columns are that are read, in order."""
    time = spec.timestamp_column if spelling(places, spec.timestamp_column) else WEEK_NUMBER
    wanted = [spec.user_column, spec.event_column, time]
    wanted += filter_columns(check_filter(spec.row_filter)) if spec.row_filter else ()
    return sorted({places[found] for column in wanted if (found := spelling(places, column))})


def _open_json(
    con: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str, relation: Relation
) -> Table | None:
    def ask(sql: str) -> list[tuple]:
        lines = f"(FROM {relation.sql} LIMIT {FIRST_LINES}) WHERE {IS_OBJECT_SQL}"
        return con.execute(f"SELECT DISTINCT {sql} FROM {lines}", {"files": [pattern(file)]}).fetchall()

    of_lines = [keys for (keys,) in ask("json_keys(line)")]
    paths = {key: _path(key) for key in sorted(set(chain(*of_lines)))}
    if not paths:
        if not (_count_rows(con, relation, [file]) if relation.header_lines is None else count_lines(Path(file))):
            return None
        fault = f"none of the first {FIRST_LINES} lines of {name} is a JSON object"
        raise SourceError(f"{fault}; TGN_SOURCE takes one a line, or a file that is one array of them")
    for wanted in (spec.user_column, spec.event_column, spec.timestamp_column):
        *parent, member = wanted.split(".")
        if parent and not spelling(paths, wanted) and (member,) in ask(f"unnest(json_keys(line, {_path(*parent)}))"):
            paths[wanted] = _path(*parent, member)
    twice = {
        key for keys in of_lines if len(keys) > len(set(keys)) for key, count in Counter(keys).items() if count > 1
    }
    columns = {
        key: Column(f"CASE WHEN readable THEN line ->> {path} END", "VARCHAR", repeated=key in twice, of_json=True)
        for key, path in paths.items()
    }
    for key in filter(None, (spelling(paths, wanted) for wanted in (spec.user_column, spec.event_column))):
        types = {dtype for (dtype,) in ask(f"json_type(line, {paths[key]})")} - {None, "NULL"}
        if types and types <= {"OBJECT", "ARRAY"}:
            columns[key] = replace(columns[key], dtype=f"JSON {max(types)}")
    return Table(name, file, columns, relation)


def _open_json_text(con: duckdb.DuckDBPyConnection, spec: SourceSpec, name: str, file: str) -> Table | None:
    """One array of objects, or an object on each line."""
    with open(file, "rb") as opened:
        # A line may be an array as well, which is no row.
        is_array = re.match(rb"\s*\[\s*[{\]]", opened.read(HEADER_BYTES).removeprefix(BOM_UTF8))
    return _open_json(con, spec, name, file, JSON_ARRAY if is_array else JSON_LINES)


def _path(*names: str) -> str:
    """The path of a member of a JSON object, or of a member of that, as an SQL text."""
    escaped = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return literal("$" + "".join(f'."{name}"' for name in escaped))


def _csv_sql(delimiter: str, columns: int, least: int, *, parallel: bool) -> str:
    struct = ", ".join(f"c{number}: 'VARCHAR'" for number in range(columns))
    # Columns that a line lacks at its end are NULL, and no others.
    short = ", null_padding = true, nullstr = chr(1)" if least < columns else ""
    # Nothing is sniffed: how a line is read must not depend on rows of later weeks. Strict, since DuckDB otherwise
    # drops a line's surplus columns, or the character after a stray carriage return, without a word.
    return f"""read_csv($files, auto_detect = false, header = true, delim = '{delimiter}', quote = '"', escape = '"',
        strict_mode = true, {COUNTED if parallel else STORED}, parallel = {str(parallel).lower()},
        {LINE_LIMIT}, columns = {{{struct}}}, {NO_FOLDERS}, filename = '{FILE_NAME}'{short})"""


def _split_header(line: str, wanted: Iterable[str]) -> tuple[str, list[str]]:
    """The delimiter that yields the wanted columns, or else the most columns; and the names of the columns."""
    splits = {mark: next(csv.reader([line], delimiter=mark, skipinitialspace=True)) for mark in DELIMITERS}
    found = [(mark, [name.strip() for name in names]) for mark, names in splits.items()]
    needed = {name.lower() for name in wanted}
    # The first of equal ones.
    return max(found, key=lambda one: (needed <= {name.lower() for name in one[1]}, len(one[1])))


CSV = FileFormat((".csv", ".tsv"), _open_csv)
FORMATS = (
    CSV,
    FileFormat((".jsonl", ".ndjson", ".json"), _open_json_text, magic=JSON_BEGIN),
    FileFormat((".parquet", ".pq"), _open_parquet, magic=rb"PAR1", is_text=False),
)
"""Every format. A file that none of them claims is CSV."""
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.all_suffixes)
READABLE = ", ".join(suffix for suffix in SUFFIXES if not suffix.endswith(PACKED))
