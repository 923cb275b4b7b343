"""`tgn status`: what is published, the last score, what is missing or failed, and what to do."""

from collections.abc import Iterator

import dagster as dg

from tgn_assets.automation.backlog import PARTITION, RANGE_END, RANGE_START, UNFINISHED, Backlog, is_ours
from tgn_assets.automation.work_items import CHANGED, INGEST, MISSING, STALE, WorkItem
from tgn_assets.cli.runner import failure
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.terminal import score_line, weeks_with_lists
from tgn_assets.run_launcher import fail_killed_runs
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import StateError

RECENT = 100
"""The newest runs, among which failures are searched."""


def status_lines(home: Home) -> Iterator[str]:
    """Lines for the terminal; SourceError, after the lines about the home, if the source cannot be read."""
    yield f"home       {home.root}"
    yield f"source     {home.settings.source} {home.settings.source_query or ''}".rstrip()
    yield from _published(home)
    backlog = Backlog(home)
    yield from _source(backlog)
    try:
        with home.instance() as instance:
            fail_killed_runs(instance, home.run_lock)
            yield from _runs(instance)
    except StateError as error:  # the history of runs is not needed for the rest
        yield f"runs       {error}"
    items = backlog.work_items()
    yield from (f"to do      {_remedy(item)}" for item in items[:10])
    if len(items) > 10:
        yield f"           and {len(items) - 10} more"
    if not items:
        yield "to do      nothing: every closed week is complete"


def _published(home: Home) -> Iterator[str]:
    weeks, rejected = [], 0
    if home.warehouse_path.exists():
        with home.warehouse().reader() as con:
            weeks = weeks_with_lists(con)
            rejected = con.execute("SELECT count(*) FROM rejected_interactions").fetchall()[0][0]
    if not weeks:
        yield "published  nothing yet"
        return
    made = "1 week" if len(weeks) == 1 else f"{len(weeks)} weeks"
    yield f"published  {made}, the newest at the close of {weeks[-1]} for the week of {shift(weeks[-1], 1)}"
    scores = (score_line(home.warehouse(), week) for week in reversed([*weeks, shift(weeks[-1], 1)]))
    yield f"score      {next((line for line in scores if line), 'none yet: it takes lists and the week after them')}"
    if pinned := ArtifactStore(home.artifacts).pinned():
        yield f"pinned     lists come from the model of {pinned}; `tgn models unpin` ends it"
    if rejected:
        yield f"rejected   {rejected:,} rows of the source: table rejected_interactions has the reason of each"


def _source(backlog: Backlog) -> Iterator[str]:
    weeks = backlog.weeks()
    if not weeks:
        yield "weeks      none has closed in the source yet"
        return
    ingested = sum(week in backlog.lineage.ingested for week in weeks)
    yield f"weeks      {weeks[0]} to {weeks[-1]} are closed; {ingested:,} of {len(weeks):,} are ingested"


def _runs(instance: dg.DagsterInstance) -> Iterator[str]:
    """Unfinished runs, and failed ones with no newer run of the same weeks."""
    seen: set[str] = set()
    for record in instance.get_run_records(limit=RECENT):
        run = record.dagster_run
        week = run.tags.get(PARTITION)
        if not is_ours(run) or not (week or RANGE_START in run.tags):
            continue
        weeks = week or f"{run.tags.get(RANGE_START)} to {run.tags.get(RANGE_END)}"
        if run.status in UNFINISHED:
            yield f"run        {weeks} is {run.status.value.lower()} (run {run.run_id[:8]})"
        elif weeks not in seen and run.status == dg.DagsterRunStatus.FAILURE:
            events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
            when = record.update_timestamp.strftime("%Y-%m-%d %H:%M UTC")
            yield f"failed     {weeks} at {when}: {failure(events, run.run_id)} (run {run.run_id[:8]})"
            again = f"tgn refresh --week {week}" if week else "tgn refresh"
            yield f"           `{again}` runs it again; until then, the published lists stay"
        seen.add(weeks)


def _remedy(item: WorkItem) -> str:
    what = {
        MISSING: "are not ingested" if item.action == INGEST else "has no predictions",
        CHANGED: f"{'have' if item.action == INGEST else 'has'} changed in the source since ingested",
        STALE: f"{', '.join(item.assets)} {'was' if len(item.assets) == 1 else 'were'} made from something older",
    }[item.reason]
    return f"{item.weeks} {what}: the sensor does it, or `tgn refresh`"
