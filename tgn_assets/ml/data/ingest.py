"""From a source into the warehouse: validated rows, rejected rows with the reason, and indices that never change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.progress import LogFn, log_query_progress, no_log
from tgn_assets.ml.schema import literal
from tgn_assets.ml.sources.csv_repair import LINE_SHOWN, UnreadableLines
from tgn_assets.ml.sources.extent import DIGEST_SQL, describe_source, digest
from tgn_assets.ml.sources.reader import (
    FILTERED,
    FORGOTTEN,
    LEFT_OUT,
    UNREADABLE_LINE,
    UNREADABLE_TIME,
    kind_of,
    scan,
    source_errors,
)
from tgn_assets.ml.sources.spec import SourceError, SourceSpec, empty_source, expired_weeks, first_kept_week
from tgn_assets.ml.sources.timestamp_sql import TIMES_SAMPLED, mixed_zones, unread_times
from tgn_assets.ml.weeks import week_number, week_of

logger = logging.getLogger(__name__)

# One reading of the source, whichever weeks are asked for: of other weeks only the number of rows is of interest.
SCAN_SQL = """
    CREATE OR REPLACE TABLE scanned AS
    SELECT week, reason, kept, reason IS NULL AND kept AS loaded, CASE WHEN kept THEN user_id END AS user_id,
           CASE WHEN kept THEN event_id END AS event_id, CASE WHEN kept THEN ts END AS ts, text, names_zone
    FROM (SELECT *, week IS NULL OR week IN (SELECT unnest($weeks::DATE[])) AS kept FROM {rows})
"""
ODD_SQL = f"""
    SELECT count(*) FILTER (
               WHERE loaded AND (user_id <> trim(user_id, $blanks) OR event_id <> trim(event_id, $blanks))),
           min(text, {TIMES_SAMPLED}) FILTER (WHERE reason = '{UNREADABLE_TIME}'),
           count(*) FILTER (WHERE loaded AND names_zone), count(*) FILTER (WHERE loaded AND NOT names_zone)
    FROM scanned
"""
BLANKS = " \t\r\n\u00a0"
INGESTED_BEFORE_SQL = "SELECT week::VARCHAR, rows, digest FROM ingested_weeks WHERE rows > 0"
LEAST_KEPT = 0.8
"""Share of the rows of weeks that were ingested before; with fewer the source may not be whole."""
LEAST_USERS = 20
"""With fewer in weeks that are read again, all may be others now."""
USERS_BEFORE_SQL = """
    SELECT count(DISTINCT user_id),
           EXISTS (FROM staged.scanned SEMI JOIN users USING (user_id) WHERE loaded)
           OR NOT EXISTS (FROM staged.scanned WHERE loaded)
    FROM raw_interactions WHERE week IN (SELECT unnest($weeks::DATE[]))
"""
REJECTED_BEFORE_SQL = "SELECT reason, count(*) FROM rejected_interactions WHERE week IS NULL GROUP BY reason"
COUNT_SQL = f"""
    SELECT week::VARCHAR, reason, kept, rows, digest FROM (
        SELECT week, reason, kept, count(*) AS rows, {DIGEST_SQL} FILTER (WHERE loaded) AS digest
        FROM scanned GROUP BY ALL
    )
"""
REPLACE_SQL = [
    "DELETE FROM raw_interactions WHERE week IN (SELECT unnest($weeks::DATE[]))",
    "DELETE FROM rejected_interactions WHERE week IS NULL OR week IN (SELECT unnest($weeks::DATE[]))",
]
# As they come: most logs are in the order of time, and to sort one that is not would not make its table smaller.
INSERT_ROWS_SQL = """
    INSERT INTO raw_interactions BY NAME
    SELECT user_id, event_id, ts, week FROM staged.scanned WHERE loaded AND {wanted}
"""
INSERT_REJECTED_SQL = f"""
    INSERT INTO rejected_interactions BY NAME
    SELECT week, reason, left(user_id, {LINE_SHOWN}) AS user_id, left(event_id, {LINE_SHOWN}) AS event_id,
           left(text, {LINE_SHOWN}) AS ts
    FROM staged.scanned WHERE kept AND NOT loaded AND reason NOT IN {LEFT_OUT} AND {{wanted}}
"""
INGESTED_SQL = """
    INSERT OR REPLACE INTO ingested_weeks (week, rows, digest)
    SELECT unnest($weeks::DATE[]), unnest($rows::BIGINT[]), unnest($digests::VARCHAR[])
