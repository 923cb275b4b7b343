"""Weeks of the warehouse's tables as tables of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import duckdb

from tgn_assets.ml.connectors.postgres import PostgresError, connected_in_schema, require_driver, run
from tgn_assets.ml.export.parquet import EXPORTED, ExportError
from tgn_assets.ml.schema import TABLES, VIEWS, Column

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_manager.dbapi import Connection

TYPES = {"VARCHAR": "text", "DOUBLE": "double precision"}
"""Where PostgreSQL's name of a type is another one."""

KEYS = {
    "weekly_top5_predictions": ("week", "user_id", "rank"),
    "new_user_top5_predictions": ("week", "rank"),
    "eval_metrics": ("week", "model", "segment", "metric"),
}
"""The primary key of each exported table: a week's rows are found without reading the others."""
VIEW = "current_top5"

TABLE_SQL = """
    SELECT relkind = 'r' AND pg_has_role(relowner, 'USAGE')
           AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
    FROM pg_class WHERE oid = to_regclass('{table}')
"""
"""No row for a table that is missing; otherwise whether it is ours and without a primary key."""
TWICE_SQL = "SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1 LIMIT 1"
COLUMNS_SQL = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('{table}') AND attnum > 0"
NO_VIEW_SQL = f"SELECT to_regclass('{VIEW}') IS NULL AND has_schema_privilege(current_schema(), 'CREATE')"
"""Whether the view is missing and we may make it."""
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

    A reader finds either the old week or the new one, in all tables. What is missing is made, in the schema that
    `schema=` in the URL names, or else in the user's own: the tables, their primary keys and columns of later
    releases, and the view `current_top5`.
    ExportError if PostgreSQL refuses: then nothing changes.
    """
    with _export_errors(week), connected_in_schema(url) as con:
        run(con, LOCK_SQL)
        for name, rows in tables.items():
            _make_table(con, name)
            _add_columns(con, name)
            run(con, f"DELETE FROM {name} WHERE week = '{date.fromisoformat(week)}'")
            with con.cursor() as cursor:
                cursor.adbc_ingest(name, rows, mode="append")
        if run(con, NO_VIEW_SQL)[0][0]:
            run(con, f"CREATE VIEW {VIEW} AS {VIEWS[VIEW].query}")
        con.commit()
    return {name: rows.num_rows for name, rows in tables.items()}


def _make_table(con: Connection, name: str) -> None:
    """Makes the table if it is missing, and its primary key if it is ours and has none: older releases made none.

    PostgresError if the table has two rows of one key.
    """
    key, found = ", ".join(KEYS[name]), run(con, TABLE_SQL.format(table=name))
    if not found:
        columns = ", ".join(_translated(column).ddl for column in TABLES[name].columns)
        run(con, f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({key}))")
    elif found[0][0]:
        if twice := run(con, TWICE_SQL.format(key=key, table=name)):
            raise PostgresError(
                f"the table {name}, which has no primary key yet, has several rows of ({key}) = "
                f"({', '.join(map(str, twice[0]))})",
                "drop this table, and run `tgn export` to write all weeks again",
            )
        run(con, f"ALTER TABLE {name} ADD PRIMARY KEY ({key})")


def _add_columns(con: Connection, name: str) -> None:
    """Adds the columns that a table of an older release lacks."""
    there = {column for (column,) in run(con, COLUMNS_SQL.format(table=name))}
    for column in TABLES[name].columns:
        if column.added and column.name not in there:
            run(con, f"ALTER TABLE {name} ADD COLUMN {_translated(column).ddl}")


def _translated(column: Column) -> Column:
    return replace(column, type=TYPES.get(column.type, column.type.lower()))


@contextmanager
def _export_errors(week: str) -> Iterator[None]:
    try:
        yield
    except PostgresError as error:
        raise ExportError(
            f"TGN_EXPORT_POSTGRES cannot be written to ({error}); {error.remedy}. The warehouse holds the week all the "
            f"same; then run `tgn export --week {week}`"
        ) from error
