"""Deletes old runs of our assets from Dagster's history, which itself keeps them for ever (TGN_KEEP_RUN_DAYS).

Old models are removed by `ArtifactStore.remove_old` (TGN_KEEP_WEEKS).
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from tgn_assets.automation.runs import OBSERVE_JOB, UNFINISHED, is_observation, is_ours
from tgn_assets.names import PLAIN, Names

AT_ONCE = 20
"""Runs that are deleted in a tick or after a command."""

LOOKED_AT = 500
"""An instance may be shared: the oldest runs need not be ours."""


OBSERVATION_DAYS = 3
"""Observations are kept so long; a log that changes all the time is observed every five minutes."""


def delete_old_runs(instance: dg.DagsterInstance, days: int | None, names: Names = PLAIN) -> None:
    """Deletes runs that ended and were created more than `days` ago, a few at a time. None: none.

    What they made stays known from the warehouse. Observations of the source go after `OBSERVATION_DAYS` in any case.
    """
    old = _created_before(instance, OBSERVATION_DAYS, names.of(OBSERVE_JOB))
    if days is not None:
        others = _created_before(instance, days)
        old += [run for run in others if is_ours(run, names) or is_observation(run, names)]
    ended = dict.fromkeys(run.run_id for run in old if run.status not in UNFINISHED)
    for run_id in [*ended][:AT_ONCE]:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        for emptied in Path(instance.root_directory).glob(f"history/runs/{run_id}.db*"):  # the default, SQLite
            emptied.unlink()


def _created_before(instance: dg.DagsterInstance, days: int, job: str | None = None) -> list[dg.DagsterRun]:
    wanted = dg.RunsFilter(job_name=job, created_before=datetime.now(UTC) - timedelta(days=days))
    return [record.dagster_run for record in instance.get_run_records(wanted, limit=LOOKED_AT, ascending=True)]