"""
SEEN_SQL = """
    CREATE OR REPLACE TEMP TABLE seen AS
    SELECT {node}_id AS id, min(week) AS first_week FROM staged.scanned WHERE loaded AND {wanted} GROUP BY {node}_id
"""
KNOWN_NODES_SQL = """
    UPDATE {node}s SET first_week = seen.first_week FROM seen
    WHERE {node}_id = id AND ({node}s.first_week IS NULL OR seen.first_week < {node}s.first_week)
"""
# The rows of the first week are gone: it was one of the loaded weeks, and what was loaded begins later or has none.
LOST_NODES_SQL = """
    CREATE OR REPLACE TEMP TABLE lost AS SELECT {node}_id AS id FROM {node}s
    WHERE first_week IN (SELECT unnest($weeks::DATE[]))
      AND NOT EXISTS (FROM seen WHERE id = {node}_id AND seen.first_week = {node}s.first_week)
"""
NEXT_FIRST_WEEK_SQL = """
    UPDATE {node}s SET first_week = (SELECT min(week) FROM raw_interactions AS r WHERE r.{node}_id = {node}s.{node}_id)
    WHERE {node}_id IN (FROM lost)
"""
# The order of indices is that of (first week, id): weeks loaded one by one, oldest first, or all at once give the same.
NEW_NODES_SQL = """
    INSERT INTO {node}s BY NAME
    SELECT id AS {node}_id, first_week,
           row_number() OVER (ORDER BY first_week, id) + (SELECT COALESCE(max({node}_idx), -1) FROM {node}s)
           AS {node}_idx
    FROM seen ANTI JOIN {node}s ON {node}_id = id
