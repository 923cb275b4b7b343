"""The DuckDB file that holds the tables, shared by processes that wait for each other."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from tgn_assets.ml.connectors.duckdb_session import connect, transaction
from tgn_assets.ml.data.interactions import InteractionHistory, read_history
from tgn_assets.ml.safe_text import SafeError, first_line
from tgn_assets.ml.schema import TABLES, Column, create_tables, replace_rows
from tgn_assets.ml.weeks import week_number
from tgn_assets.state import published_copy
from tgn_assets.state.lineage import (
    EVAL_METRICS,
    PREDICTIONS,
    REPORT,
    UPSTREAM,
    Lineage,
    digest_of_rows,
    read_lineage,
    record_made,
)

logger = logging.getLogger(__name__)

STATE_SQL = """
    SELECT week, count(*), digest FROM raw_interactions LEFT JOIN ingested_weeks USING (week)
    WHERE week <= $week GROUP BY ALL ORDER BY week
"""
"""Tells whether the rows up to a week are still the same."""
REMIND_SECONDS = 30.0
"""How often a process that waits for the warehouse says so."""


RESTORE = (
    "put a backup in its place, or move it away: `tgn refresh` then makes the weeks again whose models are kept; "
    "`tgn doctor` checks the rest of the home"
)
"""What to do about a damaged warehouse."""
RECORDED_BY = {
    PREDICTIONS: PREDICTIONS,
    "new_user_top5_predictions": PREDICTIONS,
    "published_weeks": PREDICTIONS,
    "eval_metrics": EVAL_METRICS,
    "eval_user_groups": EVAL_METRICS,
}
"""Table -> the asset whose record says that its rows are there."""


class StateError(SafeError, RuntimeError):
    """Something in TGN_HOME is damaged, missing or cannot be used; the message names the file and what to do."""


class WarehouseError(StateError):
    """The warehouse is not there or cannot be used; the message says what to do."""


class Warehouse:
    """The tables and views of `ml.schema` in the file `path`.

    DuckDB lets either one process write to a file or several read it. Whoever finds it taken waits, `lock_timeout`
    seconds at most: so open it around the SQL only, never while training. To open it costs more than
    most queries, but within a connection of the same kind next to nothing. A reader within a writer waits for itself.
    """

    def __init__(self, path: Path, lock_timeout: float = 600) -> None:
        self.path, self.lock_timeout = path, lock_timeout
        self._newest_history: tuple[list[tuple[Any, ...]], InteractionHistory] | None = None
        self._tables_checked = False
        self._tables_made = False  # and the views, as this release has them

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that cannot write, in UTC. WarehouseError if there are no tables yet, or at the timeout."""
        if not self.path.exists():
            raise self._missing_tables()
        con = self._connect(read_only=True)
        try:
            with self._as_warehouse_error():
                if not self._tables_checked:
                    there = columns(con)
                    if TABLES.keys().isdisjoint(there):
                        raise self._missing_tables()
                    if not TABLES.keys() <= there.keys() or any(column.added for _, column in _missing_columns(there)):
                        con.close()
                        self._tables_made = False
                        with self.writer():  # makes the tables and columns that are missing
                            pass
                        con = self._connect(read_only=True)
                        there = columns(con)
                    self._require_columns(there)
                    self._tables_checked = True
                yield con
        finally:
            con.close()

    @contextmanager
    def unchecked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """As `reader`, whatever tables and columns there are; it makes none."""
        with self._connect(read_only=True) as con, self._as_warehouse_error():
            yield con

    @contextmanager
    def writer(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The only connection of all processes, in UTC; it makes the file, what is missing of tables, and the views.

        Each statement is kept as soon as it is done, unless `transaction` holds several together.
        WarehouseError at the timeout.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        con = self._connect(read_only=False)
        try:
            with self._as_warehouse_error():
                if is_new or not self._tables_made:
                    there = columns(con)
                    with transaction(con):
                        self._mark_lost_pending(con, there.keys() & TABLES.keys())
                        create_tables(con)
                    self._require_columns(there)
                    self._tables_made = True
                yield con
        finally:
            con.close()

    def _mark_lost_pending(self, con: duckdb.DuckDBPyConnection, there: Set[str]) -> None:
        """Makes the weeks pending whose rows are gone with a table that is missing, where some of ours are `there`.

        WarehouseError if nothing fits the models without it.
        """
        if not there:
            return
        if lost := sorted({"users", "events"} - there):
            reason = f"lacks the table {lost[0]}, which says what the indices in the models mean"
            raise WarehouseError(f"{self.path} {reason}: {RESTORE}")
        if "ingested_weeks" in there and not {"raw_interactions", "rejected_interactions"} <= there:
            con.execute("DELETE FROM ingested_weeks")
        for asset in {RECORDED_BY[table] for table in RECORDED_BY.keys() - there} if "made_weeks" in there else ():
            con.execute("DELETE FROM made_weeks WHERE asset = ?", [asset])
        if lost := sorted(TABLES.keys() - there):
            logger.warning("%s lacked %s: now empty, and pending for `tgn refresh`", self.path, ", ".join(lost))

    def _require_columns(self, there: Mapping[str, list[str]]) -> None:
        """WarehouseError if a table with the columns `there` lacks one."""
        if lacking := missing_columns(there):
            raise WarehouseError(f"{self.path}: {lacking[0]}; {RESTORE}")

    @contextmanager
    def _as_warehouse_error(self) -> Iterator[None]:
        """Turns what DuckDB says of a damaged, forbidden or full file into a WarehouseError that names it."""
        try:
            yield
        except duckdb.Error as error:
            if reason := _fault_message(self.path, error):
                raise WarehouseError(reason) from error
            raise

    def replace_week_tables(
        self, week: str, frames: Mapping[str, pd.DataFrame], *, settings: str | None = None
    ) -> None:
        """Makes `frames` the rows of `week` in the tables of their names.

        Columns count by name. A reader finds all the old rows or all the new ones, whatever happens meanwhile. With the
        rows of an asset, what they were made from is recorded, and the digest of the `settings` that count. ValueError
        for a table that has no weeks, or a row of another week.
        """
        monday = date.fromisoformat(week)
        for table, frame in frames.items():
            if table not in TABLES or "week" not in TABLES[table].names:
                raise ValueError(f"{table} is no table with weeks")
            if len(frame) and set(pd.to_datetime(frame["week"].drop_duplicates().astype(object)).dt.date) != {monday}:
                raise ValueError(f"rows of other weeks than {week} were handed to {table}")
        with self.writer() as con:
            with transaction(con):
                for table, frame in frames.items():
                    replace_rows(con, table, week, frame)
                for asset in UPSTREAM.keys() & frames.keys():
                    record_made(con, asset, {week: digest_of_rows(con, frames, week)}, settings=settings)
            if PREDICTIONS in frames:
                published_copy.write_copy(con, self.path.parent)

    def lineage(self) -> Lineage:
        """What was ingested and made; nothing if there is no warehouse yet."""
        if not self.path.exists():
            return Lineage()
        with self.reader() as con:
            return read_lineage(con)

    def record_made(self, asset: str, digests: Mapping[str, str], *, settings: str | None = None) -> None:
        """Records what `asset` holds for each week, what that was made from, and the digest of its `settings`.

        For `weekly_report`, writes `current.duckdb` first, so that a failed copy leaves the report pending.
        """
        with self.writer() as con:
            if asset == REPORT:
                published_copy.write_copy(con, self.path.parent)
            with transaction(con):
                record_made(con, asset, digests, settings=settings)

    @contextmanager
    def newest_lists(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the copy of what is published: it neither waits for a run nor makes one wait.

        `reader` if there is no copy yet.
        """
        copy = self.path.with_name(published_copy.NAME)
        try:
            con = connect(copy, read_only=True)
        except duckdb.Error as error:
            if copy.exists():
                logger.warning("%s cannot be opened (%s); reading %s instead", copy, first_line(error), self.path)
            with self.reader() as con:
                yield con
            return
        try:
            yield con
        except duckdb.Error as error:
            reason = f"{copy} is damaged ({first_line(error)}): remove it; the lists are then read from {self.path}"
            raise WarehouseError(reason) from error
        finally:
            con.close()

    def history(self, week: str) -> InteractionHistory:
        """Everything known at the close of `week`.

        The newest one asked for is kept: for it, or what was known earlier, the tables are read only if they changed.
        """
        monday = date.fromisoformat(week)
        with self.reader() as con:
            state = con.execute(STATE_SQL, {"week": monday}).fetchall()
            rows, newest = self._newest_history or ([], None)
            changed = [row for row in rows if row[0] <= monday] != state
            if newest is None or newest.week < week_number(week) or changed:
                newest = read_history(con, week)
                self._newest_history = state, newest
        return newest.as_of(week_number(week))

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        start = said = time.monotonic()
        while True:
            try:
                return connect(self.path, read_only=read_only)
            except duckdb.Error as error:
                holder = _holder(error)
                if holder is None:
                    raise WarehouseError(
                        _fault_message(self.path, error) or f"{self.path} cannot be opened: {first_line(error)}"
                    ) from error
                now = time.monotonic()
                if now - start > self.lock_timeout:
                    raise WarehouseError(
                        f"{self.path} is held by {holder} since {self.lock_timeout:g} s or longer; wait for its end, "
                        "or stop it, and try again"
                    ) from error
                if said == start or now - said > REMIND_SECONDS:
                    logger.warning("waiting for %s, which holds %s", holder, self.path)
                    said = now
            time.sleep(random.uniform(0.05, 0.25))  # jitter, lest those who wait come back all at once

    def _missing_tables(self) -> WarehouseError:
        return WarehouseError(
            f"there are no tables in {self.path} yet; run `tgn refresh`, or materialize raw_interactions"
        )


def columns(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The columns of each table that is there."""
    found = dict[str, list[str]]()
    query = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal ORDER BY column_index"
    for table, column in con.execute(query).fetchall():
        found.setdefault(table, []).append(column)
    return found


def missing_columns(there: Mapping[str, list[str]]) -> list[str]:
    """One phrase for each missing column. Those that were added since an older release do not count: `Warehouse.writer`
    adds them.
    """
    return [
        f"the table {name} lacks the column {column.name}"
        for name, column in _missing_columns(there)
        if not column.added
    ]


def _missing_columns(there: Mapping[str, list[str]]) -> Iterator[tuple[str, Column]]:
    """(table, column) of the columns that tables lack, where they have the columns `there`."""
    for name, table in TABLES.items():
        yield from ((name, column) for column in table.columns if name in there and column.name not in there[name])


def _fault_message(path: Path, error: duckdb.Error) -> str | None:
    """What is wrong with the warehouse at `path`, and what to do; None if the error is of another kind."""
    text = first_line(error)
    if "Permission denied" in text or "Read-only file system" in text:
        reason = text.rpartition(": ")[2].lower()
        return f"{path} cannot be used: {reason}; give this user the right to read and write it"
    if any(sign in str(error) for sign in ("No space left", "not enough disk space", "Disk quota")):
        return f"the disk of {path} is full: make room, and run it again; the tables are as they were"
    lost = isinstance(error, duckdb.IOException) and path.name in str(error)
    broken = (duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
    damaged_block = type(error) is duckdb.Error  # how DuckDB reports one
    if lost or damaged_block or isinstance(error, broken) or "Corrupt" in text or "checksum" in text:
        return f"{path} cannot be opened or read: {text}. If it is damaged, {RESTORE}"
    return None


def _holder(error: duckdb.Error) -> str | None:
    """Who has the file that DuckDB could not open; None if that is not the reason."""
    if "Could not set lock" in str(error):
        found = re.search(r"held in (.*?PID \d+\)?)", str(error))
        return found[1] if found else "another process"
    return "this very process" if "different configuration" in str(error) else None
