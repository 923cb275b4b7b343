"""What a `Recommender` keeps of a log between `fit`, `update` and `evaluate`: validated rows, and the newest models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from weakref import finalize

import duckdb
import pandas as pd

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint
from tgn_assets.ml.evaluation.pooled import PooledScore
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint
from tgn_assets.ml.sources.extent import check_first_week, newest_closed_week, survey_source
from tgn_assets.ml.sources.spec import EMPTY_DIGEST, SourceSpec, last_ended_week, rows_in
from tgn_assets.ml.weeks import shift, weeks_between
from tgn_assets.recommender.tables import Log

INGESTED_SQL = "SELECT strftime(week, '%Y-%m-%d'), digest FROM ingested_weeks"


class Memory:
    """The validated log of a `fit` in a temporary file, as DuckDB wants no connection left open when a process ends.

    Beside it are the models of the newest week and what an `update` starts from, in `folder`.
    """

    def __init__(self, log: Log) -> None:
        self.features: tuple[pd.DataFrame | None, pd.DataFrame | None] = None, None  # of events, of users
        self.columns = {"user": log.user, "event": log.event, "time": log.time}
        self.user_type, self.event_type = log.user_type, log.event_type
        self.first_week = ""
        self.unfinished: Mapping[str, str] = {}  # week after the newest closed one -> digest of the rows it had
        self.encoders: dict[str, GNNCheckpoint] = {}
        self.rankers: dict[str, RankerCheckpoint] = {}
        self.scores: dict[tuple[int, int], list[PooledScore]] = {}  # by numbers of weeks and of drawn users
        self.folder = Path(mkdtemp(prefix="tgn-recommender-"))
        self._removed = finalize(self, rmtree, self.folder, ignore_errors=True)

    def open(self) -> duckdb.DuckDBPyConnection:
        """A connection to the log's tables."""
        return connect(self.folder / "warehouse.duckdb")

    def ingest(
        self,
        con: duckdb.DuckDBPyConnection,
        log: Log,
        *,
        start_week: str | None,
        end_week: str | None,
        progress: LogFn,
        warn: LogFn,
    ) -> str:
        """Stores the valid rows of `log` up to its newest closed week, which is returned. ValueError if none is."""
        spec = _spec(log)
        extent, digests = survey_source(spec)
        if start_week is None:
            check_first_week(spec, digests or ())
        self.first_week = start_week or extent.first_week
        newest = newest_closed_week(extent, first_week=self.first_week, end_week=end_week, last_ended=last_ended_week())
        if newest is None:
            until = f" up to end_week={end_week}" if end_week else "; of a log that has ended, set end_week"
            raise ValueError(
                f"no week has closed yet: there is no row on the Sunday of week {self.first_week}, or later{until}"
            )
        weeks = weeks_between(self.first_week, newest)
        load_weeks(con, spec, weeks, start_week=self.first_week, end_week=end_week, progress=progress, warn=warn)
        self.unfinished = _after(newest, digests or {})
        return newest

    def ingest_more(
        self,
        con: duckdb.DuckDBPyConnection,
        log: Log,
        week: str,
        *,
        end_week: str | None,
        progress: LogFn,
        warn: LogFn,
    ) -> list[str]:
        """Stores the rows of `log` of the weeks after `week` that have closed since, which are returned.

        Warns of rows up to `week` that are not as they were. ValueError if no week has closed, or rows are missing.
        """
        spec, first = _spec(log), shift(week, 1)
        extent, digests = survey_source(spec)
        newest = newest_closed_week(extent, first_week=first, end_week=end_week, last_ended=last_ended_week())
        if newest is None:
            if end_week and end_week < first:
                raise ValueError(f"end_week is {end_week}, and the lists are for the week after {week}: set it anew")
            raise ValueError(
                f"no week has closed since {week}: the newest row is of {extent.newest_row:%Y-%m-%d}; update once "
                f"there is a row on the Sunday of week {first}, or later"
            )
        given = digests or {}
        for unfinished, before in self.unfinished.items():
            if unfinished <= newest and (rows := rows_in(given.get(unfinished, EMPTY_DIGEST))) < rows_in(before):
                raise ValueError(
                    f"week {unfinished} has {rows:,} rows, and had {rows_in(before):,} when it was not yet closed: "
                    f"give all rows from Monday {first} on, those of the last call too"
                )
        ingested: dict[str, str] = dict(con.execute(INGESTED_SQL).fetchall())
        whole = self.first_week if extent.first_week <= self.first_week else shift(extent.first_week, 1)
        if late := [key for key in weeks_between(whole, week) if given.get(key, EMPTY_DIGEST) != ingested[key]]:
            warn(
                f"rows of {len(late)} weeks up to {week}, the first of them {late[0]}, are not those that were learned "
                "from: they are left out; fit again to learn from them"
            )
        weeks = weeks_between(first, newest)
        load_weeks(con, spec, weeks, start_week=first, end_week=end_week, progress=progress, warn=warn)
        self.unfinished = _after(newest, {**self.unfinished, **given})
        return weeks


def _spec(log: Log) -> SourceSpec:
    return SourceSpec("interactions", log.user, log.event, log.time, table=log.rows)


def _after(week: str, digests: Mapping[str, str]) -> dict[str, str]:
    return {key: digest for key, digest in digests.items() if key > week}
