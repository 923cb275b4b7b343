"""`tgn refresh`: runs what is pending, and says which weeks it ran, which it left alone and why."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tgn_assets.automation.backlog import Backlog
from tgn_assets.automation.work_items import CHANGED, INGEST, MISSING, STALE, WorkItem
from tgn_assets.cli.check import source_line, source_section
from tgn_assets.cli.console import Shown
from tgn_assets.cli.runner import ASKED, NEEDED, NEWEST, RunFailed, Runner, RunRecord
from tgn_assets.cli.status import unknown_events
from tgn_assets.ml.progress import duration
from tgn_assets.ml.weeks import shift, weeks_between
from tgn_assets.reporting.terminal import newest_score, published_lists, score_text, scores_and_stability
from tgn_assets.state.home import Home

COMPLETE, IF_NEEDED, NOT_CLOSED = "complete", "if_needed", "not_closed"
AFTER_FAILURE, NOT_ASKED = "after_failure", "not_asked"
WHY_SKIPPED = {
    COMPLETE: "complete already",
    IF_NEEDED: "complete already; --if-needed leaves the newest week alone, too",
    NOT_CLOSED: "not closed yet",
    AFTER_FAILURE: "an earlier step failed; the next `tgn refresh` does it",
    NOT_ASKED: "--week names one alone; `tgn status` says what else is to do",
}
WHY_RUN = {
    MISSING: "had no lists yet",
    CHANGED: "the source has changed",
    STALE: "made from something older",
    NEEDED: "later weeks need it, and it was missing or outdated",
    ASKED: "--week names it",
    NEWEST: "complete, but the newest; --if-needed would leave it",
}


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did: its runs, and the newest closed week or the one that was asked for."""

    week: str
    runs: Sequence[RunRecord]
    skipped: Sequence[Mapping[str, str | None]]
    """first_week and last_week (None: all before or after) and reason; oldest first."""
    failure: RunFailed | None = None


def refresh_weeks(home: Home, runner: Runner, week: str, backlog: Backlog | None, *, if_needed: bool) -> Refreshed:
    """Runs what is pending, and the whole of `week` unless `if_needed`; without a `backlog`, that one alone."""
    failed = None
    try:
        if backlog:
            runner.do_pending(backlog, whole=None if if_needed else week)
        if not if_needed and not any(run.last_week == week and not run.assets for run in runner.runs):
            runner.ingest_before(week)
            runner.refresh([week], NEWEST if backlog else ASKED)
    except RunFailed as error:
        failed = error
    if backlog is None:
        skipped = [_skipped(None, shift(week, -1), NOT_ASKED), _skipped(shift(week, 1), None, NOT_ASKED)]
    else:
        held_up = backlog.work_items() if failed else []  # what was not run without a failure, another process did
        skipped = list(skipped_weeks(backlog.weeks(), runner.runs, held_up, home.settings.end_week))
    return Refreshed(week, runner.runs, skipped, failed)


def skipped_weeks(
    closed: Sequence[str], runs: Sequence[RunRecord], pending: Iterable[WorkItem], end_week: str | None
) -> Iterator[dict[str, str | None]]:
    """The `closed` weeks (ascending) that none of `runs` was of, in ranges with a reason, and those not closed yet.

    What was `pending` before the runs, and was not run, was held up by a failure.
    """
    done = {week for run in runs for week in weeks_between(run.first_week, run.last_week)}
    held = {week for item in pending for week in weeks_between(item.first, item.last)}
    if any(run.error for run in runs):
        held.update(closed[-1:])

    def reason(week: str) -> str | None:
        if week in done:
            return None
        return AFTER_FAILURE if week in held else IF_NEEDED if week == closed[-1] else COMPLETE

    for why, weeks in groupby(closed, reason):
        if why:
            first, *others = weeks
            yield _skipped(first, [first, *others][-1], why)
    if closed and (end_week is None or closed[-1] < end_week):
        yield _skipped(shift(closed[-1], 1), None, NOT_CLOSED)


def _skipped(first: str | None, last: str | None, reason: str) -> dict[str, str | None]:
    return {"first_week": first, "last_week": last, "reason": reason}


def sections(home: Home, refreshed: Refreshed) -> Iterator[tuple[str, Any]]:
    """The results of a refresh, by section: those of its week are None after a failure."""
    yield "home", str(home.root)
    yield "source", source_section(home.settings)
    yield "runs", refreshed.runs
    yield "skipped", refreshed.skipped
    if refreshed.failure:
        yield from dict.fromkeys(("published", "left_out", "score", "notes")).items()
        return
    warehouse, week = home.warehouse(), refreshed.week
    published, left = published_lists(warehouse, week)
    yield "published", published
    yield "left_out", left
    yield "score", (score := newest_score(warehouse, week))
    no_score = [] if score else [f"no lists had been made for week {week}, so there is no score yet"]
    yield "notes", [*no_score, *scores_and_stability(warehouse, [week]), *unknown_events(home)]


def _show_runs(runs: Sequence[RunRecord]) -> Iterator[str]:
    for run in runs:
        weeks = _range(run.first_week, run.last_week)
        what = ", ".join(run.assets) or ("rows alone" if run.action == INGEST else "")
        only = f" ({what})" if what else ""
        why = "not ingested yet" if (run.action, run.reason) == (INGEST, MISSING) else WHY_RUN[run.reason]
        if run.error:
            yield f"failed     {weeks}{only} after {duration(run.seconds)}: {run.error}"
        else:
            yield f"ran        {weeks}{only} in {duration(run.seconds)}: {why}"
    if not runs:
        yield "ran        nothing: nothing was pending"


def _show_skipped(skipped: Sequence[Mapping[str, str | None]]) -> Iterator[str]:
    for reason, why in WHY_SKIPPED.items():
        if weeks := [_range(of["first_week"], of["last_week"]) for of in skipped if of["reason"] == reason]:
            yield f"skipped    {', '.join(weeks)}: {why}"


def _range(first: str | None, last: str | None) -> str:
    if first is None:
        return f"up to {last}"
    return f"{first} and later" if last is None else first if first == last else f"{first}..{last}"


def _show_published(published: Mapping[str, Any] | None) -> Iterator[str]:
    if published:
        made_by = ", ".join(published["sources"]) or "nobody"
        users = f"{published['users']:,} {'user has' if published['users'] == 1 else 'users have'}"
        yield f"published  {users} a list for the week of {published['target_week']}, made by {made_by}"


SHOWN: Shown = {
    "source": lambda source: () if source["named"] else source_line(source),
    "runs": _show_runs,
    "skipped": _show_skipped,
    "published": _show_published,
    "left_out": lambda left: [f"left out   {left}"] if left else [],
    "score": lambda score: [f"score      {score_text(score)}"] if score else [],
    "notes": lambda notes: [f"           {note}" for note in notes or ()],
}
