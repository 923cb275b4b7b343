"""What a source looks like to the reader: relations of DuckDB, grouped by shape.

A new kind of source is a `SourceKind` in `reader.kind_of`, a new format of files a `FileFormat` in `formats.FORMATS`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import combinations
from typing import ClassVar, NamedTuple

import duckdb

from tgn_assets.ml.safe_text import listed
from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.row_filter import SETTING, check_filter, filter_columns, renamed, unknown_column
from tgn_assets.ml.sources.spec import WEEK_NUMBER, SourceError, SourceExtent, SourceSpec
from tgn_assets.ml.sources.timestamp_sql import is_number, is_number_text, one_of

WHOLE_NUMBER = r"^(-?[0-9]+)\.0+$"
FRAME = "rows_in_memory"
NESTED = r".*\]$|STRUCT|MAP|UNION|VARIANT|JSON|GEOMETRY"
"""Types whose values are no id."""


@dataclass(frozen=True)
class SourceKind(ABC):
    """A kind of source: what the reader asks of the one at `spec`."""

    spec: SourceSpec

    remedy: ClassVar[str] = "check TGN_ROW_FILTER"
    """What to do where it cannot be read."""
    reads_all: ClassVar[bool] = False
    """Whether a scan reads all rows, whichever weeks it is asked for."""

    def state(self, now: datetime) -> object:
        """A value whose `repr` moves when the source may have changed; no row is read. By default: every hour."""
        return f"{now:%Y-%m-%d %H}"

    @abstractmethod
    def open(
        self, con: duckdb.DuckDBPyConnection, weeks: Sequence[str] | None, summarise: bool = False
    ) -> AbstractContextManager[Opened]:
        """Rows, at least those of `weeks` and without a week (None: all), that `con` can read within the context. To
        `summarise` them, a remembered summary of a file will do. SourceError names a column that is missing.
        """

    def numbers_weeks(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether it has no time, but the number of a week."""
        with self.open(con, ()) as opened:
            return True in opened.kinds_of_time

    def extent(self) -> SourceExtent | None:
        """What it spans, where that is known without a scan."""
        return None

    def span(self, _first: date, _end: date) -> tuple[str, str] | None:
        """The weeks of its smallest and largest time within these days; None if there is none, or only a scan tells."""
        return None

    def other_files(self) -> list[str]:
        """Files beside those that are read."""
        return []

    def same_files(self) -> list[tuple[str, str]]:
        """Pairs of files that are read and have the same bytes."""
        return []

    def is_empty(self) -> bool:
        """Whether it has no row, after a scan that brought none."""
        return self.reads_all


@dataclass(frozen=True)
class Relation:
    """How DuckDB reads rows of one shape."""

    sql: str
    """Of the rows, with the files' names as its parameter $files."""
    header_lines: int | None = None
    """Of a file with a line per row, of which DuckDB may lose some, so that they are counted; None: no such file."""
    readable: str = "true"
    """SQL: whether a row could be made out at all."""
    file: str = "''"
    """SQL of the name of the file that a row is in."""
    unreadable_text: str | None = None
    """SQL of what is recorded of a row that could not; None where there are none."""
    csv: tuple[str, int, int] | None = None
    """Of CSV: the delimiter, the number of columns, and how many of them a record must have at least."""


@dataclass(frozen=True)
class Column:
    """A column as SQL, and the name of its DuckDB type."""

    sql: str
    dtype: str
    repeated: bool = False
    """Whether there is a second one of this name."""
    keeps_empty: bool = False
    """Whether the empty text stands for NULL and is read as it is."""
    of_json: bool = False
    """Whether it is a member of JSON objects, which may be an object or an array itself."""


@dataclass(frozen=True)
class Table:
    """A file or query, its columns by name, and how it is read."""

    name: str
    file: str
    """Where it is read from: not `name` if it had to be copied or unpacked. Of a query: empty."""
    columns: dict[str, Column]
    relation: Relation


@dataclass(frozen=True)
class Part:
    """Files of one shape."""

    relation: Relation
    files: tuple[str, ...]
    user: Column
    event: Column
    time: Column
    numbers_weeks: bool = False
    """Whether `time` is the number of a week."""
    keep: str = "true"
    """SQL on the columns `filtered`: whether a row is to be read at all."""
    filtered: tuple[str, ...] = ()
    """SQL of the columns filter_0, filter_1, ... that `keep` looks at."""

    @property
    def patterns(self) -> list[str]:
        """`files` as DuckDB must be given them."""
        return [pattern(file) for file in self.files]


