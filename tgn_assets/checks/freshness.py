"""The check that the week that closed last has its lists in time: whatever was run again since, and wherever."""

from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from tgn_assets.ml.monitoring.week_warnings import CheckOutcome
from tgn_assets.ml.sources.spec import last_ended_week
from tgn_assets.ml.weeks import shift
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import PREDICTIONS, Lineage

PUBLISHED_IN_TIME = "published_in_time"
DUE = timedelta(hours=12)
"""After the week's close, on Sunday at midnight (UTC)."""


def in_time(lineage: Lineage, now: datetime) -> CheckOutcome:
    """Whether the newest week that should have lists at `now` has them. A home that has never published owes none."""
    newest = last_ended_week(now)
    if now < datetime.combine(date.fromisoformat(shift(newest, 1)), time(), UTC) + DUE:
        newest = shift(newest, -1)
    published = lineage.published
    if newest in published or not published or newest < min(published):
        return CheckOutcome(True, f"Week {newest} has its lists." if published else "Nothing was published yet.", {})
    message = (
        f"Week {newest} has no lists, which were due on Monday at 12:00 UTC; the newest are those of {max(published)}. "
        "`tgn status` says what the week waits for."
    )
    return CheckOutcome(False, message, {})


def published_in_time_check(home: Home) -> dg.AssetChecksDefinition:
    """The check as Dagster shows it; the sensor `overdue_lists` evaluates it."""

    @dg.asset_check(
        asset=PREDICTIONS,
        name=PUBLISHED_IN_TIME,
        description="The week that closed last has lists by Monday 12:00 UTC. An older week that is run again does not "
        "count. The sensor overdue_lists evaluates it when the outcome changes.",
    )
    def published_in_time() -> dg.AssetCheckResult:
        outcome = in_time(home.warehouse().lineage(), datetime.now(UTC))
        return dg.AssetCheckResult(passed=outcome.passed, description=outcome.message)

    return published_in_time
