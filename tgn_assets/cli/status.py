"""`tgn status`: what is published, the last score, what is missing or failed, and what to do."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pandas as pd

from tgn_assets.automation.backlog import Backlog
from tgn_assets.automation.runs import FAILED, RANGE_END, RANGE_START, UNFINISHED, has_crashed, is_ours, left_alone
from tgn_assets.automation.work_items import CHANGED, INGEST, MISSING, STALE, WorkItem
from tgn_assets.cli.check import not_used, settings_line, settings_section, source_line, source_section
from tgn_assets.cli.console import Shown
from tgn_assets.cli.runner import failure
from tgn_assets.ml.data.attribute_files import AttributeTableError
from tgn_assets.ml.data.ingest_stats import UnusedRows, unused_rows
from tgn_assets.ml.data.policy_files import PolicyError
from tgn_assets.ml.data.source_check import same_files
from tgn_assets.ml.forgotten import ForgottenListError
from tgn_assets.ml.sources.extent import YEARLY, YEARLY_REMEDY
from tgn_assets.ml.sources.spec import expired_weeks
from tgn_assets.ml.weeks import shift, span_of, weeks_between
from tgn_assets.reporting.publications import PublicationTimes, publications
from tgn_assets.reporting.tables import rows_of
from tgn_assets.reporting.terminal import left_out, newest_score, score_text, weeks_with_lists
from tgn_assets.run_launcher import fail_killed_runs
from tgn_assets.state.artifact_store import MODELS
from tgn_assets.state.dagster_compat import PARTITION
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import SNAPSHOTS
from tgn_assets.state.resources import attribute_files, policy_files
from tgn_assets.state.warehouse import StateError

RECENT = 100
"""The newest runs, among which failures are searched."""
STOPPED = "it was stopped"
"""Of a run that somebody ended in the UI."""
SAID_FOR = timedelta(weeks=1)
"""How long `tgn status` repeats a failure that leaves nothing to be done."""
UNKNOWN_SQL = """
    SELECT count(*), min(id) FROM (SELECT unnest($ids::VARCHAR[]) AS id) ANTI JOIN events ON event_id = id
