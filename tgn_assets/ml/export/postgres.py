"""Weeks of the warehouse's tables as tables of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import duckdb

from tgn_assets.ml.connectors.postgres import PostgresError, connected, require_driver, split_schema
from tgn_assets.ml.export.parquet import EXPORTED, ExportError
from tgn_assets.ml.schema import TABLES, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_manager.dbapi import Connection

TYPES = {"VARCHAR": "text", "DOUBLE": "double precision"}
"""Where PostgreSQL's name of a type is another one."""

LOCK_SQL = "SELECT pg_advisory_xact_lock(hashtext('tgn_assets'))"
"""Two that replace the same week at once would each leave the rows of the other."""


def read_week(con: duckdb.DuckDBPyConnection, week: str) -> dict[str, pa.Table]:
    """What the warehouse `con` says of `week`, by table. ExportError if what it takes is not installed."""
    with _export_errors(week):
        require_driver()
    where = f"week = DATE '{date.fromisoformat(week)}'"
    return {table: con.sql(f"FROM {table} WHERE {where} ORDER BY ALL").to_arrow_table() for table in EXPORTED}


def replace_week(url: str, week: str, tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """Makes `tables` the rows of `week` in the database at `url`, in one transaction; returns how many there are.

    A reader finds either the old week or the new one, in all tables. A missing table is made, in the schema that
    `schema=` in the URL names, or else in the user's own. ExportError if PostgreSQL refuses: then nothing changes.
    """
    place, schema = split_schema(url)
    with _export_errors(week), connected(place) as con:
        if schema:
            _run(con, f"SET LOCAL search_path TO {quoted(schema)}")
        _run(con, LOCK_SQL)
        for name, rows in tables.items():
            if not _run(con, f"SELECT to_regclass('{name}') IS NOT NULL")[0][0]:
                _run(con, f"CREATE TABLE {name} ({_columns(name)})")
                _run(con, f"CREATE INDEX {name}_week ON {name} (week)")
            _run(con, f"DELETE FROM {name} WHERE week = '{date.fromisoformat(week)}'")
            with con.cursor() as cursor:
                cursor.adbc_ingest(name, rows, mode="append")
        con.commit()
    return {name: rows.num_rows for name, rows in tables.items()}


def total(weeks: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The rows of all `weeks`, by table."""
    return {table: sum(rows[table] for rows in weeks) for table in EXPORTED}


def _columns(table: str) -> str:
    translated = (replace(column, type=TYPES.get(column.type, column.type.lower())) for column in TABLES[table].columns)
    return ", ".join(column.ddl for column in translated)


def _run(con: Connection, sql: str) -> list[tuple]:
    """The rows of a query: unless they are fetched, its error would go unseen."""
    with con.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def _export_errors(week: str) -> Iterator[None]:
    try:
        yield
    except PostgresError as error:
        raise ExportError(
            f"TGN_EXPORT_POSTGRES cannot be written to ({error}); {error.remedy}. The warehouse holds the week all the "
            f"same; then run `tgn export --week {week}`"
        ) from error
