"""From a source into the warehouse: validated rows, rejected rows with the reason, and indices that never change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date

import duckdb

from tgn_assets.ml.connectors.duckdb_session import transaction
from tgn_assets.ml.data.ingest_report import IngestReport, warn_of
from tgn_assets.ml.data.staging import StagedWeeks, dates, stage_weeks
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.schema import EVENT, USER, literal
from tgn_assets.ml.sources.csv_repair import LINE_SHOWN, UnreadableLines
from tgn_assets.ml.sources.extent import digest
from tgn_assets.ml.sources.reader import FILTERED, FORGOTTEN, LEFT_OUT, UNREADABLE_LINE, kind_of
from tgn_assets.ml.sources.spec import SourceError, SourceSpec, expired_weeks, first_kept_week
from tgn_assets.ml.weeks import span_of

logger = logging.getLogger(__name__)

INGESTED_BEFORE_SQL = "SELECT week::VARCHAR, rows, digest FROM ingested_weeks WHERE rows > 0"
LEAST_IDS = 20
"""With fewer in weeks that are read again, all may be others now."""
IDS_BEFORE_SQL = """
    SELECT count(DISTINCT {node}_id),
           EXISTS (FROM staged.scanned SEMI JOIN {node}s USING ({node}_id) WHERE loaded)
           OR NOT EXISTS (FROM staged.scanned WHERE loaded)
    FROM raw_interactions WHERE week IN (SELECT unnest($weeks::DATE[]))
"""
REJECTED_BEFORE_SQL = "SELECT reason, count(*) FROM rejected_interactions WHERE week IS NULL GROUP BY reason"
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
    before = _ingested_before(con)
    stays = _expired_weeks(before, staged)
    replaced = {week: of_week for week, of_week in loaded.items() if week not in stays}
    wanted = f"coalesce(week NOT IN ({', '.join(map(literal, stays))}), true)" if stays else "true"
    with _attached(con, staged):
        _refuse_other_ids(con, spec, [*replaced])
        outside = _count_outside(counts, start_week, end_week)
        all_read = kind_of(spec).reads_all
        with transaction(con):
            new_users, new_events = _write(con, dates([*replaced]), [*replaced.values()], unreadable, wanted)
            _write_outside(con, outside if all_read else {})
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
    warn_of(staged, report, reported, warn)
    return report


def refusal(con: duckdb.DuckDBPyConnection, staged: StagedWeeks) -> str | None:
    """Why `store_weeks` would refuse what was `staged`; None if it would not. Nothing is written."""
    stays = _expired_weeks(_ingested_before(con), staged)
    try:
        with _attached(con, staged):
            _refuse_other_ids(con, staged.spec, [week for week in staged.weeks if week not in stays])
    except SourceError as error:
        return str(error)
    return None


@contextmanager
def _attached(con: duckdb.DuckDBPyConnection, staged: StagedWeeks) -> Iterator[None]:
    con.execute(f"ATTACH {literal(str(staged.database))} AS staged (READ_ONLY)")
    try:
        yield
    finally:
        con.execute("DETACH staged")


def _ingested_before(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, str]]:
    """week -> rows and digest of what was ingested."""
    return {week: (rows, found) for week, rows, found in con.execute(INGESTED_BEFORE_SQL).fetchall()}


def _refuse_other_ids(con: duckdb.DuckDBPyConnection, spec: SourceSpec, weeks: Sequence[str]) -> None:
    """SourceError if `weeks` had users, or events, and now have others, none of which was ever known: it is another log
    of the same name, or its columns were exchanged. Its lists would replace those of everybody.
    """
    for node, column in ((USER, spec.user_column), (EVENT, spec.event_column)):
        before, known = con.execute(IDS_BEFORE_SQL.format(node=node), dates(weeks)).fetchall()[0]
        if before >= LEAST_IDS and not known:
            raise SourceError(
                f"{spec.shown} has none of the {before:,} {node}s that {span_of(weeks)} had when they were ingested, "
                f"and no other one that is known: it seems to be another log, or {column!r} holds other ids than it "
                "did. Put the log back, or set TGN_HOME to a folder of its own for this one"
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
