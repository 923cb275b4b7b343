"""`TGN_HOME`, the folder of all state of one log, with Dagster's configuration and the first week of the log.

docs/design.md, "Where state lies", says what each file is and which may be deleted.

`python -m tgn_assets.state.home` creates the folder and prints the path of its `dagster/`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from tgn_assets.ml.connectors.object_store import is_url
from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.data.ingest import refusal
from tgn_assets.ml.data.staging import stage_weeks
from tgn_assets.ml.safe_text import of_the_system, redacted
from tgn_assets.ml.sources.extent import (
    LONG_GAP,
    describe_source,
    first_week_of,
    newest_closed_week,
    smallest_week_number,
    source_digests,
    survey_source,
)
from tgn_assets.ml.sources.spec import (
    EMPTY_DIGEST,
    SYNTHETIC,
    SourceExtent,
    SourceSpec,
    first_kept_week,
    last_ended_week,
)
from tgn_assets.ml.sources.synthetic import WEEKS
from tgn_assets.ml.sources.timestamp_sql import TimeStyle
from tgn_assets.ml.weeks import is_week, shift, week_number, weeks_between
from tgn_assets.names import PLAIN, Names
from tgn_assets.settings import Settings, SettingsError
from tgn_assets.state import published_copy
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.dagster_history import open_instance
from tgn_assets.state.lineage import SNAPSHOTS
from tgn_assets.state.warehouse import StateError, Warehouse

if TYPE_CHECKING:
    from dagster import DagsterInstance

T = TypeVar("T")

WAREHOUSE, LOG, SUMMARIES = "warehouse.duckdb", "log.json", "source_files.json"
OBSERVATION, FORGOTTEN, ALERTS = "observation.json", "forgotten.json", "alerts.json"
RUN_LOCK, HOME_LOCK = "run.lock", "home.lock"
FILES = (
    WAREHOUSE,
    published_copy.NAME,
    LOG,
    OBSERVATION,
    FORGOTTEN,
    ALERTS,
    HOME_LOCK,
    RUN_LOCK,
    "dagster/dagster.yaml",
)
"""Files in whose place a folder is refused (`Home.misplaced`); `SUMMARIES` then counts as lost."""
FOLDERS = ("artifacts", "reports", "dagster")

FIRST_NUMBERED_WEEK = "2024-01-01"
"""The week of the smallest `week_number` of a source without timestamps, unless TGN_START_WEEK is set."""

DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")
"""The configuration that a new home starts with."""


class Home:
    """The paths under `settings.home`, created on first use, the weeks of the source, and the names in Dagster."""

    def __init__(self, settings: Settings, names: Names = PLAIN) -> None:
        self.settings, self.names = settings, names
        self.root = settings.home
        self.warehouse_path = self.root / WAREHOUSE
        self.artifacts = self.root / "artifacts"
        self.reports = self.root / "reports"
        self.dagster_home = self.root / "dagster"
        self.run_lock = self.root / RUN_LOCK

    def ensure(self) -> "Home":
        """Create what is missing, and change nothing that exists; any number of processes may do so at once.

        SettingsError if TGN_HOME cannot be written to, StateError if something in it is of the wrong kind.
        """
        for wrong in self.misplaced():
            raise StateError(wrong)
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            self.dagster_home.mkdir(exist_ok=True)
            config = self.dagster_home / "dagster.yaml"
            if not config.exists():
                with self._lock():
                    if not config.exists():
                        replace_text(config, DAGSTER_YAML.read_text("utf-8"))
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise SettingsError(
                f"TGN_HOME={self.root} cannot be used: {error.strerror}{where}; name a folder that this user may "
                "write to"
            ) from error
        return self

    def missing(self) -> str | None:
        """What to say if there is no such folder; None if there is one."""
        return None if self.root.is_dir() else f"there is no folder TGN_HOME={self.root}; `tgn refresh` makes it"

    def misplaced(self) -> list[str]:
        """What is a folder and should be a file, or the other way round, and what to do about it."""
        files = (self.root / name for name in FILES if (self.root / name).is_dir())
        folders = (self.root / name for name in FOLDERS)
        return [
            *(f"{path} is a folder and should be a file: move it away" for path in files),
            *(
                f"{path} is no folder: move it away, or mend the link"
                for path in folders
                if (path.exists() or path.is_symlink()) and not path.is_dir()  # in this order: it may just be made
            ),
        ]

    def lost_warehouse(self) -> str | None:
        """What to say if the warehouse is gone and what was made from it is there; None if it is not so."""
        if self.warehouse_path.exists() or not self.artifact_store().weeks(SNAPSHOTS):
            return None
        return (
            f"{self.warehouse_path} is missing, and with it the lists and scores of earlier weeks: put a backup in "
            "its place, or let `tgn refresh` make the weeks again"
        )

    @contextmanager
    def instance(self) -> "Iterator[DagsterInstance]":
        """The Dagster instance of this home; StateError if its configuration or its files cannot be used."""
        self.ensure()
        with open_instance(self.dagster_home, self._lock()) as instance:
            yield instance

    def store(self, name: str, text: str) -> None:
        """Replaces the file `name` of this home with `text` as a whole. OSError if it cannot be written."""
        self.ensure()
        with self._lock():
            replace_text(self.root / name, text)

    def warehouse(self, lock_timeout: float = 600) -> Warehouse:
        """The tables; waits at most `lock_timeout` seconds for another process that writes."""
        return Warehouse(self.warehouse_path, lock_timeout)

    def artifact_store(self) -> ArtifactStore:
        """Snapshots, models and embeddings."""
        return ArtifactStore(self.artifacts)

    def source_spec(self) -> SourceSpec:
        """The source, for `ml`.

        SourceError if it cannot be read when it is used for the first time, SettingsError if this home has another log.
        """
        spec = self._spec(self._remembered("week_number", partial(smallest_week_number, self._spec(None))))
        spec = replace(spec, summaries=self.root / SUMMARIES)
        return replace(spec, start_week=self.start_week()) if self.settings.source == SYNTHETIC else spec

    def fresh_source_spec(self) -> SourceSpec:
        """The source as if this home had never read it; nothing is stored. SourceError as of `source_spec`."""
        return self._spec(smallest_week_number(self._spec(None)))

    def _spec(self, smallest: int | None) -> SourceSpec:
        s = self.settings
        return SourceSpec(
            s.source,
            *(s.user_column, s.event_column, s.timestamp_column),
            week_number_anchor=None if smallest is None else (smallest, s.start_week or FIRST_NUMBERED_WEEK),
            row_filter=s.row_filter,
            query=s.source_query,
            time_style=TimeStyle(s.timestamp_format, s.time_zone),
            null_values=s.null_words(),
            forgotten=self.root / FORGOTTEN,
        )

    def start_week(self) -> str:
        """TGN_START_WEEK, or the first week that the source had when this home first read it.

        That week is stored: rows that arrive later must not move the partitions. SourceError if the source cannot be
        read.
        """
        return self.settings.start_week or self._remembered("first_week", self._first_week)

    def newest_closed_week(self) -> str | None:
        """The newest week that is over, from the first to the last one of the settings (`newest_closed_week` in
        `ml/sources/extent.py`); None if there is none yet.

        Scans the source; SourceError if it cannot be read.
        """
        return self._newest_closed(describe_source(self.source_spec()))

    def closed_weeks(self, ingested: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
        """`newest_closed_week`, and the digest of each closed week's rows in the source now, by one reading.

        Weeks that the source no longer has at its beginning are left out. `ingested`, digests of what was ingested,
        tells a few late rows of such a week from a week that the source still has (`first_kept_week`).
        """
        spec = self.source_spec()
        extent, digests = survey_source(spec, since=self.start_week())
        newest = self._newest_closed(extent)
        weeks = weeks_between(self.start_week(), newest) if newest else []
        if digests is None:
            return newest, source_digests(spec, weeks) if weeks else {}
        first = first_kept_week(extent.dated, ingested, self.start_week())
        return newest, {week: digests.get(week, EMPTY_DIGEST) for week in weeks if week >= (first or week)}

    def _newest_closed(self, extent: SourceExtent) -> str | None:
        self._refuse_early_start(extent)
        return newest_closed_week(
            extent, first_week=self.start_week(), end_week=self.settings.end_week, last_ended=last_ended_week()
        )

    def _refuse_early_start(self, extent: SourceExtent) -> None:
        """SettingsError if a new home is to begin years before its log: of a log that forgets, weeks are ingested."""
        start = self.settings.start_week
        early = week_number(extent.first_week) - week_number(start) if start else 0
        if early >= LONG_GAP and not self.warehouse().lineage().ingested:
            source = redacted(self.settings.source)
            raise SettingsError(
                f"TGN_START_WEEK={start} is {early:,} weeks before the first row of TGN_SOURCE={source}: set it to "
                f"{extent.first_week} or later"
            )

    def refusals(self, extent: SourceExtent, digests: Mapping[str, str]) -> Iterator[str]:
        """Why no run in this home would take the log that the settings name, whose rows span `extent` and have these
        `digests` by week; nothing is stored.
        """
        try:
            self._of_this_log(read_log(self.root / LOG))
            self._refuse_early_start(extent)
            yield from filter(None, [self.other_ids(digests, sorted(digests))])
        except (SettingsError, StateError) as error:
            yield str(error)

    def other_ids(self, digests: Mapping[str, str], weeks: Sequence[str]) -> str | None:
        """Why a run of `weeks` would refuse the source, whose rows have these `digests` by week: all its users, or
        events, are others. None if it would not, or if any week has the rows that were ingested: then the source is not
        read again for it.
        """
        ingested = {week: of for week, of in self.warehouse().lineage().ingested.items() if of != EMPTY_DIGEST}
        if not ingested or any(digests.get(week) == of for week, of in ingested.items()):
            return None
        known = self._of_this_log(read_log(self.root / LOG))  # `tgn check` stores nothing
        first, last = self.settings.start_week or known.get("first_week") or min(ingested), self.settings.end_week
        asked = [week for week in weeks if week in ingested and first <= week and (last is None or week <= last)]
        with (
            stage_weeks(self._spec(known.get("week_number")), asked, start_week=first, end_week=last) as staged,
            self.warehouse().reader() as con,
        ):
            return refusal(con, staged)

    def _first_week(self) -> str:
        if self.settings.source == SYNTHETIC:
            return shift(last_ended_week(), 1 - WEEKS)
        return min(self.warehouse().lineage().ingested, default=None) or first_week_of(self.source_spec())

    def _remembered(self, name: str, find: Callable[[], T]) -> T:
        """The value `name` of the log of this home: what `find` returned the first time, stored for ever.

        SettingsError if the home holds the rows of another log.
        """
        file = self.root / LOG
        stored = read_log(file)
        known = self._of_this_log(stored)
        if name in known and known == stored:
            return known[name]
        found = known[name] if name in known else find()
        self.ensure()
        with self._lock():
            known = self._of_this_log(read_log(file))
            value = known.setdefault(name, found)
            replace_text(file, json.dumps(known, indent=2) + "\n")
        return value

    def _of_this_log(self, known: dict[str, Any]) -> dict[str, Any]:
        """`known`, as of the log that the settings name; nothing is known of another one if there are no rows yet."""
        s = self.settings
        this = {
            "source": _canonical_source(redacted(s.source)),
            "query": s.source_query,
            "columns": [s.user_column, s.event_column, s.timestamp_column],
            "read_as": [s.timestamp_format, s.time_zone, s.null_values, s.row_filter],
        }
        if {name: known.get(name) for name in this} == this:
            return known
        rows = {week: digest for week, digest in self.warehouse().lineage().ingested.items() if digest != EMPTY_DIGEST}
        if not rows:
            return this
        stays = all(known.get(name) == this[name] for name in ("source", "query", "columns"))
        if not stays and not self._has_any_week(rows, known.get("week_number")):
            former, columns = known.get("source", "of an unknown source"), known.get("columns", ())
            raise SettingsError(
                f"TGN_HOME={self.root} holds the log {former} with the columns {', '.join(columns) or 'unknown'}, and "
                f"TGN_SOURCE={s.source} with {s.user_column}, {s.event_column}, {s.timestamp_column} has no week with "
                f"the same rows as one of its {len(rows)}: set TGN_HOME to a folder of its own for this log, or these "
                "settings to what they were"
            )
        return known | this

    def _has_any_week(self, rows: Mapping[str, str], smallest: int | None) -> bool:
        """Whether the source has one of these weeks, by the digest of its rows: then the log has only moved."""
        now = source_digests(self._spec(smallest), sorted(rows))
        return any(now[week] == digest for week, digest in rows.items())

    def _lock(self) -> FileLock:
        """A context for one thread of one process at a time; the kernel releases the lock of a killed process."""
        return FileLock(self.root / HOME_LOCK)


def _canonical_source(source: str) -> str:
    """`source`, as an absolute path if it is one: `log.csv` and `./log.csv` are one log."""
    return source if source == SYNTHETIC or is_url(source) else os.path.abspath(Path(source).expanduser())


def read_log(file: Path) -> dict[str, Any]:
    """What the file `LOG` has of the log; StateError if it is damaged."""
    try:
        if isinstance(known := json.loads(file.read_text("utf-8")), dict):
            week, number = known.get("first_week"), known.get("week_number")
            if (week is None or is_week(str(week))) and isinstance(number, int | None):
                return known
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StateError(of_the_system(error)) from error
    except ValueError:
        pass
    raise StateError(
        f"{file} is damaged; remove it: the first week of the log is found anew, or set TGN_START_WEEK to it"
    )


def main() -> None:
    """Creates the home that the settings name and prints DAGSTER_HOME."""
    from tgn_assets.settings import read_settings

    with Home(read_settings()).instance() as instance:
        print(instance.root_directory)


if __name__ == "__main__":
    main()
