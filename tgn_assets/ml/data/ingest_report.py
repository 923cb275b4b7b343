"""What a load wrote, what it did not, and what there is to say of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from tgn_assets.ml.data.staging import StagedWeeks
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.sources.reader import UNREADABLE_TIME
from tgn_assets.ml.sources.timestamp_sql import unread_times
from tgn_assets.ml.weeks import span_of

logger = logging.getLogger(__name__)

LEAST_KEPT = 0.8
"""Share of the rows of weeks that were ingested before; with fewer the source may not be whole."""


@dataclass(frozen=True)
class IngestReport:
    """What a load wrote, and what it did not."""

    rows: dict[str, int]
    """Rows of each week that was asked for."""
    digests: dict[str, str]
    """Digest of each of these weeks."""
    no_longer_there: list[str]
    """Those of these weeks whose rows stay, since the source begins later now."""
    rows_before: dict[str, int]
    """Rows that these weeks had, of those that had some and were replaced."""
    rejected: dict[str, int]
    """By reason, rows of these weeks that cannot be used and all rows whose week cannot be known."""
    undated: dict[str, int]
    """The latter alone."""
    before_start: int | None
    """Valid rows of the source that are older than the start week; None if only the weeks were asked for."""
    after_end: int | None
    """Valid rows of the source that are newer than the end week; None as above."""
    filtered: int
    """Rows of these weeks, or without a known week, that do not meet the row filter."""
    forgotten: int
    """Rows of these weeks, or without a known week, of forgotten users and events."""
    new_users: int
    new_events: int


def warn_of(staged: StagedWeeks, report: IngestReport, reported: Mapping[str, int], warn: LogFn) -> None:
    """Says what was rejected or filtered, and what is odd about the files and the ids."""
    spec, loaded = staged.spec, sum(report.rows.values())
    _warn_of_rejected(staged, report, reported, warn)
    if stay := report.no_longer_there:
        warn(f"{spec.shown} begins later than it did: the rows of {span_of(stay)} stay as they were ingested")
    had, has = sum(report.rows_before.values()), sum(report.rows[week] for week in report.rows_before)
    if has < LEAST_KEPT * had:
        warn(
            f"{spec.shown} has {has:,} rows of {span_of(report.rows_before)}, and had {had:,} when they were ingested: "
            "is the export whole? They are read again when it changes"
        )
    for text in staged.odd:
        warn(f"{spec.shown}: {text}")
    if staged.with_blanks:
        share = 100 * staged.with_blanks / loaded
        warn(f"{spec.shown}: {share:.2g} % of the rows have ids with blanks at their ends, which are kept")
    if report.filtered:
        logger.info("rows of %s that TGN_ROW_FILTER=%s leaves out: %d", spec.shown, spec.row_filter, report.filtered)
    if report.forgotten:
        logger.info("rows of %s that are left out as forgotten: %d", spec.shown, report.forgotten)


def _warn_of_rejected(staged: StagedWeeks, report: IngestReport, reported: Mapping[str, int], warn: LogFn) -> None:
    """Says what was rejected and why; rows without a week were `reported` by an earlier load."""
    spec, rejected = staged.spec, report.rejected
    new = dict(rejected)
    if report.undated == reported:  # of no week, so each load finds them
        new = {reason: left for reason, rows in rejected.items() if (left := rows - reported.get(reason, 0))}
    if new:
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in new.items())
        warn(f"{spec.shown}: rejected rows: {reasons} (see the table rejected_interactions)")
        if missing := sum(rows for reason, rows in new.items() if reason.startswith("missing_")):
            share = missing / (sum(report.rows.values()) + sum(rejected.values()))
            given = ",".join(spec.null_values)
            lack = f"{100 * share:.2g} % of the rows lack a user, an event or a time"
            warn(f"{spec.shown}: {lack}: empty, or one of TGN_NULL_VALUES={given}")
        if UNREADABLE_TIME in new and (told := unread_times(staged.unread_times or ())):
            warn(f"{spec.shown}: {told}")
