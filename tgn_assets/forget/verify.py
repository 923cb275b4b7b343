"""Searches a home and its exports for ids: every byte, and what compressed and binary formats hold.

Where a format has values, a value is compared as a whole; in texts, an id must be a word of its own. `Ids` says when a
find is sure. The bytes of binary files are searched as well, for what a file no longer uses: only for ids that do not
stand in numbers by chance, and that are no part of another id of the home.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import tempfile
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import duckdb

from tgn_assets.forget import exported, history
from tgn_assets.forget.artifacts import kept_of
from tgn_assets.forget.spelling import Ids
from tgn_assets.forget.tables import WITHOUT_IDS, tombstones
from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.connectors.object_store import StoreError, is_url
from tgn_assets.ml.connectors.postgres import PostgresError, run
from tgn_assets.ml.safe_text import first_line
from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.relations import pattern
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import StateError

BLOCK = 1 << 24
"""Bytes of a file that are read at once."""
BINARY = (".duckdb", ".wal", ".parquet", ".safetensors", ".db", ".db-wal", ".db-shm", ".gz", ".tmp")
KEPT_BY_KILLED = "tgn-*"
"""What a killed process leaves in the system's temporary folder: all that we put there is called so."""
ID_COLUMNS = ("user_id", "event_id")
VALUES_SQL = """
    SELECT DISTINCT {column}::VARCHAR FROM {table}, (SELECT unnest($needles::VARCHAR[]) AS needle) AS needles
    WHERE contains({column}::VARCHAR, needle)
"""
COLUMNS_SQL = """
    SELECT table_name, column_name FROM duckdb_columns() JOIN duckdb_tables()
    USING (database_oid, schema_oid, table_oid, table_name)
    WHERE NOT duckdb_columns.internal AND (data_type LIKE '%VARCHAR%' OR data_type IN ('JSON', 'BLOB'))
    ORDER BY table_name, column_index
"""


@dataclass(frozen=True)
class Trace:
    """Where an id was found."""

    place: str
    what: str
    """In which part of it, and how often."""
    sure: bool
    """False for a number or a word that may be the id, or be there by chance."""
    unreadable: bool = False
    """Whether the place could not be searched at all."""


def traces(home: Home, kind: str, ids: Ids, searched: Counter[str]) -> Iterator[Trace]:
    """What is left of the `ids` of users or events (`kind`) in `home` and the places of its exports; `searched` counts
    files and bytes of the home."""
    search = _Search(ids, kind, part_of_longer_id=_in_longer_id(home, ids))
    for setting, value in home.settings.model_dump().items():
        if isinstance(value, str) and (found := ids.count(value)):
            yield Trace(f"TGN_{setting.upper()}", f"the setting names it {found} times", sure=True)
    unread = list[OSError]()
    for folder, folders, names in os.walk(home.root, followlinks=True, onerror=unread.append):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file():
                searched.update(files=1, bytes=path.stat().st_size)
                yield from search.file(path)
        yield from (Trace(str(Path(folder) / name), "its name", sure=True) for name in folders if ids.count(name))
    for error in unread:
        if not isinstance(error, FileNotFoundError):  # a folder of a moment
            yield Trace(str(error.filename), f"it cannot be searched: {error.strerror}", sure=True, unreadable=True)
    yield from _indices(home)
    for name, location in home.settings.export_locations().items():
        yield from _exported(search, name, location)
    for path in _files_of(KEPT_BY_KILLED):
        left = list(search.file(path)) if path.is_file() and os.access(path, os.R_OK) else []
        said = "left by a process that was killed, of this home or another, or in use"
        yield from (Trace(one.place, f"{one.what}; {said}", sure=False) for one in left if not one.unreadable)