"""
MOST_ITEMS, MOST_REPLACED = 10, 3
"""Lines about what is to do, and about lists that were replaced."""


def status_sections(home: Home) -> Iterator[tuple[str, Any]]:
    """What there is, by section; SourceError, after the sections about the home, if the source cannot be read.

    A home that is not there is not made: what it would have to do is found in an empty one that does not last.
    """
    if os.path.lexists(home.root):
        yield from _sections(home.ensure())
        return
    instead = {"home": str(home.root), "lost": home.missing()}
    with TemporaryDirectory(prefix="tgn-status-") as folder:
        empty = Home(home.settings.model_copy(update={"home": Path(folder)})).ensure()
        yield from ((name, instead.get(name, value)) for name, value in _sections(empty))


def _sections(home: Home) -> Iterator[tuple[str, Any]]:
    yield "home", str(home.root)
    yield "settings", settings_section()
    yield "source", source_section(home.settings)
    yield "lost", home.lost_warehouse()
    unused = yield from _published(home)
    backlog = Backlog(home)
    weeks = backlog.weeks()
    ingested = sum(week in backlog.lineage.ingested for week in weeks)
    closed = {"first": weeks[0], "newest": weeks[-1], "closed": len(weeks), "ingested": ingested} if weeks else None
    yield "weeks", closed
    items = backlog.work_items() if weeks and not backlog.early_end() else None
    odd = [*_suspicions(backlog, weeks), *_other_ids(backlog, items or ()), *_numbers_begun_anew(home, unused)]
    yield "suspicions", [*odd, *unknown_events(home), *_unusable_attributes(home)]
    left = set[str]()
    try:
        with home.instance() as instance:
            fail_killed_runs(instance, home.run_lock)
            unfinished, failed, broken_off = _runs(instance)
            left = set(left_alone(instance, items or (), home.names))
        yield "unfinished_runs", unfinished
        published = backlog.lineage.published
        yield "failed_runs", [run for run in failed if _matters(run, items or (), published, broken_off)]
    except StateError as error:  # the history of runs is not needed for the rest
        yield "history", str(error)
    yield "to_do", None if items is None else [_to_do(item, item.key in left) for item in items]


def _published(home: Home) -> Generator[tuple[str, Any], None, UnusedRows | None]:
    """The sections about what there is; returns the rows that the loads so far left unused."""
    weeks, unused, left = [], None, None
    made: Sequence[PublicationTimes] = ()
    if home.warehouse_path.exists():
        with home.warehouse().reader() as con:
            weeks, unused = weeks_with_lists(con), unused_rows(con)
            left = left_out(con, weeks[-1]) if weeks else None
            made = publications(con)
    newest = weeks[-1] if weeks else None
    target = shift(newest, 1) if newest else None
    when = next((one.published_at for one in made if one.week == newest), None)
    yield "published", {"weeks": weeks, "newest": newest, "target_week": target, "published_at": when}
    yield "replaced", [one for one in made if one.replaced]
    yield "left_out", left
    targets = reversed([*weeks, target] if target else [])
    yield "score", next(filter(None, (newest_score(home.warehouse(), week) for week in targets)), None)
    yield "pinned", home.artifact_store().pinned()
    yield "unused_rows", unused
    return unused


def _suspicions(backlog: Backlog, weeks: Sequence[str]) -> Iterator[str]:
    """What looks odd about the source beside what was ingested and published from it."""
    artifacts = backlog.home.artifact_store()
    newest, first = max(backlog.lineage.published, default=""), min(backlog.observation.digests, default=None)
    yield from filter(None, (backlog.early_end(), backlog.lost_rows()))
    if weeks and (early := [week for week in sorted(backlog.lineage.ingested) if week < weeks[0]]):
        yield f"weeks from {early[0]} on stay part of all lists, though the first week is {weeks[0]} now"
    lost = [name for name in MODELS if (name, newest) in backlog.lineage.made and newest not in artifacts.weeks(name)]
    if (pinned := artifacts.pinned()) and pinned not in artifacts.weeks("trained_ranker"):
        yield f"the model of {pinned}, which lists are to come from, is not there: `tgn models unpin`, or pin another"
    if lost and not pinned:
        yield f"{', '.join(lost)} of {newest} is gone from {artifacts.root}: the next week starts cold"
    there = artifacts.weeks(SNAPSHOTS)
    if without := {week for asset, week in backlog.lineage.made if asset == SNAPSHOTS and week not in there}:
        yield f"snapshots of {span_of(without)} are gone from {artifacts.root}: `tgn refresh` makes them again"
    if weeks and (gone := expired_weeks(backlog.lineage.ingested, weeks[0], first)):
        yield f"the log begins later than it did: the rows of {span_of(gone)} stay as they were ingested"
    yield from same_files(backlog.home.source_spec())


def _other_ids(backlog: Backlog, items: Sequence[WorkItem]) -> Iterator[str]:
    """Why the first run that `items` ask for would refuse the source."""
    if changed := next((item for item in items if item.reason == CHANGED), None):
        weeks = weeks_between(changed.first, changed.last)
        if refused := backlog.home.other_ids(backlog.observation.digests, weeks):
            yield f"{refused}; a run of a week would fail"


def _numbers_begun_anew(home: Home, unused: UnusedRows | None) -> Iterator[str]:
    """What rows may be that have a smaller number than the first week."""
    if unused and unused.before_first_week and home.source_spec().week_number_anchor:
        count = rows_of(unused.before_first_week)
        yield f"{count} of weeks before the first one: the week numbers {YEARLY}; {YEARLY_REMEDY}"


def _unusable_attributes(home: Home) -> Iterator[str]:
    """Why a week could not read the attribute files."""
    nobody = pd.DataFrame({"idx": [0], "id": [""]})
    try:
        attribute_files(home).read(nobody, nobody, home.start_week())
    except AttributeTableError as error:
        yield f"{error}; a run of a week would fail"


def unknown_events(home: Home) -> Iterator[str]:
    """What the policy names that the log does not have: it may be written in another way."""
    try:
        named = policy_files(home).read().named()
    except (PolicyError, ForgottenListError) as error:
        yield f"{error}; a run of a week would fail"
        return
    if not any(named.values()) or not home.warehouse_path.exists():
        return
    with home.warehouse().reader() as con:
        for setting, ids in named.items():
            count, sample = con.execute(UNKNOWN_SQL, {"ids": sorted(ids)}).fetchall()[0]
            if count:
                yield f"{setting} names {count:,} of {len(ids):,} ids that no event of the log has, such as {sample!r}"


def _runs(instance: dg.DagsterInstance) -> tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]]:
    """Unfinished runs, those that failed or were stopped, with no newer run of the same weeks, and the ids of those
    among these that were killed or stopped: they left nothing to be done but what is pending.
    """
    seen, broken_off = set[str](), set[str]()
    unfinished, failed = [], []
    for record in instance.get_run_records(limit=RECENT):
        run = record.dagster_run
        week = run.tags.get(PARTITION)
        if not is_ours(run) or not (week or RANGE_START in run.tags):
            continue
        weeks = week or f"{run.tags.get(RANGE_START)} to {run.tags.get(RANGE_END)}"
        if run.status in UNFINISHED:
            if run.status == dg.DagsterRunStatus.NOT_STARTED and weeks in seen:
                continue  # a newer run did what this one was to do before it was killed
            unfinished.append({"weeks": weeks, "status": run.status.value.lower(), "run_id": run.run_id})
        elif weeks not in seen and run.status in FAILED:
            events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
            stopped = run.status == dg.DagsterRunStatus.CANCELED
            cause = STOPPED if stopped else str(failure(events, run.run_id))
            again, when = f"tgn refresh --week {week}" if week else "tgn refresh", record.update_timestamp
            failed.append({"weeks": weeks, "time": when, "cause": cause, "remedy": again, "run_id": run.run_id})
            broken_off |= {run.run_id} if stopped or has_crashed(instance, run) else set()
        seen.add(weeks)
    return unfinished, failed, broken_off


def _matters(run: Mapping[str, Any], items: Sequence[WorkItem], published: Set[str], broken_off: Set[str]) -> bool:
    """Whether a failed `run` left something to be done, of these `items`, or failed to make again a week that is
    complete. A week before the first `published` one, which a backtest could not make, needs no lists: it is said of
    for `SAID_FOR`.
    """
    first, _, last = run["weeks"].partition(" to ")
    if any(item.first <= (last or first) and first <= item.last for item in items):
        return True
    is_new = run["time"] > datetime.now(UTC) - SAID_FOR
    return run["run_id"] not in broken_off and not last and (is_new or first >= min(published, default=""))


def _to_do(item: WorkItem, alone: bool) -> dict[str, Any]:
    return {
        "first_week": item.first,
        "last_week": item.last,
        "action": item.action,
        "reason": item.reason,
        "assets": item.assets,
        "text": _remedy(item, alone),
    }


def _remedy(item: WorkItem, alone: bool) -> str:
    """What is to do, and who does it: the sensor, unless it leaves the item `alone`."""
    assets = ", ".join(item.assets) or "its assets"
    one = item.first == item.last
    what = {
        MISSING: f"{'is' if one else 'are'} not ingested" if item.action == INGEST else "has no predictions",
        CHANGED: f"{'has' if one else 'have'} changed in the source since ingested",
        STALE: "snapshots were made from something older, or by an earlier version"
        if item.action == INGEST
        else f"{assets} {'was' if len(item.assets) == 1 else 'were'} made from something older, or other settings",
    }[item.reason]
    who = "the sensor does it, or `tgn refresh`"
    if alone:
        who = "`tgn refresh` does it, the sensor does not after what failed"
    return f"{item.weeks} {what}: {who}"


def _show_published(published: Mapping[str, Any]) -> Iterator[str]:
    if not (weeks := published["weeks"]):
        yield "published  nothing yet"
        return
    made = "1 week" if len(weeks) == 1 else f"{len(weeks):,} weeks"
    newest, target = published["newest"], published["target_week"]
    when = f", at {published['published_at']:%Y-%m-%d %H:%M} UTC" if published["published_at"] else ""
    yield f"published  {made}, the newest at the close of {newest} for the week of {target}{when}"


def _show_replaced(replaced: Sequence[PublicationTimes]) -> Iterator[str]:
    yield from (f"replaced   {one}" for one in replaced[: -MOST_REPLACED - 1 : -1])
    if len(replaced) > MOST_REPLACED:
        yield f"           and those of {len(replaced) - MOST_REPLACED:,} earlier weeks"


def _show_unused(unused: UnusedRows | None) -> Iterator[str]:
    if unused is None:
        return
    if unused.rejected:
        rows = f"{rows_of(sum(unused.rejected.values()))} of the source ({_reasons(unused.rejected)})"
        yield f"rejected   {rows}: table rejected_interactions has the reason of each"
    yield from not_used(unused.before_first_week, "of weeks before the first one")
    yield from not_used(unused.after_last_week, "of weeks after TGN_END_WEEK")
    outside = unused.rejected_outside
    yield from not_used(
        sum(outside.values()), f"of earlier or later weeks that could not be used ({_reasons(outside)})"
    )


def _reasons(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in rows.items())


def _show_weeks(weeks: Mapping[str, Any] | None) -> Iterator[str]:
    if weeks is None:
        yield (
            "weeks      none from TGN_START_WEEK to TGN_END_WEEK has closed in the source yet; `tgn check` says which "
            "rows were understood"
        )
        return
    closed = f"weeks      {weeks['first']} to {weeks['newest']} are closed"
    yield f"{closed}; {weeks['ingested']:,} of {weeks['closed']:,} are ingested"


def _show_failed(failed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for run in failed:
        yield f"failed     {run['weeks']} at {run['time']:%Y-%m-%d %H:%M} UTC: {run['cause']} (run {run['run_id'][:8]})"
        yield f"           `{run['remedy']}` runs it again; until then, the published lists stay"


def _show_to_do(items: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    if items is None:
        yield "to do      nothing before a new week has closed in the source"
        return
    yield from (f"to do      {item['text']}" for item in items[:MOST_ITEMS])
    if len(items) > MOST_ITEMS:
        yield f"           and {len(items) - MOST_ITEMS:,} more"
    if not items:
        yield "to do      nothing: every closed week is complete"


WAITS = {
    "queued": ": a Dagster daemon (`tgn dev`) starts it once earlier runs have ended",
    "not_started": ": it is about to start, or was killed before, which is known 5 minutes later",
}
NO_SCORE = "none yet: it takes lists and the week after them"
SHOWN: Shown = {
    "home": lambda root: [f"home       {root}"],
    "settings": settings_line,
    "source": source_line,
    "lost": lambda lost: [f"look at    {lost}"] if lost else [],
    "published": _show_published,
    "replaced": _show_replaced,
    "left_out": lambda left: [f"left out   {left}"] if left else [],
    "score": lambda score: [f"score      {score_text(score) if score else NO_SCORE}"],
    "pinned": lambda week: (
        [f"pinned     lists come from the model of {week}; `tgn models unpin` ends it"] if week else []
    ),
    "unused_rows": _show_unused,
    "weeks": _show_weeks,
    "suspicions": lambda texts: (f"look at    {text}" for text in texts),
    "unfinished_runs": lambda runs: (
        f"run        {run['weeks']} is {run['status']}{WAITS.get(run['status'], '')} (run {run['run_id'][:8]})"
        for run in runs
    ),
    "failed_runs": _show_failed,
    "history": lambda trouble: [f"runs       {trouble}"],
    "to_do": _show_to_do,
}
