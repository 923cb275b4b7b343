"""`tgn check`: what was understood of a log, before anything is trained on it."""

from collections.abc import Iterator

from tgn_assets.ml.data.source_check import SourceCheck, check_source
from tgn_assets.ml.safe_text import printable
from tgn_assets.ml.sources.extent import describe_source
from tgn_assets.ml.sources.spec import SourceSpec


def check_lines(spec: SourceSpec, end_week: str | None) -> Iterator[str]:
    """Lines for the terminal; SourceError if the source cannot be read or has no row that can be used."""
    yield f"source     {spec.shown} {spec.query or ''}".rstrip()
    extent, found = describe_source(spec), check_source(spec)
    yield f"rows       {found.rows:,} can be used, of {found.users:,} users and {found.events:,} events"
    yield f"time       {found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC"
    closed = f"the newest closed one is {extent.newest_closed}" if extent.newest_closed else "none has closed yet"
    yield f"weeks      {found.weeks:,} with rows from {extent.first_week} on; {closed}"
    if not extent.newest_closed or (end_week is None and f"{found.last:%Y-%m-%d}" >= extent.newest_closed):
        yield "           a week closes with a row on its Sunday or later, or as TGN_END_WEEK"
    yield from _oddities(found)


def _oddities(found: SourceCheck) -> Iterator[str]:
    for rejection in found.rejected:
        kind = "left out  " if rejection.reason == "filtered" else "rejected  "
        yield f"{kind} {rejection.rows:,} rows, {rejection.reason}: {printable(rejection.example)}"
    if not found.rejected:
        yield "rejected   none"
    for suspicion in found.suspicions:
        yield f"look at    {printable(suspicion)}"
