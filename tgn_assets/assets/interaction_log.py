"""The source as an asset that is observed: what the last reading of it found, kept in the home.

A tick of the schedule or a sensor must be short, so it reads this and never the source.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from tgn_assets.ml.safe_text import safe_text
from tgn_assets.ml.sources.extent import source_signature
from tgn_assets.ml.sources.spec import expired_weeks, rows_in
from tgn_assets.ml.weeks import week_of
from tgn_assets.reporting.asset_metadata import numbers
from tgn_assets.settings import SettingsError
from tgn_assets.state.home import OBSERVATION, Home
from tgn_assets.state.lineage import Lineage, digest_of
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import StateError

GROUP, LOG = "ingest", "interaction_log"


@dataclass(frozen=True)
class SourceObservation:
    """What a reading of the source found."""

    log: str
    """Digest of the settings that say what the source is and how it is read."""
    signature: str
    newest_closed: str | None
    digests: Mapping[str, str]
    """The digest of the rows of each closed week."""
    ingested: str
    """Digest of what was ingested at the time."""
    read_at: float
    """Unix seconds."""
    seconds: float
    """How long the reading took."""

    def store(self, home: Home) -> None:
        """Makes it the observation of `home`. OSError if it cannot be written."""
        home.store(OBSERVATION, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, home: Home) -> "SourceObservation | None":
        """The one of `home`; None if there is none, or it is damaged, or of another log or other settings.

        SourceError if the home does not know its log yet, and the source cannot be read.
        """
        try:
            found = TypeAdapter(cls).validate_json((home.root / OBSERVATION).read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.log == _log(home) else None

    def changed_weeks(self, lineage: Lineage, start: str) -> list[str]:
        """The closed weeks, from `start` on, of which other rows, or none, are ingested."""
        kept = expired_weeks(lineage.ingested, start, min(self.digests, default=None))
        return [
            week for week, digest in self.digests.items() if week not in kept and lineage.ingested.get(week) != digest
        ]


def signature_of(home: Home) -> str:
    """A text that moves when another reading of the source may find something else. SourceError if there is no file."""
    # A new calendar week may close a week even in a source that did not change.
    return f"{source_signature(home.source_spec())} {week_of(datetime.now(UTC))}"


def ingested_digest(lineage: Lineage) -> str:
    """A digest of which rows are ingested."""
    return digest_of(json.dumps(sorted(lineage.ingested.items())).encode())


def read_source(home: Home, lineage: Lineage) -> SourceObservation:
    """Reads the source, which may take long. SourceError if it cannot be read."""
    signature, began = signature_of(home), time.time()
    newest, digests = home.closed_weeks(lineage.ingested)
    return SourceObservation(
        _log(home), signature, newest, digests, ingested_digest(lineage), began, time.time() - began
    )


def read_and_store_source(home: Home, lineage: Lineage) -> SourceObservation:
    """`read_source`; the home keeps what was found, for the next tick, if it can be written to."""
    observation = read_source(home, lineage)
    with suppress(OSError, SettingsError, StateError):
        observation.store(home)
    return observation


def interaction_log_asset(home: Home) -> dg.AssetsDefinition:
    """The source of `home` as an asset."""
    spec = dg.AssetSpec(
        LOG,
        group_name=GROUP,
        description=(
            "The source, TGN_SOURCE. An observation reads it and notes which weeks are closed and which of them have "
            "other rows than were ingested; the sensor missing_or_changed_weeks asks for one when the source may have "
            "changed, and then requests these weeks."
        ),
    )

    @dg.multi_observable_source_asset(name=LOG, specs=[spec])
    @as_dagster_failure()
    def interaction_log() -> dg.ObserveResult:
        lineage = home.warehouse().lineage()
        observation = read_source(home, lineage)
        observation.store(home)
        changed = observation.changed_weeks(lineage, home.start_week())
        found = {
            "closed_weeks": len(observation.digests),
            "rows": sum(map(rows_in, observation.digests.values())),
            "changed_weeks": len(changed),
            "seconds": observation.seconds,
        }
        text = {
            "location": safe_text(home.settings.source),
            "newest_closed_week": observation.newest_closed or "none",
            "to_ingest": ", ".join(changed[-50:]) or "none",
        }
        return dg.ObserveResult(asset_key=dg.AssetKey(LOG), metadata={**text, **numbers(found)})

    return interaction_log


def _log(home: Home) -> str:
    spec = home.source_spec()
    return digest_of(repr((spec.location, spec, home.start_week(), home.settings.end_week)).encode())
