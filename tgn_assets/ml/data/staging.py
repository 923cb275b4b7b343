"""The reading of a source, before the warehouse is written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.progress import LogFn, log_query_progress, no_log
from tgn_assets.ml.sources.csv_repair import UnreadableLines
from tgn_assets.ml.sources.extent import DIGEST_SQL, describe_source
from tgn_assets.ml.sources.reader import UNREADABLE_TIME, kind_of, scan, source_errors
from tgn_assets.ml.sources.spec import SourceSpec, empty_source
from tgn_assets.ml.sources.timestamp_sql import TIMES_SAMPLED, mixed_zones
from tgn_assets.ml.weeks import week_number, week_of

# One reading of the source, whichever weeks are asked for: of other weeks only the number of rows is of interest.
SCAN_SQL = """
    CREATE OR REPLACE TABLE scanned AS
    SELECT week, reason, kept, reason IS NULL AND kept AS loaded, CASE WHEN kept THEN user_id END AS user_id,
           CASE WHEN kept THEN event_id END AS event_id, CASE WHEN kept THEN ts END AS ts, text, names_zone
    FROM (SELECT *, week IS NULL OR week IN (SELECT unnest($weeks::DATE[])) AS kept FROM {rows})
"""
ENDS = ("user_id[1]", "user_id[-1]", "event_id[1]", "event_id[-1]")
ODD_SQL = f"""
    SELECT count(*) FILTER (WHERE loaded AND ({" OR ".join(f"ord({end}) IN $blanks" for end in ENDS)})),
           min(text, {TIMES_SAMPLED}) FILTER (WHERE reason = '{UNREADABLE_TIME}'),
           count(*) FILTER (WHERE loaded AND names_zone), count(*) FILTER (WHERE loaded AND NOT names_zone)
    FROM scanned
"""
BLANKS = [ord(blank) for blank in " \t\r\n\u00a0"]
COUNT_SQL = f"""
    SELECT week::VARCHAR, reason, kept, rows, digest FROM (
        SELECT week, reason, kept, count(*) AS rows, {DIGEST_SQL} FILTER (WHERE loaded) AS digest
        FROM scanned GROUP BY ALL
    )
"""


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
            con.execute("SET force_compression = 'uncompressed'")  # it is read once: compression takes a quarter longer
            with log_query_progress(con, progress, "reading the source"):
                found = scan(con, spec, SCAN_SQL, dates(weeks), weeks)
            counts = con.execute(COUNT_SQL).fetchall()
            counts += [(group.week, group.reason, False, group.rows, None) for group in found.unread_groups()]
            with source_errors(spec):
                if not counts and not found.unreadable.count and kind_of(spec).is_empty():
                    raise empty_source(spec)
            ((blanks, unread, *zones),) = con.execute(ODD_SQL, {"blanks": BLANKS}).fetchall()
        odd = [text for text in (found.cut_short(), mixed_zones(*zones)) if text]
        yield StagedWeeks(spec, weeks, start_week, end_week, database, counts, found.unreadable, unread, blanks, odd)


def dates(weeks: Sequence[str]) -> dict[str, list[date]]:
    """The parameter `weeks` of a query."""
    return {"weeks": [date.fromisoformat(week) for week in weeks]}
