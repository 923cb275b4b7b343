"""Takes ids out of what was exported: Parquet in a folder or an object store, tables of PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import duckdb

from tgn_assets.forget.spelling import Ids
from tgn_assets.forget.tables import WITHOUT_IDS
from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.connectors.object_store import fetch, is_url, stored_files
from tgn_assets.ml.connectors.postgres import PostgresError, connected_in_schema, run
from tgn_assets.ml.export.parquet import EXPORTED, write_parquet
from tgn_assets.ml.safe_text import SafeError, first_line, safe_error, safe_text
from tgn_assets.ml.schema import EVENT, LISTS, TABLES
from tgn_assets.ml.sources.relations import pattern
from tgn_assets.state.lineage import SETTINGS, UPSTREAM, Lineage, location_digest

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection
READ_SQL = "FROM read_parquet(?, hive_partitioning = false)"
"""The week is in the folder's name, and no column."""


class CleanError(SafeError, OSError):
    """An export that cannot be cleaned; the message says what to do."""


def clean_export(name: str, location: str, kind: str, ids: Ids) -> int:
    """Takes the `ids` out of the `location` of exports of the kind `name`; returns how many rows or texts they were in.

    CleanError if that cannot be done; then it is as it was, or up to some file.
    """
    return CLEANED[name](location, kind, ids)


def unset_locations(lineage: Lineage, locations: Mapping[str, str]) -> list[str]:
    """The settings that named another location than now, `locations`, when weeks were exported: which, is not known."""
    known = set(map(location_digest, locations.values()))
    exports = {asset for (asset, _), made in lineage.made.items() if made.made_from.get(SETTINGS, "") not in known}
    return sorted(f"TGN_EXPORT_{asset.removesuffix('_export').upper()}" for asset in exports - UPSTREAM.keys())


def text_columns(table: str) -> list[str]:
    """The columns of text of an exported table that may name an id."""
    columns = TABLES[table].columns
    return [one.name for one in columns if one.type == "VARCHAR" and one.name not in WITHOUT_IDS.get(table, ())]


@contextmanager
def exported_files(location: str) -> Iterator[list[tuple[str, Path]]]:
    """(name, file) of each Parquet file of an export at `location`; those of an object store are copied for a while."""
    if not is_url(location):
        folders = (Path(location) / table for table in EXPORTED)
        files = (path for folder in folders for path in sorted(_files_below(folder)) if ".parquet" in path.name)
        yield [(str(path), path) for path in files]
        return
    with TemporaryDirectory(prefix="tgn-export-") as folder:
        below = f"{location.rstrip('/')}/"
        found = [
            file
            for file in stored_files(location, (".parquet",))
            if any(f"/{table}/week=" in file.url or file.url.startswith(f"{below}{table}/") for table in EXPORTED)
        ]
        yield [(file.url, copy) for file, copy in zip(found, fetch(found, Path(folder)), strict=True)]


