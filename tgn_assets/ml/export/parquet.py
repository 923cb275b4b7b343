"""Weeks of the warehouse's tables as Parquet files in hive partitions, in a folder or an object store."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from tgn_assets.ml.connectors.object_store import is_url, put
from tgn_assets.ml.safe_text import SafeError, first_line, safe_error
from tgn_assets.ml.schema import LISTS, literal

EXPORTED = (*LISTS, "eval_metrics")
FILE = "data.parquet"
WEEKS_SQL = " UNION ".join(f"SELECT strftime(week, '%Y-%m-%d') AS week FROM {table}" for table in EXPORTED)


class ExportError(SafeError, OSError):
    """What is exported cannot be written; the message names the setting. What the warehouse holds is not affected."""


def exportable_weeks(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The weeks of which there is something to export, oldest first."""
    return [week for (week,) in con.execute(f"FROM ({WEEKS_SQL}) ORDER BY week").fetchall()]


def export_week(con: duckdb.DuckDBPyConnection, location: str, week: str) -> dict[str, int]:
    """Makes `location`/<table>/week=<week>/data.parquet what the warehouse says of `week`; returns the rows by table.

    `location` is a folder, or the URL of an object store and a prefix in it. The week is in the folder's name, where
    readers of hive partitions find it, and not in the file. Each file is replaced as a whole: a reader finds the old
    one or the new one. Same rows, same bytes. ExportError if it cannot be written.
    """
    return {table: _export(con, f"{location}/{table}/week={week}", table, week) for table in EXPORTED}


def _export(con: duckdb.DuckDBPyConnection, partition: str, table: str, week: str) -> int:
    query = f"SELECT * EXCLUDE (week) FROM {table} WHERE week = DATE '{date.fromisoformat(week)}' ORDER BY ALL"
    try:
        return write_parquet(con, query, f"{partition}/{FILE}")
    except (OSError, duckdb.IOException) as error:
        raise ExportError(
            f"TGN_EXPORT_PARQUET: {partition} cannot be written ({first_line(error)}). The warehouse holds the week "
            f"all the same; once it can be written, run `tgn export --week {week}`"
        ) from safe_error(error)


def write_parquet(con: duckdb.DuckDBPyConnection, query: str, place: str) -> int:
    """Makes the file or object `place` what `query` finds, as a whole; returns the number of rows."""
    if is_url(place):
        with TemporaryDirectory(prefix="tgn-export-") as folder:
            rows = write_parquet(con, query, f"{folder}/{FILE}")
            put(Path(folder) / FILE, place)
        return rows
    fresh = Path(f"{place}.new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    copy = f"COPY ({query}) TO {literal(str(fresh))} (FORMAT parquet, COMPRESSION zstd)"
    ((rows,),) = con.execute(copy).fetchall()
    os.replace(fresh, place)
    return rows