def _files_of(wanted: str) -> list[Path]:
    """What lies in the folders `wanted` of the machine's temporary ones; such a folder may go while it is read."""
    found = list[Path]()
    for folder in Path(tempfile.gettempdir()).glob(wanted):
        found += (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sorted(found)


class _Search:
    """Searches files for ids."""

    def __init__(self, ids: Ids, kind: str, *, part_of_longer_id: bool) -> None:
        self.ids, self.kind, self._part_of_longer_id = ids, kind, part_of_longer_id
        self._con = connect()  # of all Parquet files: to open one for each would take most of the time

    def file(self, path: Path) -> Iterator[Trace]:
        """What the file `path` has: its name, its values, and its bytes."""
        if self.ids.count(path.name):
            yield Trace(str(path), "its name", sure=True)
        readers = {
            ".duckdb": self._duckdb,
            ".parquet": self.parquet,
            ".db": self._sqlite,
            ".safetensors": self._safetensors,
            ".gz": self._gzip,
        }
        try:
            if reader := readers.get(path.suffix):
                yield from reader(path)
            if path.name.endswith(BINARY):
                yield from self._bytes(path)
            else:
                yield from self.text(str(path), "", path.read_bytes().decode(errors="surrogateescape"))
        except FileNotFoundError:
            pass  # a file of a moment
        except (OSError, EOFError, ValueError, duckdb.Error, sqlite3.Error, StateError, zlib.error) as error:
            yield Trace(str(path), f"it cannot be searched: {first_line(error)}", sure=True, unreadable=True)

    def text(self, place: str, part: str, text: str) -> Iterator[Trace]:
        """What `text`, JSON or other, in `part` of `place`, has."""
        for sure in (True, False):
            if found := self.ids.count_in_json(text, surely=sure):
                times = "once" if found == 1 else f"{found:,} times"
                yield Trace(place, f"{part + ', ' if part else ''}{times}", sure=sure)
                return

    def values(self, con: duckdb.DuckDBPyConnection, place: str, table: str, column: str, sql: str) -> Iterator[Trace]:
        """What a column of text of the relation `sql` has; another id that has this one in it is no find."""
        rejected = table == "rejected_interactions"
        other = {"user": "event_id", "event": "user_id"}[self.kind]
        if column in WITHOUT_IDS.get(table, ()) or (column == other and not rejected):
            return
        if column in ID_COLUMNS and not rejected:
            query = f"SELECT count(*) FROM {sql} WHERE {column} IN (SELECT unnest($names::VARCHAR[]))"
            ((found,),) = con.execute(query, {"names": sorted(self.ids.names)}).fetchall()
            if found:
                yield Trace(place, f"{table}.{column}, in {found:,} rows", sure=True)
            return
        query = VALUES_SQL.format(column=quoted(column), table=sql)
        for (text,) in con.execute(query, {"needles": self.ids.needles}).fetchall():
            yield from self.text(place, f"{table}.{column}", text)

    def _duckdb(self, path: Path) -> Iterator[Trace]:
        with connect(path, read_only=True) as con:
            for table, column in con.execute(COLUMNS_SQL).fetchall():
                yield from self.values(con, str(path), table, column, quoted(table))

    def parquet(self, path: Path, name: str = "") -> Iterator[Trace]:
        """What the columns of text of a Parquet file have, which people know as `name`."""
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE rows AS {exported.READ_SQL}", [pattern(str(path))])
        table = next((table for table in exported.EXPORTED if f"/{table}/" in (name or str(path))), "rows")
        for column, dtype, *_ in self._con.execute("DESCRIBE rows").fetchall():
            if "VARCHAR" in dtype:
                yield from self.values(self._con, name or str(path), table, column, "rows")

    def _sqlite(self, path: Path) -> Iterator[Trace]:
        address = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=history.BUSY_SECONDS)) as con:
            for table, column, _, value in history.values(con, self.ids):
                text = _unpacked(value) if isinstance(value, bytes) else value
                yield from self.text(str(path), f"{table}.{column}", text)

    def _safetensors(self, path: Path) -> Iterator[Trace]:
        with path.open("rb") as file:
            header = file.read(int.from_bytes(file.read(8), "little")).decode(errors="replace")
        yield from self.text(str(path), "header", header)

    def _gzip(self, path: Path) -> Iterator[Trace]:
        with gzip.open(path) as file:
            yield from self.text(str(path), "unpacked", file.read().decode(errors="surrogateescape"))

    def _bytes(self, path: Path) -> Iterator[Trace]:
        needles = self.ids.raw_needles
        overlap, found, before = max(map(len, needles), default=1) - 1, 0, b""
        with path.open("rb") as file:
            while needles and (block := file.read(BLOCK)):
                window = before + block
                found += sum(window.count(needle) for needle in needles)
                before = window[len(window) - overlap :] if overlap else b""
        if found:
            where = "in the bytes of the file"
            note = ", maybe as a part of longer ids" if self._part_of_longer_id else ""
            yield Trace(str(path), f"{where}, {found:,} times{note}", sure=not self._part_of_longer_id)


