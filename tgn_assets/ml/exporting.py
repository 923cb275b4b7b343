"""Weeks of the warehouse's tables as Parquet files in hive partitions, for tools that read folders."""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import duckdb

EXPORTED = ("weekly_top5_predictions", "new_user_top5_predictions", "eval_metrics")
FILE = "data.parquet"
WEEKS_SQL = " UNION ".join(f"SELECT strftime(week, '%Y-%m-%d') AS week FROM {table}" for table in EXPORTED)


class ExportError(OSError):
    """A folder or database cannot be written to; the message names the setting. The warehouse is not affected."""


def exportable_weeks(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The weeks of which there is something to export, oldest first."""
    return [week for (week,) in con.execute(f"FROM ({WEEKS_SQL}) ORDER BY week").fetchall()]


def export_week(con: duckdb.DuckDBPyConnection, folder: Path, week: str) -> dict[str, int]:
    """Makes `folder`/<table>/week=<week>/data.parquet what the warehouse says of `week`; returns the rows by table.

    The week is in the folder's name, where readers of hive partitions find it, and not in the file. Each file is
    replaced as a whole: a reader finds the old one or the new one. Same rows, same bytes. ExportError if it cannot be
    written.
    """
    return {table: _export(con, folder / table / f"week={week}", table, week) for table in EXPORTED}


def export_weeks(con: duckdb.DuckDBPyConnection, folder: Path, weeks: Sequence[str]) -> dict[str, int]:
    """`export_week` of all `weeks`; the rows by table."""
    rows = dict.fromkeys(EXPORTED, 0)
    for week in weeks:
        for table, count in export_week(con, folder, week).items():
            rows[table] += count
    return rows


def _export(con: duckdb.DuckDBPyConnection, partition: Path, table: str, week: str) -> int:
    fresh = partition / f"{FILE}.new"
    query = f"SELECT * EXCLUDE (week) FROM {table} WHERE week = DATE '{date.fromisoformat(week)}' ORDER BY ALL"
    try:
        partition.mkdir(parents=True, exist_ok=True)
        target = str(fresh).replace("'", "''")
        rows = con.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchall()[0][0]
        os.replace(fresh, partition / FILE)
    except (OSError, duckdb.IOException) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"TGN_EXPORT_PARQUET: {partition} cannot be written ({reason}). The warehouse holds the week all the same; "
            f"once the folder can be written, run `tgn export --week {week}`"
        ) from error
    return rows