"""


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


@dataclass(frozen=True)
class StagedWeeks:
    """What was read of a source for `weeks`, before the warehouse is written to."""

    spec: SourceSpec
    weeks: list[str]
    start_week: str
    end_week: str | None
    database: Path
    """A DuckDB file with the table `scanned`."""
    counts: list[tuple]
    """The rows of `COUNT_SQL`, and the same of files that have no row of these weeks, and were not read."""
    unreadable: UnreadableLines
    unread_times: list[str] | None
    """Some of the times that cannot be read; None if all can."""
    with_blanks: int
    odd: list[str]
    """What to say of files that may not be whole, and of times that may be other ones than were read."""

    def newest_week(self) -> str:
        """The week of the newest row of the source; empty if no row has a time."""
        if kind_of(self.spec).reads_all:
            return max((week for week, *_ in self.counts if week), default="")
        return week_of(describe_source(self.spec).newest_row)


def load_weeks(
    con: duckdb.DuckDBPyConnection,
    spec: SourceSpec,
    weeks: Sequence[str],
    *,
    start_week: str,
    end_week: str | None,
    progress: LogFn = no_log,
    warn: LogFn = logger.warning,
) -> IngestReport:
    """`stage_weeks` and `store_weeks` at once, for a warehouse that nobody else waits for."""
    with stage_weeks(spec, weeks, start_week=start_week, end_week=end_week, progress=progress) as staged:
        return store_weeks(con, staged, warn)


@contextmanager
def stage_weeks(
    spec: SourceSpec, weeks: Sequence[str], *, start_week: str, end_week: str | None, progress: LogFn = no_log
) -> Iterator[StagedWeeks]:
    """Reads the source into a temporary file: however long that takes, no lock on the warehouse is held.

    ValueError for a week that is none or lies outside of `start_week` to `end_week`; SourceError if the source cannot
    be read or is empty.
    """
    weeks = list(dict.fromkeys(weeks))
    for week in weeks:
        week_number(week)
        if week < start_week or (end_week is not None and week > end_week):
            raise ValueError(f"week {week} lies outside of the weeks {start_week} to {end_week or 'now'}")
    with TemporaryDirectory(prefix="tgn-source-") as folder:
        database = Path(folder) / "scanned.duckdb"
        with connect(database) as con:
            with log_query_progress(con, progress, "reading the source"):
                found = scan(con, spec, SCAN_SQL, _dates(weeks), weeks)
            counts = con.execute(COUNT_SQL).fetchall()
            counts += [(group.week, group.reason, False, group.rows, None) for group in found.unread_groups()]
            with source_errors(spec):
                if not counts and not found.unreadable.count and kind_of(spec).is_empty():
                    raise empty_source(spec)
            ((blanks, unread, *zones),) = con.execute(ODD_SQL, {"blanks": BLANKS}).fetchall()
        odd = [text for text in (found.cut_short(), mixed_zones(*zones)) if text]
        yield StagedWeeks(spec, weeks, start_week, end_week, database, counts, found.unreadable, unread, blanks, odd)


def _dates(weeks: Sequence[str]) -> dict[str, list[date]]:
    return {"weeks": [date.fromisoformat(week) for week in weeks]}


def store_weeks(con: duckdb.DuckDBPyConnection, staged: StagedWeeks, warn: LogFn = logger.warning) -> IngestReport:
    """Replaces the rows of the weeks in the warehouse `con` by those that were `staged`, in one transaction.

    What was rejected, and what is odd about the ids, is told to `warn`.

    Every load replaces the rejected rows that have no week, so the tables end the same in whatever order, and however
    often, weeks are loaded. A source of bad rows only is recorded as such. SourceError if it is another log.
    """
    spec, weeks, counts = staged.spec, staged.weeks, staged.counts
    unreadable, start_week, end_week = staged.unreadable, staged.start_week, staged.end_week
    loaded = {week: (rows, digest(rows, total)) for week, reason, kept, rows, total in counts if kept and not reason}
    loaded = {week: loaded.get(week, (0, digest(0, None))) for week in weeks}
    reported = dict(con.execute(REJECTED_BEFORE_SQL).fetchall())
    before = {week: (rows, found) for week, rows, found in con.execute(INGESTED_BEFORE_SQL).fetchall()}
    stays = _expired_weeks(before, staged)
    replaced = {week: of_week for week, of_week in loaded.items() if week not in stays}
    wanted = f"coalesce(week NOT IN ({', '.join(map(literal, stays))}), true)" if stays else "true"
    con.execute(f"ATTACH {literal(str(staged.database))} AS staged (READ_ONLY)")
    try:
        _refuse_other_users(con, spec, [*replaced])
        outside = _count_outside(counts, start_week, end_week)
        all_read = kind_of(spec).reads_all
        with transaction(con):
            new_users, new_events = _write(con, _dates([*replaced]), [*replaced.values()], unreadable, wanted)
            _write_outside(con, outside if all_read else {})
    finally:
        con.execute("DETACH staged")
    rejected = Counter({UNREADABLE_LINE: unreadable.count})
    undated = Counter(rejected)
    for week, reason, kept, rows, _ in counts:
        if kept and reason and reason not in LEFT_OUT:
            rejected[reason] += rows
            undated[reason] += 0 if week else rows
    report = IngestReport(
        rows={week: rows for week, (rows, _) in (loaded | stays).items()},
        digests={week: text for week, (_, text) in (loaded | stays).items()},
        no_longer_there=sorted(stays),
        rows_before={week: before[week][0] for week in replaced if week in before},
        rejected={reason: rows for reason, rows in rejected.most_common() if rows},
        undated=dict(+undated),
        before_start=outside["before", None] if all_read else None,
        after_end=outside["after", None] if all_read else None,
        filtered=sum(rows for _, reason, kept, rows, _ in counts if kept and reason == FILTERED),
        forgotten=sum(rows for _, reason, kept, rows, _ in counts if kept and reason == FORGOTTEN),
        new_users=new_users,
        new_events=new_events,
    )
    _warn(staged, report, reported, warn)
    return report


def _refuse_other_users(con: duckdb.DuckDBPyConnection, spec: SourceSpec, weeks: Sequence[str]) -> None:
    """SourceError if `weeks` had users and now have others, none of whom was ever known: it is another log of the same
    name, or its columns were exchanged. Its lists would replace those of everybody.
    """
    before, known = con.execute(USERS_BEFORE_SQL, _dates(weeks)).fetchall()[0]
    if before >= LEAST_USERS and not known:
        span = " to ".join(dict.fromkeys((min(weeks), max(weeks))))
        raise SourceError(
            f"{spec.shown} has none of the {before:,} users that {span} had when they were ingested, and nobody else "
            f"who is known: it seems to be another log, or {spec.user_column!r} holds other ids than it did. Put the "
            "log back, or set TGN_HOME to a folder of its own for this one"
        )


def _expired_weeks(before: Mapping[str, tuple[int, str]], staged: StagedWeeks) -> dict[str, tuple[int, str]]:
    """Weeks that were asked for and stay as they are -> their rows and digest, as the source begins later now."""
    if not kind_of(staged.spec).reads_all:
        return {}
    dated = Counter[str]()
    for week, _, _, rows, _ in staged.counts:
        if week:
            dated[week] += rows
    ingested = {week: digest for week, (_, digest) in before.items()}
    stay = expired_weeks(ingested, staged.start_week, first_kept_week(dated, ingested, staged.start_week))
    return {week: before[week] for week in staged.weeks if week in stay}


def _count_outside(counts: Sequence[tuple], start_week: str, end_week: str | None) -> Counter[tuple[str, str | None]]:
    """Rows of `COUNT_SQL` by side and reason, of weeks `before` the first one and `after` the last one."""
    outside = Counter[tuple[str, str | None]]({("before", None): 0, ("after", None): 0})
    for week, reason, _, rows, _ in counts:
        if not week or reason in LEFT_OUT:
            continue
        if week < start_week:
            outside["before", reason] += rows
        elif end_week and week > end_week:
            outside["after", reason] += rows
    return outside


def _warn(staged: StagedWeeks, report: IngestReport, reported: Mapping[str, int], warn: LogFn) -> None:
    """Says what was rejected or filtered, and what is odd about the files and the ids."""
    spec, loaded = staged.spec, sum(report.rows.values())
    _warn_of_rejected(staged, report, reported, warn)
    if stay := report.no_longer_there:
        span = stay[0] if len(stay) == 1 else f"{stay[0]} to {stay[-1]}"
        warn(f"{spec.shown} begins later than it did: the rows of {span} stay as they were ingested")
    had, has = sum(report.rows_before.values()), sum(report.rows[week] for week in report.rows_before)
    if has < LEAST_KEPT * had:
        weeks = " to ".join(dict.fromkeys((min(report.rows_before), max(report.rows_before))))
        warn(
            f"{spec.shown} has {has:,} rows of {weeks}, and had {had:,} when they were ingested: is the export whole? "
            "They are read again when it changes"
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


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All that is done within is kept, or, if an exception leaves it, nothing."""
    con.begin()
    try:
        yield
    except BaseException:
        con.rollback()
        raise
    con.commit()