def _in_longer_id(home: Home, ids: Ids) -> bool:
    """Whether another id of the home has one of the `ids` in it; False if there is no warehouse, or it is damaged."""
    query = """
        SELECT count(*) FROM (SELECT user_id AS id FROM users UNION ALL SELECT event_id FROM events),
        (SELECT unnest($names::VARCHAR[]) AS name) WHERE contains(id, name) AND id <> name
    """
    try:
        with home.warehouse().unchecked() as con:
            return bool(con.execute(query, {"names": sorted(ids.names)}).fetchall()[0][0])
    except (StateError, duckdb.Error):
        return False


def _indices(home: Home) -> Iterator[Trace]:
    """Whether artifacts have something under the index of a forgotten id."""
    if not home.warehouse_path.exists():
        return
    try:
        with home.warehouse().unchecked() as con:
            indices = tombstones(con)
    except (StateError, duckdb.Error):
        return  # the search of the file says so
    for directory in kept_of(home.artifact_store(), indices):
        yield Trace(str(directory), "vectors or edges of a forgotten index", sure=True)


def _exported(search: _Search, name: str, location: str) -> Iterator[Trace]:
    """What a location of exports has."""
    try:
        yield from SEARCHED[name](search, location)
    except (StoreError, PostgresError, OSError, duckdb.Error) as error:
        yield Trace(name, f"the exports cannot be searched: {error}", sure=True, unreadable=True)


def _of_parquet(search: _Search, location: str) -> Iterator[Trace]:
    with exported.exported_files(location) as files:
        for shown, path in files:
            if is_url(location):
                yield from search.parquet(path, shown)
            else:
                yield from search.file(path)


def _of_postgres(search: _Search, url: str) -> Iterator[Trace]:
    with exported.exported_tables(url) as (con, tables):
        for table in tables:
            for column in exported.text_columns(table):
                query = f"SELECT DISTINCT {column} FROM {table} WHERE position($1 IN {column}) > 0"
                found = {text for needle in search.ids.needles for (text,) in run(con, query, needle)}
                for text in sorted(found):
                    if column not in ID_COLUMNS:
                        yield from search.text("PostgreSQL", f"{table}.{column}", text)
                    elif column == f"{search.kind}_id" and text in search.ids.names:
                        yield Trace("PostgreSQL", f"{table}.{column}", sure=True)


SEARCHED = {"parquet": _of_parquet, "postgres": _of_postgres}
"""Kind of location of exports -> what searches it."""


def _unpacked(value: bytes) -> str:
    """The text in a blob, which may be compressed, once or in base64."""
    for unpack in (zlib.decompress, gzip.decompress, lambda text: zlib.decompress(b64decode(text, validate=True))):
        try:
            return unpack(value).decode(errors="surrogateescape")
        except (OSError, EOFError, ValueError, zlib.error):
            continue
    return value.decode(errors="surrogateescape")
