"""What a source is, what it spans, and the error that says why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tgn_assets.ml.forgotten import ForgottenIds, ForgottenListError
from tgn_assets.ml.safe_text import SafeError, safe_text
from tgn_assets.ml.sources.timestamp_sql import PLAIN, TimeStyle
from tgn_assets.ml.weeks import shift, week_of

if TYPE_CHECKING:
    import pandas as pd

SYNTHETIC = "synthetic"
EMPTY_DIGEST = "0-0"
"""The digest of a week without valid rows (`extent.digest`)."""
STRAGGLERS = 0.1
"""Share of the rows of a week."""
WEEK_NUMBER = "week_number"
NULL_VALUES = ("NULL", "null", "NaN", "nan", "NaT", "<NA>", "None", r"\N")
"""How exports write a missing value. Not NA, which is Namibia as well."""

CLOCK_SKEW = timedelta(days=1)
"""By how much the clock that wrote a row may be ahead of ours."""


class SourceError(SafeError, ValueError):
    """The source cannot be used as it is; the message names the setting (TGN_SOURCE, ...) and says what to do."""


@dataclass(frozen=True)
class SourceSpec:
    """An interaction log: `synthetic`, a file, folder, glob or URL of CSV, JSON lines or Parquet, or a query of
    PostgreSQL; and its columns.
    """

    location: str = field(repr=False)  # it may hold a token
    user_column: str = "ip_address"
    event_column: str = "event_id"
    timestamp_column: str = "timestamp"
    week_number_anchor: tuple[int, str] | None = None
    """Where the log has a column `week_number` and no timestamps: one number and the Monday that it stands for."""
    start_week: str | None = None
    """First week of a synthetic source; None: 26 weeks before the current one."""
    row_filter: str | None = None
    """An SQL condition on the columns of the source: other rows are as if they were not there."""
    query: str | None = None
    """Of PostgreSQL: a table or a SELECT."""
    time_style: TimeStyle = PLAIN
    """How times are written that do not tell by themselves."""
    null_values: tuple[str, ...] = NULL_VALUES
    """Ids and times that stand for a missing value, as the empty text does."""
    table: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    """The rows themselves, where the log is in memory; `location` is then what it is called."""
    summaries: Path | None = field(default=None, repr=False, compare=False)
    """Where it is remembered which weeks the rows of each file are of; None: nowhere, so that each file is read."""
    forgotten: Path | None = field(default=None, repr=False, compare=False)
    """The list of ids whose rows are left out (`ForgottenIds`); None: no such ids."""

    @property
    def forgotten_ids(self) -> ForgottenIds:
        """The ids whose rows are left out, as their list has them now; SourceError if it cannot be read."""
        try:
            return ForgottenIds.load(self.forgotten)
        except ForgottenListError as error:
            raise SourceError(str(error)) from error

    @property
    def shown(self) -> str:
        """`location` as people may see it."""
        return safe_text(self.location)


@dataclass(frozen=True)
class SourceExtent:
    """What the valid rows of a source span."""

    first_week: str
    closed_by_rows: str | None
    """The newest week whose Sunday has rows or that is followed by a later row, whatever calendar and settings say
    (`newest_closed_week`); None if there is none yet."""
    newest_row: datetime
    """UTC."""
    numbers_weeks: bool = False
    """Whether rows have the number of a week and no time: only the calendar tells when such a week is over."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason; of PostgreSQL those without a week, and of the weeks that were looked at."""
    dated: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Rows that were read, usable or not, of each week that has some."""


def first_kept_week(dated: Mapping[str, int], ingested: Mapping[str, str], start: str) -> str | None:
    """The week from `start` on that a source begins with now, of whose rows `dated` are of each week; None without any.

    Of a week that it has lost, a few rows may come late, or by a clock that is wrong: as long as they are less than
    `STRAGGLERS` of those that were `ingested` (digests), they do not bring the week back.
    """
    weeks = sorted(week for week in dated if week >= start)
    whole = (week for week in weeks if dated[week] >= STRAGGLERS * rows_in(ingested.get(week, EMPTY_DIGEST)))
    return next(whole, weeks[0] if weeks else None)


def expired_weeks(ingested: Mapping[str, str], start: str, first: str | None) -> set[str]:
    """The weeks that stay as they were `ingested`, since the source, whose rows now begin in week `first`, lost them.

    These are the weeks with rows from `start` to before `first`. If there are any, `first` is one too: a source that
    keeps the last months only may have cut it in two.
    """
    if first is None:
        return set()
    gone = {week for week, digest in ingested.items() if start <= week < first and digest != EMPTY_DIGEST}
    return gone | {first} if gone and first in ingested else gone


def rows_in(digest: str) -> int:
    """How many rows the digest of a week's rows is of."""
    return int(digest.partition("-")[0])


def horizon() -> datetime:
    """The time (UTC) from which on a row lies in the future: it is rejected, and closes no week."""
    return datetime.now(UTC).replace(tzinfo=None) + CLOCK_SKEW


def last_ended_week(now: datetime | None = None) -> str:
    """The newest calendar week that is over at `now` (default: the current time, UTC)."""
    return shift(week_of(now or datetime.now(UTC)), -1)


def empty_source(spec: SourceSpec) -> SourceError:
    """The error for a source without rows."""
    return SourceError(f"TGN_SOURCE={spec.shown} has no rows; check that the export that writes it has run")
