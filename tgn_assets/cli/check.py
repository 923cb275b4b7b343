"""`tgn check`: what was understood of a log, before anything is trained on it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tgn_assets.cli.console import Shown
from tgn_assets.ml.data.source_check import Rejection, check_source
from tgn_assets.ml.safe_text import printable, safe_text
from tgn_assets.ml.sources.extent import LAST_OF_YEAR, YEARLY_REMEDY, check_first_week
from tgn_assets.ml.sources.reader import LEFT_OUT
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.ml.weeks import week_number
from tgn_assets.reporting.tables import rows_of
from tgn_assets.settings import Settings, env_files, unknown_settings
from tgn_assets.state.home import Home


def check_sections(home: Home) -> Iterator[tuple[str, Any]]:
    """What was understood, by section; SourceError if the source cannot be read or has no row that can be used."""
    start_week, end_week = home.settings.start_week, home.settings.end_week
    yield "settings", settings_section()
    yield "source", source_section(home.settings)
    spec = home.fresh_source_spec()
    found = check_source(spec, start_week, end_week)
    extent = found.extent
    yield "rows", {"usable": found.rows, "users": found.users, "events": found.events}
    yield "time", {"first": found.first, "last": found.last}
    yield (
        "weeks",
        {
            "with_rows": len(found.digests),
            "first": extent.first_week,
            "newest_closed": extent.closed_by_rows,
            "may_close": not extent.closed_by_rows
            or (end_week is None and f"{found.last:%Y-%m-%d}" >= extent.closed_by_rows),
        },
    )
    yield "before_first_week", found.before_start
    yield "after_last_week", found.after_end
    yield "rejected", found.rejected
    about_first_week = [] if start_week else _first_week_suspicions(spec, sorted(found.digests))
    yield "suspicions", [*home.refusals(extent, found.digests), *found.suspicions, *about_first_week]


def _first_week_suspicions(spec: SourceSpec, weeks: Sequence[str]) -> Iterator[str]:
    """What a first week that no setting names may be wrong about."""
    if spec.week_number_anchor:
        number, monday = spec.week_number_anchor
        yield f"weeks have numbers: {number} is taken for the week of {monday}; set TGN_START_WEEK to its Monday"
        if (
            weeks
            and number == 1
            and week_number(weeks[-1]) - week_number(monday) + 1 in (LAST_OF_YEAR - 1, LAST_OF_YEAR)
        ):
            yield f"weeks end at that of a year: if they begin anew each, several are taken for one; {YEARLY_REMEDY}"
    try:
        check_first_week(spec, weeks)
    except SourceError as error:
        yield str(error)


def settings_section() -> dict[str, Any]:
    """Where the settings were read from, beside the environment."""
    read, above = (str(file) if file else None for file in env_files())
    return {"folder": str(Path.cwd()), "env_file": read, "unread_env_file": above, "unknown": unknown_settings()}


def settings_line(found: Mapping[str, Any]) -> Iterator[str]:
    """Which `.env` was read; that one above is not is of interest where there is none."""
    if found["env_file"]:
        yield f"settings   of the environment and {found['env_file']}"
    elif found["unread_env_file"]:
        yield f"settings   of the environment; {found['unread_env_file']} is not read, since this is {found['folder']}"
    else:
        yield f"settings   of the environment; there is no .env in {found['folder']}"
    yield from (f"look at    {name} is no setting: nothing reads it" for name in found["unknown"])


def source_section(settings: Settings) -> dict[str, Any]:
    """Which source it is, and whether a setting names it."""
    named = "source" in settings.model_fields_set
    return {"location": safe_text(settings.source), "query": settings.source_query, "named": named}


def source_line(source: Mapping[str, Any]) -> Iterator[str]:
    """Which source it is."""
    more = source["query"] or "" if source["named"] else "(TGN_SOURCE is not set: a made-up world)"
    yield f"source     {source['location']} {more}".rstrip()


def _rows(rows: Mapping[str, int]) -> Iterator[str]:
    yield f"rows       {rows['usable']:,} can be used, of {rows['users']:,} users and {rows['events']:,} events"


def _time(time: Mapping[str, datetime]) -> Iterator[str]:
    yield f"time       {time['first']:%Y-%m-%d %H:%M} to {time['last']:%Y-%m-%d %H:%M} UTC"


def _weeks(weeks: Mapping[str, Any]) -> Iterator[str]:
    closed = weeks["newest_closed"]
    newest = f"the newest closed one is {closed}" if closed else "none has closed yet"
    yield f"weeks      {weeks['with_rows']:,} with rows from {weeks['first']} on; {newest}"
    if weeks["may_close"]:
        yield "           a week closes with a row on its Sunday or later, or as TGN_END_WEEK"


def _rejected(rejected: Sequence[Rejection]) -> Iterator[str]:
    for rejection in rejected:
        kind = "left out  " if rejection.reason in LEFT_OUT else "rejected  "
        yield f"{kind} {rows_of(rejection.rows)}, {rejection.reason}: {printable(rejection.example)}"
    if not rejected:
        yield "rejected   none"


def not_used(rows: int | None, where: str) -> Iterator[str]:
    """A line about rows outside of the weeks that can be ingested, if there are any."""
    if rows:
        yield f"not used   {rows_of(rows)} {where}"


SHOWN: Shown = {
    "settings": settings_line,
    "source": source_line,
    "rows": _rows,
    "time": _time,
    "weeks": _weeks,
    "before_first_week": lambda rows: not_used(rows, "of weeks before TGN_START_WEEK"),
    "after_last_week": lambda rows: not_used(rows, "of weeks after TGN_END_WEEK"),
    "rejected": _rejected,
    "suspicions": lambda texts: (f"look at    {printable(text)}" for text in texts),
}