class RowGroup(NamedTuple):
    """The rows of one week that are valid, or rejected for one reason."""

    rows: int
    reason: str | None
    """None: valid."""
    week: str | None
    first: datetime | None = None
    last: datetime | None = None
    """The smallest and the largest time of valid rows, or of rows of forgotten ids."""
    digest: int | None = None
    """Of valid rows: the sum of their hashes, so that those of several files add up."""
    sample: str | None = None
    """A time that cannot be read, or is of the future, or a line that is no record."""


@dataclass(frozen=True)
class FileSummary:
    """What is known of the rows of a file."""

    numbers_weeks: bool
    groups: list[RowGroup]

    def has_any(self, weeks: Sequence[str]) -> bool:
        """Whether a row is of one of `weeks`, or of none."""
        return any(group.week is None or group.week in weeks for group in self.groups)


@dataclass(frozen=True)
class Opened:
    """A source that can be read."""

    parts: list[Part]
    unread: Mapping[str, FileSummary] = field(default_factory=dict)
    """By key: what is remembered of files that are not among `parts`."""
    keys: Mapping[str, str | None] = field(default_factory=dict)
    """By name of each file that was opened: the key to remember its summary by; None if it could change unnoticed."""
    unended: Sequence[str] = ()
    """CSV files whose last line has no line end: it may be cut, and what it holds may be the half of a value."""

    @property
    def kinds_of_time(self) -> set[bool]:
        """Whether files have the number of a week and no time: one answer, if they can be read together."""
        return {part.numbers_weeks for part in self.parts} | {one.numbers_weeks for one in self.unread.values()}


def parts_of(spec: SourceSpec, tables: Sequence[Table]) -> list[Part]:
    """`tables` by shape, with the columns that `spec` names. SourceError names one that is missing."""
    # One kind of time for all files, or the ones without timestamps would be dated by something else unnoticed.
    named = spec.timestamp_column != WEEK_NUMBER or spec.time_style.format  # by a format it is a time like others
    dated = named and any(spelling(table.columns, spec.timestamp_column) for table in tables)
    weekly = not dated and any(spelling(table.columns, WEEK_NUMBER) for table in tables)
    parts: dict[Part, list[str]] = {}
    time_column = WEEK_NUMBER if weekly else spec.timestamp_column
    for table in tables:
        _refuse_missing(table, spec, time_column)
        user = _id_column(table, spec.user_column, "TGN_USER_COLUMN")
        event = _id_column(table, spec.event_column, "TGN_EVENT_COLUMN")
        time = _column(table, time_column, "TGN_TIMESTAMP_COLUMN")
        columns = {"TGN_USER_COLUMN": user, "TGN_EVENT_COLUMN": event, "TGN_TIMESTAMP_COLUMN": time}
        for (one, column), (other, also) in combinations(columns.items(), 2):
            if column == also:
                raise SourceError(f"{one} and {other} name the same column of {table.name}; set one anew")
        keep = row_filter(spec.row_filter, table.name, table.columns)
        parts.setdefault(Part(table.relation, (), user, event, time, weekly, *keep), []).append(table.file)
    return [replace(shape, files=tuple(filter(None, files))) for shape, files in parts.items()]


def row_filter(condition: str | None, name: str, columns: Mapping[str, Column]) -> tuple[str, tuple[str, ...]]:
    """`Part.keep` and `Part.filtered` for the file `name` with `columns`. SourceError if it lacks one of them."""
    if condition is None:
        return "true", ()
    names, filtered = {}, []
    for number, wanted in enumerate(filter_columns(check_filter(condition))):
        found = spelling(columns, wanted)
        if found is None:
            raise unknown_column(condition, wanted, name, columns)
        _refuse_repeated(name, columns, wanted, SETTING)
        names[wanted] = f"filter_{number}"
        column = columns[found]
        filtered.append(f"NULLIF({column.sql}, '')" if column.keeps_empty else column.sql)
    return f"COALESCE(CAST({renamed(condition, names)} AS BOOLEAN), false)", tuple(filtered)


