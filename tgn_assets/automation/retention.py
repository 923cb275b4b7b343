"""Deletes old runs of our assets from Dagster's history, which itself keeps them for ever."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from tgn_assets.automation.backlog import UNFINISHED, is_ours

AT_ONCE = 20
"""Runs that are deleted in a tick or after a command."""

LOOKED_AT = 500
"""An instance may be shared: the oldest runs need not be ours."""


def delete_old_runs(instance: dg.DagsterInstance, days: int | None) -> int:
    """Deletes runs that ended and were created more than `days` ago, a few at a time; returns how many. None: none.

    What they made stays known from the warehouse.
    """
    if days is None:
        return 0
    before = datetime.now(UTC) - timedelta(days=days)
    records = instance.get_run_records(dg.RunsFilter(created_before=before), limit=LOOKED_AT, ascending=True)
    runs = [record.dagster_run for record in records]
    old = [run.run_id for run in runs if is_ours(run) and run.status not in UNFINISHED][:AT_ONCE]
    for run_id in old:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        for emptied in Path(instance.root_directory).glob(f"history/runs/{run_id}.db*"):  # the default, SQLite
            emptied.unlink()
    return len(old)
