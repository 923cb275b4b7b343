"""Compares what a home has published with what its source holds, for the schedule, the sensor and `tgn status`."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from tgn_assets.assets.exports import asset_name
from tgn_assets.assets.interaction_log import (
    SourceObservation,
    ingested_digest,
    read_and_store_source,
    signature_of,
)
from tgn_assets.automation.timeouts import call_with_timeout
from tgn_assets.automation.work_items import OF_A_WEEK, WorkItem, plan_work
from tgn_assets.ml.data.policy_files import PolicyError
from tgn_assets.ml.sources.spec import SourceError, rows_in
from tgn_assets.ml.weeks import span_of, week_of, weeks_between
from tgn_assets.state.artifact_store import MODELS, PIN, ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import PREDICTIONS, RAW, SNAPSHOTS, Lineage, digest_of, location_digest
from tgn_assets.state.resources import policy_files

SCHEDULE_HOUR = 6
"""Of Monday, in UTC, when the schedule requests the week that has closed: late enough for rows that arrive after
midnight."""

RESCAN_COOLDOWN = 20
"""A source is read again only after this many times the duration of the last reading. A log that grows by the minute
changes at every tick, and must not keep the machine busy with reading."""

RUN_SECONDS = 15.0
"""What an observation takes at least: its run has a process of its own."""

SIGNATURE_SECONDS = 15.0
"""Dagster ends a tick after 60 s, and a store may take longer to list its files."""

READER_PATIENCE = 10.0
"""Seconds to wait for a locked warehouse."""


class Backlog:
    """What `home` has made and what it should have, as of an observation of its source; by default, of a new one."""

    def __init__(self, home: Home, observation: SourceObservation | None = None) -> None:
        self.home = home
        self.lineage = home.warehouse(READER_PATIENCE).lineage()
        self.assets = OF_A_WEEK | {asset_name(name) for name in home.settings.export_locations()}
        self.observation = observation or read_and_store_source(home, self.lineage)
        self.lineage = replace(self.lineage, settings=self._settings())

    def _settings(self) -> Callable[[str, str], str | None]:
        """`Lineage.settings`: the location of each export, and the policy of the newest lists; older ones stay."""
        locations = self.home.settings.export_locations().items()
        asked = {asset_name(name): location_digest(location) for name, location in locations}
        newest, policy = self.observation.newest_closed, policy_files(self.home)

        def settings(asset: str, week: str) -> str | None:
            if (asset, week) != (PREDICTIONS, newest):
                return asked.get(asset)
            try:
                return policy.digest(week)
            except PolicyError as error:  # a run is asked for, and says so
                return str(error)

        return settings

    def _also_read(self) -> str:
        """Changes with the attribute files and the pinned model: a week may have failed because of them."""
        settings = self.home.settings
        paths = (settings.event_features, settings.user_features, self.home.artifacts / PIN)
        return "".join(f" {path} {_version(Path(path).expanduser())}" for path in paths if path)

    def weeks(self) -> list[str]:
        """All closed weeks, oldest first."""
        newest = self.observation.newest_closed
        return weeks_between(self.home.start_week(), newest) if newest else []

    def early_end(self) -> str | None:
        """What to say of a source that ends before the newest published week: it is hardly whole, and no week is run.

        None if it does not.
        """
        newest, closed = max(self.lineage.published, default=""), self.observation.newest_closed
        if newest <= (closed or ""):
            return None
        now = f"is {closed}" if closed else "there is none"
        return f"the newest closed week was {newest} and {now} now: are the log, TGN_END_WEEK and the clock right?"

    def lost_rows(self) -> str | None:
        """What to say of a source that has lost most rows of ingested weeks, beside those at its beginning; or None."""
        ingested, start = self.lineage.ingested, self.home.start_week()
        changed = [week for week in self.observation.changed_weeks(self.lineage, start) if week in ingested]
        before = sum(rows_in(ingested[week]) for week in changed)
        now = sum(rows_in(self.observation.digests[week]) for week in changed)
        if 2 * now >= before:
            return None
        return (
            f"of {before:,} rows of {span_of(changed)} the source has {now:,} now: is the log whole? A run makes "
            f"{'these weeks' if len(changed) > 1 else 'this week'} again from what is there"
        )

    def work_items(self, last_week: str | None = None) -> list[WorkItem]:
        """What has to be done for the closed weeks up to `last_week`, in this order."""
        artifacts = self.home.artifact_store()
        items = plan_work(
            self.weeks(),
            self.lineage,
            self.observation.digests,
            assets=self.assets,
            trained=set(artifacts.weeks("trained_ranker")),
            last_week=last_week,
            outdated={week for week in artifacts.weeks(SNAPSHOTS) if artifacts.is_outdated(SNAPSHOTS, week)},
            also_read=self._also_read,
        )
        if self.home.settings.keep_weeks is None:
            return items
        return [replace(item, assets=()) if _lacks_models(item, artifacts) else item for item in items]

    def unknown_to(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """What was made by runs of which `instance` has no history: by `tgn`, or under another DAGSTER_HOME."""
        made = {(RAW, week) for week in self.lineage.ingested} | set(self.lineage.made)
        unknown, key = [], self.home.names.key
        for asset in sorted({asset for asset, _ in made} & (self.assets | {RAW})):
            known = instance.get_materialized_partitions(key(asset))
            unknown += [(week, asset) for name, week in made if name == asset and week not in known]
        return [
            dg.AssetMaterialization(
                key(asset), partition=week, description="Made by a run that this instance did not see."
            )
            for week, asset in sorted(unknown)
        ]


def _version(path: Path) -> str:
    """Changes with what the file `path` holds, or with why it cannot be read."""
    try:
        stat = path.stat()
        return _content_digest(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) if path.is_file() else "no file"
    except OSError as error:
        return str(error.errno)


@lru_cache(maxsize=8)
def _content_digest(path: Path, *_stat: int) -> str:
    """Of the bytes of a file, which are read again only when its `_stat` is another one."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _lacks_models(item: WorkItem, artifacts: ArtifactStore) -> bool:
    """Whether lists are to be made from models that are no longer kept (TGN_KEEP_WEEKS)."""
    needed = set(MODELS) - set(item.assets) if PREDICTIONS in item.assets else set()
    return any(not artifacts.directory(asset, item.first).exists() for asset in needed)


