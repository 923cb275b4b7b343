"""A table or SELECT of PostgreSQL as a source: what is asked of the server is what is needed, no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import duckdb

from tgn_assets.ml.connectors.postgres import connected, relation, run
from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.postgres_time import TIMES, Clock, clocks, span_sql, weeks_condition
from tgn_assets.ml.sources.relations import Column, Opened, Part, Relation, SourceKind, Table, parts_of
from tgn_assets.ml.sources.spec import SourceSpec, horizon

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

ROWS = "postgres_rows"

AS_THEY_ARE = {
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "bytea": "BLOB",
}
"""PostgreSQL's types that DuckDB has too; all others come as text."""
# The driver counts from 1970 what the server counts from 2000: infinity, and what is close to it, would come out as
# some other time.
BOUNDED = """CASE WHEN {0} < '0001-01-01' THEN '0001-01-01' WHEN {0} > '9999-12-31' THEN '9999-12-31' ELSE {0} END"""


class PostgresSource(SourceKind):
    """A table or SELECT of PostgreSQL."""

    remedy = "check TGN_SOURCE_QUERY, and that the server let it come to an end"

    @contextmanager
    def open(
        self, con: duckdb.DuckDBPyConnection, weeks: Sequence[str] | None, _summarise: bool = False
    ) -> Iterator[Opened]:
        """The rows of `weeks` and those without a week, if the time's type tells on the server; else, and for None,
        all. They can be read once.
        """
        with _opened(self.spec) as query, query.connection.cursor() as cursor:
            cursor.execute(query.select(weeks))
            con.register(ROWS, cursor.fetch_record_batch())
            try:
                yield Opened([query.part])
            finally:
                con.unregister(ROWS)

    def span(self, first: date, end: date) -> tuple[str, str] | None:
        """What the server says; None for times that are text."""
        with _opened(self.spec) as query:
            found = [query.span(way, first, end) for way in query.ways]
            weeks = [way.week(value) for way, pair in zip(query.ways, found, strict=True) for value in pair if pair[0]]
        return (min(weeks), max(weeks)) if weeks else None

    def numbers_weeks(self, _con: duckdb.DuckDBPyConnection) -> bool:
        """No row is read for it."""
        with _opened(self.spec) as query:
            return query.part.numbers_weeks

    def is_empty(self) -> bool:
        """Whether the table or SELECT has no row, of any week."""
        with _opened(self.spec) as query:
            return not run(query.connection, f"SELECT EXISTS (SELECT 1 FROM {query.source})")[0][0]


@dataclass(frozen=True)
class _Query:
    connection: Connection
    source: str
    part: Part
    names: list[str]
    """Of the columns that `part` looks at."""
    types: dict[str, str]
    time: str
    ways: list[Clock]

    def select(self, weeks: Sequence[str] | None) -> str:
        columns = ", ".join(f"{_sent(name, self.types[name])} AS {quoted(name)}" for name in self.names)
        sql = f"SELECT {columns} FROM {self.source}"
        if weeks is None or not self.ways:
            return sql
        where = weeks_condition(quoted(self.time), self.types[self.time], self.ways, weeks, horizon().date())
        return f"{sql} WHERE {where}"

    def span(self, way: Clock, first: date, end: date) -> tuple[Any, Any]:
        sql = span_sql(quoted(self.time), self.types[self.time], way, first, end)
        return run(self.connection, f"SELECT {sql.replace('{source}', self.source)}")[0]


@contextmanager
def _opened(spec: SourceSpec) -> Iterator[_Query]:
    source = relation(spec.query or "")
    with connected(spec.location) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        schema = cursor.adbc_execute_schema(f"SELECT * FROM {source}")
        kinds = {field.name: _kind(field.metadata or {}) for field in schema}
        types = {name: dtype for name, (dtype, _) in kinds.items()}
        columns = {name: _received(name, *kind) for name, kind in kinds.items()}
        (part,) = parts_of(spec, [Table(f"TGN_SOURCE_QUERY={spec.query}", "", columns, Relation(ROWS))])
        used = {part.user.sql, part.event.sql, part.time.sql, *part.filtered}
        time = next(name for name, column in columns.items() if column == part.time)
        ways = clocks(types[time], spec.week_number_anchor, spec.time_style, numbers_weeks=part.numbers_weeks)
        names = [name for name, column in columns.items() if column.sql in used]
        yield _Query(connection, source, part, names, types, time, ways)


def _kind(metadata: Mapping[bytes, bytes]) -> tuple[str, int]:
    """What the driver says of a column: the name of its type, and the type's modifier (-1: none)."""
    return metadata.get(b"POSTGRESQL:type", b"").decode(), int(metadata.get(b"POSTGRESQL:typmod", b"-1"))


def _sent(name: str, dtype: str) -> str:
    """SQL of PostgreSQL: the column as it goes over the wire."""
    column = quoted(name)
    if dtype in TIMES:
        return BOUNDED.format(column)
    return column if dtype in AS_THEY_ARE else f"{column}::text"


def _received(name: str, dtype: str, modifier: int) -> Column:
    """SQL of DuckDB: the column as it came over the wire."""
    column = quoted(name)
    if dtype == "numeric" and modifier >= 0:
        digits, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
        if scale <= digits <= 38:
            return Column(f"TRY_CAST({column} AS DECIMAL({digits},{scale}))", f"DECIMAL({digits},{scale})")
    if dtype in ("json", "jsonb") or dtype.startswith("_"):  # an array
        return Column(column, "JSON" if dtype.startswith("json") else f"{dtype[1:]}[]")
    return Column(column, AS_THEY_ARE.get(dtype, "VARCHAR"))
