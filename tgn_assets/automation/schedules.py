"""The schedule: every Monday, it requests the week that has just closed."""

from contextlib import ExitStack

import dagster as dg

from tgn_assets.automation.backlog import SCHEDULE_HOUR, stored_backlog
from tgn_assets.automation.runs import run_request, unfinished_run
from tgn_assets.ml.weeks import shift, week_of
from tgn_assets.state.dagster_compat import UnresolvedAssetJobDefinition
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import WarehouseError

MAX_REQUESTS = 8
"""Requests in one tick; the sensor asks for the rest."""


def weekly_refresh_schedule(home: Home, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """The schedule of `job` for the weeks of `home`."""

    @dg.schedule(
        name=home.names.of("weekly_refresh_schedule"),
        job=job,
        cron_schedule=f"0 {SCHEDULE_HOUR} * * 1",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Refreshes the week that has just closed, after any earlier one that is still missing. A week whose last "
            "day has no rows yet, or whose source has to be observed first, is left to the sensor "
            "missing_or_changed_weeks, which goes on from 06:05 UTC."
        ),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        week = shift(week_of(context.scheduled_execution_time), -1)
        with ExitStack() as stack:
            instance = context.instance if context.instance_ref else stack.enter_context(home.instance())
            try:
                backlog = stored_backlog(home).backlog
            except WarehouseError as error:
                return dg.SkipReason(
                    f"week {week} was not asked for, the sensor missing_or_changed_weeks will: {error}"
                )
            if backlog is None:
                return dg.SkipReason(
                    f"the source has to be observed first; the sensor missing_or_changed_weeks asks for that, and then "
                    f"for week {week}"
                )
            newest = backlog.observation.newest_closed
            if newest is None or newest < week:
                last = f"ends with {newest}" if newest else "has no closed week"
                return dg.SkipReason(
                    f"week {week} is not closed in the source, which {last}; the sensor missing_or_changed_weeks "
                    "requests it as soon as it is"
                )
            items = [item for item in backlog.work_items(week) if not unfinished_run(instance, item, home.names)]
            # Dagster executes one run at a time, in the order of the requests.
            requests = [run_request(instance, item, home.names) for item in items[:MAX_REQUESTS]]
        return requests or dg.SkipReason(f"week {week} is already complete or on its way")

    return schedule