class StoredBacklog(NamedTuple):
    """What is known without reading the source."""

    backlog: Backlog | None
    """None if the source has to be observed first."""
    signature: str
    """Of the source now; of a source that cannot be looked at, something that changes with the reason."""


def stored_backlog(home: Home) -> StoredBacklog:
    """The backlog as of the stored observation, unless the source may have changed since."""
    try:
        observation = SourceObservation.load(home)
        signature = call_with_timeout(SIGNATURE_SECONDS, lambda: signature_of(home))
    except SourceError as error:  # no week is requested from a source that is gone
        return StoredBacklog(None, digest_of(str(error).encode()))
    except TimeoutError:
        signature = "it took too long"
    backlog = Backlog(home, observation) if observation else None
    if backlog and not _is_current(backlog.observation, signature, backlog.lineage):
        backlog = None
    return StoredBacklog(backlog, signature)


def latest_backlog(home: Home) -> Backlog:
    """The backlog; reads the source if that may bring something else than the stored observation."""
    return stored_backlog(home).backlog or Backlog(home)


def _is_current(observation: SourceObservation, signature: str, lineage: Lineage) -> bool:
    """Whether the source need not be read again: it did not change, or it was read a moment ago.

    The cooldown ends early at the hour of the schedule, and when rows were ingested that the observation may not know.
    """
    if observation.signature == signature:
        return True
    now = time.time()
    return (
        0 <= now - observation.read_at < RESCAN_COOLDOWN * max(observation.seconds, RUN_SECONDS)
        and _schedule_week(observation.read_at) == _schedule_week(now)
        and observation.ingested == ingested_digest(lineage)
    )


def _schedule_week(moment: float) -> str:
    """The week from one tick of the schedule to the next that `moment` (unix seconds) lies in."""
    return week_of(datetime.fromtimestamp(moment, UTC) - timedelta(hours=SCHEDULE_HOUR))