def _write(
    con: duckdb.DuckDBPyConnection,
    asked: dict[str, list[date]],
    loaded: Sequence[tuple[int, str]],
    unreadable: UnreadableLines,
    wanted: str,
) -> tuple[int, int]:
    """Replaces the weeks by what was scanned, `loaded` rows and their digest each; returns how many nodes are new.

    Of other weeks than `asked`, nothing is `wanted` (SQL).
    """
    for statement in REPLACE_SQL:
        con.execute(statement, asked)
    con.execute(INSERT_ROWS_SQL.format(wanted=wanted))
    con.execute(INSERT_REJECTED_SQL.format(wanted=wanted))
    # What the columns of such a line are is unknown: the line stands where its first value would.
    lines = {"lines": unreadable.first, "reason": UNREADABLE_LINE}
    con.execute("INSERT INTO rejected_interactions (reason, user_id) SELECT $reason, unnest($lines::VARCHAR[])", lines)
    more = {"more": unreadable.count - len(unreadable.first), "reason": UNREADABLE_LINE}
    con.execute("INSERT INTO rejected_interactions (reason) SELECT $reason FROM range($more)", more)
    rows, digests = [rows for rows, _ in loaded], [text for _, text in loaded]
    con.execute(INGESTED_SQL, {**asked, "rows": rows, "digests": digests})
    new = []
    for node in ("user", "event"):
        con.execute(SEEN_SQL.format(node=node, wanted=wanted))
        con.execute(KNOWN_NODES_SQL.format(node=node))
        if con.execute(LOST_NODES_SQL.format(node=node), asked).fetchall()[0][0]:
            con.execute(NEXT_FIRST_WEEK_SQL.format(node=node))
        new.append(con.execute(NEW_NODES_SQL.format(node=node)).fetchall()[0][0])
    con.execute("DROP TABLE seen; DROP TABLE lost")
    return new[0], new[1]


def _write_outside(con: duckdb.DuckDBPyConnection, outside: Mapping[tuple[str, str | None], int]) -> None:
    con.execute("DELETE FROM rows_outside_weeks")
    for (side, reason), rows in sorted(outside.items(), key=str):
        con.execute("INSERT INTO rows_outside_weeks VALUES (?, ?, ?)", [side, reason, rows])
