from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.automation import old_runs
from tgn_assets.automation.old_runs import delete_old_runs
from tgn_assets_tests.support.event_logs import home_on_log, run_observation, weekly_refresh

SUCCESS, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED


@dg.job
def of_others() -> None:
    """A job of another project on the same instance."""


def test_old_finished_runs_of_ours_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with home_on_log(tmp_path).instance() as instance:
        old = instance.create_run_for_job(weekly_refresh, status=SUCCESS).run_id
        instance.report_engine_event("it ran", instance.get_run_by_id(old))
        others = instance.create_run_for_job(of_others, status=SUCCESS).run_id
        at_work = instance.create_run_for_job(weekly_refresh, status=STARTED).run_id
        shard = Path(instance.root_directory) / "history" / "runs" / f"{old}.db"
        assert shard.exists()
        for days in (None, 30):
            delete_old_runs(instance, days)
        assert {run.run_id for run in instance.get_runs()} == {old, others, at_work}

        class InTwoMonths(datetime):
            @classmethod
            def now(cls, tz: object = UTC) -> "InTwoMonths":
                return super().now(UTC) + timedelta(days=60)

        monkeypatch.setattr(old_runs, "datetime", InTwoMonths)
        delete_old_runs(instance, 30)
        assert {run.run_id for run in instance.get_runs()} == {others, at_work}
        assert not shard.exists()


def test_observations_are_deleted_after_days_whatever_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on_log(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        run_observation(home, instance)
        of_a_week = instance.create_run_for_job(weekly_refresh, status=SUCCESS).run_id
        delete_old_runs(instance, None)
        assert len(instance.get_runs()) == 2
        monkeypatch.setattr(old_runs, "OBSERVATION_DAYS", -1)
        delete_old_runs(instance, None)
        assert [run.run_id for run in instance.get_runs()] == [of_a_week]
