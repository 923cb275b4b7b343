"""The DuckDB file that holds the tables, shared by processes that wait for each other."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.data.ingest import transaction
from tgn_assets.ml.data.interactions import HISTORY_SQL, InteractionHistory
from tgn_assets.ml.safe_text import SafeError
from tgn_assets.ml.schema import TABLES, create_tables
from tgn_assets.ml.weeks import week_number
from tgn_assets.state import published_copy
from tgn_assets.state.lineage import PREDICTIONS, UPSTREAM, Lineage, digest_of_rows, read_lineage, record_made

logger = logging.getLogger(__name__)

STATE_SQL = """
    SELECT week, count(*), digest FROM raw_interactions LEFT JOIN ingested_weeks USING (week)
    WHERE week <= $week GROUP BY ALL ORDER BY week
"""
"""Tells whether the rows up to a week are still the same."""
REMIND_SECONDS = 30.0
"""How often a process that waits for the warehouse says so."""


class WarehouseError(SafeError, RuntimeError):
    """The warehouse is not there or cannot be opened; the message says what to do."""


class Warehouse:
    """The tables and views of `ml.schema` in the file `path`.

    DuckDB lets either one process write to a file or several read it. Whoever finds it taken waits, `lock_timeout`
    seconds at most: so open it around the SQL only, never while training. A reader within a writer waits for itself.
    """

    def __init__(self, path: Path, lock_timeout: float = 600) -> None:
        self.path, self.lock_timeout = path, lock_timeout
        self._kept: tuple[list[tuple[Any, ...]], InteractionHistory] | None = None
        self._complete = False  # whether the file was once seen to have all tables

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that cannot write, in UTC. WarehouseError if there are no tables yet, or at the timeout."""
        if not self.path.exists():
            raise self._not_made()
        con = self._connect(read_only=True)
        try:
            if not self._complete:
                there = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
                if "raw_interactions" not in there:
                    raise self._not_made()
                if not set(TABLES) <= there:
                    con.close()
                    with self.writer():  # makes the tables that came with a newer version
                        pass
                    con = self._connect(read_only=True)
                self._complete = True
            yield con
        except duckdb.Error as error:
            if type(error) in (duckdb.Error, duckdb.IOException):  # what it says of damaged blocks
                raise self._unreadable(error) from error
            raise
        finally:
            con.close()

    @contextmanager
    def writer(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The only connection of all processes, in UTC; it makes the file, the tables that are missing and the views.

        Each statement is kept as soon as it is done, unless `ml.data.ingest.transaction` holds several together.
        WarehouseError at the timeout.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        con = self._connect(read_only=False)
        try:
            with transaction(con):
                create_tables(con)
            yield con
        finally:
            con.close()

    def replace_week(self, table: str, week: str, frame: pd.DataFrame) -> int:
        """Makes `frame` the rows of `week` in `table`, by column name; returns how many there are.

        A reader finds either the old rows or the new ones, whatever happens meanwhile. ValueError for a table that has
        no weeks, or a row of another week.
        """
        return self.replace_week_tables(week, {table: frame})[table]

    def replace_week_tables(self, week: str, frames: Mapping[str, pd.DataFrame]) -> dict[str, int]:
        """`replace_week` of several tables at once: all of them are replaced, or none is.

        With the rows of an asset, what they were made from is recorded.
        """
        monday = date.fromisoformat(week)
        for table, frame in frames.items():
            if table not in TABLES or "week" not in TABLES[table].names:
                raise ValueError(f"{table} is no table with weeks")
            if len(frame) and set(pd.to_datetime(frame["week"]).dt.date) != {monday}:
                raise ValueError(f"rows of other weeks than {week} were handed to {table}")
        with self.writer() as con, transaction(con):
            for table, frame in frames.items():
                con.execute(f"DELETE FROM {table} WHERE week = ?", [monday])
                if len(frame):
                    con.register("new_rows", frame)
                    con.execute(f"INSERT INTO {table} BY NAME FROM new_rows")
                    con.unregister("new_rows")
            for asset in UPSTREAM.keys() & frames.keys():
                record_made(con, asset, {week: digest_of_rows(con, frames, week)})
        self._write_copy(frames)
        return {table: len(frame) for table, frame in frames.items()}

    def lineage(self) -> Lineage:
        """What was ingested and made; nothing if there is no warehouse yet."""
        if not self.path.exists():
            return Lineage()
        with self.reader() as con:
            return read_lineage(con)

    def record_made(self, asset: str, digests: Mapping[str, str]) -> None:
        """Records what `asset` holds for each week, and what that was made from."""
        with self.writer() as con, transaction(con):
            record_made(con, asset, digests)
        self._write_copy([asset])

    @contextmanager
    def newest_lists(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the copy of what is published: it neither waits for a run nor makes one wait.

        `reader` if there is no copy yet.
        """
        copy = self.path.with_name(published_copy.NAME)
        if not copy.exists():
            with self.reader() as con:
                yield con
            return
        with connect(copy, read_only=True) as con:
            yield con

    def _write_copy(self, made: Iterable[str]) -> None:
        """Writes the copy for readers if lists are among what was `made`, or the last asset of a week."""
        if not {PREDICTIONS, "weekly_report"}.isdisjoint(made):
            with self.writer() as con:
                published_copy.write_copy(con, self.path.parent)

    def history(self, week: str) -> InteractionHistory:
        """Everything known at the close of `week`.

        The newest one asked for is kept: for it, or what was known earlier, the tables are read only if they changed.
        """
        monday = {"week": date.fromisoformat(week)}
        with self.reader() as con:
            state = con.execute(STATE_SQL, monday).fetchall()
            rows, newest = self._kept or ([], None)
            changed = [row for row in rows if row[0] <= monday["week"]] != state
            if newest is None or newest.week < week_number(week) or changed:
                newest = InteractionHistory.from_frame(con.execute(HISTORY_SQL, monday).df(), week)
                self._kept = state, newest
        return newest.as_of(week_number(week))

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        start = said = time.monotonic()
        while True:
            try:
                return connect(self.path, read_only=read_only)
            except duckdb.Error as error:
                holder = _holder(error)
                if holder is None:
                    raise self._unreadable(error) from error
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

    def _unreadable(self, error: duckdb.Error) -> WarehouseError:
        return WarehouseError(
            f"{self.path} cannot be opened: {str(error).splitlines()[0]}. If it is damaged, put a backup in its place, "
            "or move it away: `tgn refresh` then makes the weeks again whose models are kept"
        )

    def _not_made(self) -> WarehouseError:
        return WarehouseError(
            f"there are no tables in {self.path} yet; run `tgn refresh`, or materialize raw_interactions"
        )


def _holder(error: duckdb.Error) -> str | None:
    """Who has the file that DuckDB could not open; None if that is not the reason."""
    if "Could not set lock" in str(error):
        found = re.search(r"held in (.*?PID \d+\)?)", str(error))
        return found[1] if found else "another process"
    return "this very process" if "different configuration" in str(error) else None