def _files_below(folder: Path) -> Iterator[Path]:
    """The files below `folder`; OSError for a folder that may not be read, which `rglob` leaves out without a word."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place) / name for name in names)


def _clean_parquet(location: str, kind: str, ids: Ids) -> int:
    changed = 0
    try:
        with exported_files(location) as files, connect() as con:
            for name, path in files:
                if path.name.endswith(".new"):  # of a process that was killed
                    path.unlink()
                    continue
                table = next(table for table in EXPORTED if f"/{table}/" in name)
                if not (rows := _clean_rows(con, path, table, kind, ids)):
                    continue
                changed += rows
                write_parquet(con, "FROM rows ORDER BY ALL", name)
    except (OSError, duckdb.Error) as error:
        reason = f"TGN_EXPORT_PARQUET={safe_text(location)} cannot be cleaned ({first_line(error)})"
        raise CleanError(reason) from safe_error(error)
    return changed


def _clean_rows(con: duckdb.DuckDBPyConnection, path: Path, table: str, kind: str, ids: Ids) -> int:
    """Makes the table `rows` what the file `path` has without the `ids`; returns how many rows and texts changed."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE rows AS {READ_SQL}", [pattern(str(path))])
    there, changed = [row[0] for row in con.execute("DESCRIBE rows").fetchall()], 0
    if f"{kind}_id" in there:
        gone = f"{kind}_id IN (SELECT unnest($names::VARCHAR[]))"
        ((changed,),) = con.execute(f"DELETE FROM rows WHERE {gone}", {"names": sorted(ids.names)}).fetchall()
    if changed and kind == EVENT and "rank" in there:
        keys = "user_id" if "user_id" in there else "1"
        con.execute(
            "CREATE OR REPLACE TEMP TABLE rows AS SELECT * REPLACE (row_number() OVER "
            f"(PARTITION BY {keys} ORDER BY rank)::INTEGER AS rank) FROM rows"
        )
    for column in text_columns(table):
        if column in there and column not in ("user_id", "event_id"):
            for (text,) in con.execute(f"SELECT DISTINCT {column} FROM rows").fetchall():
                if text and (clean := ids.without_in_json(text)) != text:
                    con.execute(f"UPDATE rows SET {column} = ? WHERE {column} = ?", [clean, text])
                    changed += 1
    return changed


def _clean_postgres(url: str, kind: str, ids: Ids) -> int:
    changed = 0
    try:
        with exported_tables(url) as (con, tables):
            for table in tables:
                of_table = 0
                if f"{kind}_id" in text_columns(table):
                    for name in sorted(ids.names):
                        of_table += _count(con, f"DELETE FROM {table} WHERE {kind}_id = $1", name)
                if of_table and kind == EVENT and table in LISTS:
                    _close_ranks(con, table)
                for column in set(text_columns(table)) - {"user_id", "event_id"}:
                    for needle in ids.needles:
                        query = f"SELECT DISTINCT {column} FROM {table} WHERE position($1 IN {column}) > 0"
                        for (text,) in run(con, query, needle):
                            if (clean := ids.without_in_json(text)) != text:
                                of_table += _count(
                                    con, f"UPDATE {table} SET {column} = $1 WHERE {column} = $2", clean, text
                                )
                changed += of_table
            con.commit()
    except PostgresError as error:
        raise CleanError(f"TGN_EXPORT_POSTGRES cannot be cleaned ({error}); {error.remedy}") from safe_error(error)
    return changed


@contextmanager
def exported_tables(url: str) -> Iterator[tuple[Connection, list[str]]]:
    """A connection to the database at `url`, and those of the exported tables that it has. PostgresError as usual."""
    with connected_in_schema(url) as con:
        yield con, [table for table in EXPORTED if run(con, f"SELECT to_regclass('{table}') IS NOT NULL")[0][0]]


def _count(con: Connection, sql: str, *parameters: str) -> int:
    """How many rows the DELETE or UPDATE `sql` changed."""
    return int(run(con, f"WITH changed AS ({sql} RETURNING 1) SELECT count(*) FROM changed", *parameters)[0][0])


def _close_ranks(con: Connection, table: str) -> None:
    """Closes the gaps in the ranks of lists; by way of negative ones, lest two rows have one key for a moment."""
    keys = [name for name in ("week", "user_id") if name in TABLES[table].names]
    same = " AND ".join(f"{table}.{key} = closed.{key}" for key in keys)
    places = (
        f"SELECT {', '.join(keys)}, rank, row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY rank) AS place"
    )
    run(
        con,
        f"UPDATE {table} SET rank = -closed.place FROM ({places} FROM {table}) AS closed "
        f"WHERE {same} AND {table}.rank = closed.rank AND closed.rank <> closed.place",
    )
    run(con, f"UPDATE {table} SET rank = -rank WHERE rank < 0")


CLEANED = {"parquet": _clean_parquet, "postgres": _clean_postgres}
"""Kind of location -> what takes the ids out of it."""
