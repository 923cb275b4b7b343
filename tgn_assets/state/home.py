"""`TGN_HOME`, the folder of all state, with Dagster's configuration and the first week of each source.

    warehouse.duckdb     the tables
    artifacts/           snapshots, checkpoints, embeddings, by asset and week
    reports/             a page about each week, <week>.html
    dagster/             DAGSTER_HOME: runs, events, schedules (SQLite) and dagster.yaml
    first_week.json      the first week of each source, which never changes
    run.lock             held by the process whose run is in progress
    home.lock            held for a moment by a process that writes dagster.yaml or first_week.json

`python -m tgn_assets.state.home` creates the folder and prints the path of its `dagster/`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from tgn_assets.ml.sources.extent import SourceSpec, describe_source, smallest_week_number
from tgn_assets.ml.sources.spec import SYNTHETIC, last_ended_week
from tgn_assets.ml.weeks import shift
from tgn_assets.settings import Settings, SettingsError
from tgn_assets.state.warehouse import Warehouse

if TYPE_CHECKING:
    from dagster import DagsterInstance

T = TypeVar("T")

SYNTHETIC_WEEKS = 26
"""The number of closed weeks of a synthetic source when it is first used."""

FIRST_NUMBERED_WEEK = "2024-01-01"
"""The week of the smallest `week_number` of a source without timestamps, unless TGN_START_WEEK is set."""

DAGSTER_YAML = """\
# Written once by tgn_assets; yours to edit. Runs and events are kept in SQLite files beside this one.
telemetry:
  enabled: false
nux:
  enabled: false
# One weekly run at a time, the others wait in the queue: each week starts from the model of the week before.
concurrency:
  runs:
    max_concurrent_runs: 1
# A run whose process was killed is marked failed, so that it does not hold up the queue.
run_launcher:
  module: tgn_assets.run_launcher
  class: WatchfulRunLauncher
  config: {}
# weekly_top5_predictions turns overdue if no lists were made by Monday noon (UTC).
freshness:
  enabled: true
run_monitoring:
  enabled: true
  poll_interval_seconds: 15
  start_timeout_seconds: 300
  cancel_timeout_seconds: 60
"""


class Home:
    """The paths under `settings.home`, created on first use, and the weeks of the source."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = settings.home
        self.warehouse_path = self.root / "warehouse.duckdb"
        self.artifacts = self.root / "artifacts"
        self.reports = self.root / "reports"
        self.dagster_home = self.root / "dagster"
        self.run_lock = self.root / "run.lock"

    def ensure(self) -> "Home":
        """Create what is missing, and change nothing that exists; any number of processes may do so at once.

        SettingsError if TGN_HOME cannot be written to.
        """
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            self.dagster_home.mkdir(exist_ok=True)
        except OSError as error:
            raise SettingsError(f"TGN_HOME={self.root} cannot be used: {error.strerror} ({error.filename})") from error
        config = self.dagster_home / "dagster.yaml"
        if not config.exists():
            with self._exclusive():
                if not config.exists():
                    _write(config, DAGSTER_YAML)
        return self

    def instance(self) -> "DagsterInstance":
        """The Dagster instance of this home; use it as a context manager."""
        from dagster import DagsterInstance

        with self.ensure()._exclusive():  # only one process may create the SQLite files
            return DagsterInstance.from_config(str(self.dagster_home))

    def warehouse(self, lock_timeout: float = 600) -> Warehouse:
        """The tables; waits at most `lock_timeout` seconds for another process that writes."""
        return Warehouse(self.warehouse_path, lock_timeout)

    def source_spec(self) -> SourceSpec:
        """The source, for `ml`. SourceError if it cannot be read when it is used for the first time."""
        s = self.settings
        columns = s.user_column, s.event_column, s.timestamp_column
        spec = SourceSpec(s.source, *columns, row_filter=s.row_filter, query=s.source_query)
        if s.source == SYNTHETIC:
            return replace(spec, start_week=self.start_week())
        number = self._pinned("week_number", lambda: smallest_week_number(spec))
        anchor = None if number is None else (number, s.start_week or FIRST_NUMBERED_WEEK)
        return replace(spec, week_number_anchor=anchor)

    def start_week(self) -> str:
        """TGN_START_WEEK, or the first week that the source had when this home first read it.

        That week is stored: rows that arrive later must not move the partitions. SourceError if the source cannot be
        read.
        """
        return self.settings.start_week or self._pinned("first_week", self._first_week)

    def newest_closed_week(self) -> str | None:
        """The newest week that is over, by the calendar and in the source, from the first to the last week.

        In the source a week is over when there is a row on its Sunday or later. None if there is no such week. Scans
        the source; SourceError if it cannot be read.
        """
        closed = describe_source(self.source_spec()).newest_closed
        if closed is None:
            return None
        newest = min(week for week in (closed, last_ended_week(), self.settings.end_week) if week)
        return newest if newest >= self.start_week() else None

    def _first_week(self) -> str:
        if self.settings.source == SYNTHETIC:
            return shift(last_ended_week(), -SYNTHETIC_WEEKS + 1)
        return describe_source(self.source_spec()).first_week

    def _pinned(self, name: str, find: Callable[[], T]) -> T:
        """The value `name` of this source: what `find` returned the first time, stored for ever."""
        s, file = self.settings, self.root / "first_week.json"
        log = f"{s.source} {s.source_query}" if s.source_query else s.source
        source = f"{log} ({s.user_column}, {s.event_column}, {s.timestamp_column})"
        if name in (known := _read(file).get(source, {})):
            return known[name]
        found = find()
        with self.ensure()._exclusive():
            pinned = _read(file)
            value = pinned.setdefault(source, {}).setdefault(name, found)
            _write(file, json.dumps(pinned, indent=2) + "\n")
        return value

    def _exclusive(self) -> FileLock:
        """A context for one thread of one process at a time; the kernel releases the lock of a killed process."""
        return FileLock(self.root / "home.lock")


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}


def _write(path: Path, text: str) -> None:
    """Replaces the file with `text` as a whole; call it within `_exclusive`."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def main() -> None:
    """Creates the home that the settings name and prints DAGSTER_HOME."""
    from tgn_assets.settings import read_settings

    with Home(read_settings()).instance() as instance:
        print(instance.root_directory)


if __name__ == "__main__":
    main()
