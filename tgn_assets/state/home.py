"""`TGN_HOME`, the folder of all state, and what is decided once in it: Dagster's configuration and the first week.

    warehouse.duckdb     the tables
    artifacts/           snapshots, checkpoints, embeddings, by asset and week
    reports/             a page about each week, <week>.html
    dagster/             DAGSTER_HOME: runs, events, schedules (SQLite) and dagster.yaml
    first_week.json      the first week of each source that was read, so that its weeks never move
    run.lock             held by the process that is working

`python -m tgn_assets.state.home` makes the folder ready and prints its `dagster/`.
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
"""Closed weeks that a synthetic source has when it is first used."""

FIRST_NUMBERED_WEEK = "2024-01-01"
"""What the smallest number of a source with `week_number` and no timestamps stands for, unless TGN_START_WEEK says."""

DAGSTER_YAML = """\
# Written once by tgn_assets; yours to edit. History is kept in SQLite files beside this one.
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
    """The paths under `settings.home`, made ready on first use, and the weeks that the source has."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.root = settings.home
        self.warehouse_path = self.root / "warehouse.duckdb"
        self.artifacts = self.root / "artifacts"
        self.reports = self.root / "reports"
        self.dagster_home = self.root / "dagster"
        self.run_lock = self.root / "run.lock"

    def ensure(self) -> "Home":
        """Create what is missing and change nothing that is there; any number of processes may do so at once.

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

        with self.ensure()._exclusive():  # two processes that create the SQLite files at once trip over each other
            return DagsterInstance.from_config(str(self.dagster_home))

    def warehouse(self, lock_timeout: float = 600) -> Warehouse:
        """The tables; `lock_timeout` is how many seconds to wait for another process that writes."""
        return Warehouse(self.warehouse_path, lock_timeout)

    def source_spec(self) -> SourceSpec:
        """What `ml` needs to know of the source. SourceError if it cannot be read when it is first met."""
        s = self.settings
        columns = s.user_column, s.event_column, s.timestamp_column
        spec = SourceSpec(s.source, *columns, row_filter=s.row_filter, query=s.source_query)
        if s.source == SYNTHETIC:
            return replace(spec, start_week=self.start_week())
        number = self._pinned("week_number", lambda: smallest_week_number(spec))
        anchor = None if number is None else (number, s.start_week or FIRST_NUMBERED_WEEK)
        return replace(spec, week_number_anchor=anchor)

    def start_week(self) -> str:
        """TGN_START_WEEK, or else the first week of the source as it was when this home first read it.

        It is written down then: rows that arrive later must not move the partitions. SourceError if the source cannot
        be read.
        """
        return self.settings.start_week or self._pinned("first_week", self._first_week)

    def newest_closed_week(self) -> str | None:
        """The newest week that is over, both by the calendar and in the source, within the first and the last week.

        In the source a week is over when its Sunday has rows or a later row follows. None if there is no such week.
        Scans the source; SourceError if it cannot be read.
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
        """What `find` found for this source when it was first asked for `name`, and written down for ever."""
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
    """All of `text` or the file as it was; only within `_exclusive`."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def main() -> None:
    from tgn_assets.settings import read_settings

    with Home(read_settings()).instance() as instance:
        print(instance.root_directory)


if __name__ == "__main__":
    main()