def pattern(file: str) -> str:
    """`file` as DuckDB must be given it, which would take a bracket in a name for a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", file)


def id_of(text: str) -> str:
    """The id that a person means by `text`, as `id_text` reads it: a whole number has no fraction.

    >>> id_of("17850.0"), id_of("user 1")
    ('17850', 'user 1')
    """
    return re.sub(WHOLE_NUMBER, r"\1", text)


def id_text(column: str, dtype: str, null_values: Sequence[str] = ()) -> str:
    """SQL: the values of the SQL expression `column` of DuckDB type `dtype` as ids; whole numbers without a fraction,
    and NULL for the empty text and `null_values`.

    17850.0 is written where a column of integers has gaps: each value is read by itself, whatever other rows hold.
    """
    text = column if dtype == "VARCHAR" else f"CAST({column} AS VARCHAR)"
    values = ("", *null_values)
    if dtype == "VARCHAR" or dtype.startswith("DECIMAL"):
        whole = f"regexp_replace({text}, '{WHOLE_NUMBER}', '\\1')"
        longest = max(len(value.encode()) for value in values)
        # Most ids are longer than any null value and do not end in 0: that is quickly seen.
        return f"""CASE WHEN strlen({text}) > {longest} AND NOT suffix({text}, '0') THEN {text}
            WHEN contains({text}, '.') THEN CASE WHEN NOT {one_of(whole, values)} THEN {whole} END
            WHEN NOT {one_of(text, values)} THEN {text} END"""
    if dtype in ("FLOAT", "DOUBLE"):  # from 1e16 on, their text has an exponent
        whole = f"CASE WHEN {column} = floor({column}) THEN CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR) END"
        text = f"CASE WHEN NOT isnan({column}) THEN COALESCE({whole}, {text}) END"
    if is_number(dtype) and not any(map(is_number_text, null_values)):
        return text
    return f"CASE WHEN NOT {one_of(text, values)} THEN {text} END"


def _id_column(table: Table, name: str, setting: str) -> Column:
    column = _column(table, name, setting)
    if re.match(NESTED, column.dtype):
        has_members = re.match(r"(STRUCT|JSON OBJECT)(?!.*\]$)", column.dtype)
        member = f", or to a member of it, such as {name}.id" if has_members else ""
        raise SourceError(
            f"the column {name!r} of {table.name} is of type {column.dtype}, and ids are text or numbers: "
            f"set {setting} to another column{member}"
        )
    return column


def _refuse_repeated(file: str, columns: Mapping[str, Column], name: str, setting: str) -> None:
    """SourceError if `name` may mean more than one of the columns."""
    alike = sum(column.lower() == name.lower() for column in columns)
    if columns[name].repeated if name in columns else alike > 1:
        raise SourceError(f"{file}: the column {name!r} is there twice; rename one, or set {setting} to another column")


def _column(table: Table, name: str, setting: str) -> Column:
    _refuse_repeated(table.name, table.columns, name, setting)
    return table.columns[spelling(table.columns, name) or name]


def _refuse_missing(table: Table, spec: SourceSpec, time_column: str) -> None:
    """SourceError that names all columns which the table lacks."""
    wanted = {
        "TGN_USER_COLUMN": spec.user_column,
        "TGN_EVENT_COLUMN": spec.event_column,
        "TGN_TIMESTAMP_COLUMN": time_column,
    }
    lacking = {setting: name for setting, name in wanted.items() if spelling(table.columns, name) is None}
    if not lacking:
        return
    names = " and no ".join(f"column {name!r}" for name in lacking.values())
    also = f" and none named {WEEK_NUMBER!r}" if "TGN_TIMESTAMP_COLUMN" in lacking else ""
    settings, existing = " and ".join(lacking), listed(table.columns)
    each = "one" if len(lacking) == 1 else "some"
    are_values = any(re.match(r"\d{4}-\d\d-\d\d|-?\d+(\.\d+)?$", name) for name in table.columns)
    header = "; its first line is a row, it seems: write the columns' names before it" if are_values else ""
    if table.relation.csv and len(table.columns) == 1:
        header = "; columns may be separated by commas, semicolons, tabs or |"
    raise SourceError(f"{table.name} has no {names}{also}; set {settings} to {each} of its columns: {existing}{header}")


def spelling(columns: Iterable[str], wanted: str) -> str | None:
    """The name of the column `wanted`: spelt exactly so, or else in other case."""
    if wanted in columns:
        return wanted
    return next((name for name in columns if name.lower() == wanted.lower()), None)


class TableSource(SourceKind):
    """The data frame `spec.table`, whose columns are typed."""

    reads_all = True

    @contextmanager
    def open(
        self, con: duckdb.DuckDBPyConnection, _weeks: Sequence[str] | None, _summarise: bool = False
    ) -> Iterator[Opened]:
        """All rows."""
        con.register(FRAME, self.spec.table)
        try:
            described = con.execute(f"DESCRIBE {FRAME}").fetchall()
            columns = {name: Column(quoted(name), dtype) for name, dtype, *_ in described}
            yield Opened(parts_of(self.spec, [Table(self.spec.location, "", columns, Relation(FRAME))]))
        finally:
            con.unregister(FRAME)
