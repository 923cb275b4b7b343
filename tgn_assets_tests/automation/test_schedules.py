from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.automation import backlog
from tgn_assets.automation.runs import RANGE_END, RANGE_START
from tgn_assets.automation.schedules import weekly_refresh_schedule
from tgn_assets.state.home import Home
from tgn_assets_tests.support.event_logs import JOBS, ROWS, WEEKS, asked, home_on_log, observe, publish

MONDAY = datetime(2024, 1, 29, 6, tzinfo=UTC)
"""The tick after the last of `WEEKS`."""


@pytest.fixture
def instance(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    monkeypatch.setattr(Home, "instance", lambda home: nullcontext(instance))
    return instance


def _tick(home: Home, moment: datetime = MONDAY) -> list[dg.RunRequest] | dg.SkipReason:
    """The answer of a tick that finds the source observed."""
    observe(home)
    return _tick_as_it_is(home, moment)


def _tick_as_it_is(home: Home, moment: datetime = MONDAY) -> list[dg.RunRequest] | dg.SkipReason:
    answer = weekly_refresh_schedule(home, JOBS[0])(dg.build_schedule_context(scheduled_execution_time=moment))
    assert isinstance(answer, list | dg.SkipReason)
    return answer


def _weeks(answer: list[dg.RunRequest] | dg.SkipReason) -> list[str | None]:
    assert isinstance(answer, list), answer
    return [request.partition_key for request in answer]


def _reason(answer: list[dg.RunRequest] | dg.SkipReason) -> str:
    assert isinstance(answer, dg.SkipReason) and answer.skip_message
    return answer.skip_message


def test_it_ticks_on_monday_mornings_and_is_on_from_the_start(tmp_path: Path) -> None:
    schedule = weekly_refresh_schedule(home_on_log(tmp_path), JOBS[0])
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * 1", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "weekly_refresh"


def test_the_monday_tick_asks_for_the_week_that_has_just_closed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS[:3])
    assert _weeks(_tick(home)) == [WEEKS[3]]


def test_weeks_that_were_missed_go_before_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    publish(home, WEEKS[0])
    assert _weeks(_tick(home)) == WEEKS[1:]


def test_on_a_new_home_the_past_is_ingested_before_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    answer = _tick(home_on_log(tmp_path))
    assert _weeks(answer) == [None, WEEKS[3]]
    assert isinstance(answer, list)
    assert (answer[0].tags[RANGE_START], answer[0].tags[RANGE_END]) == (WEEKS[0], WEEKS[2])


def test_it_does_not_ask_twice(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS[:3])
    answer = _tick(home)
    assert isinstance(answer, list)
    asked(instance, answer[0], dg.DagsterRunStatus.STARTED)
    assert "already complete or on its way" in _reason(_tick(home))


def test_a_week_that_is_complete_is_not_run_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS)
    assert "already complete" in _reason(_tick(home))


def test_a_week_whose_data_is_late_is_left_to_the_sensor(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path, ROWS[:-4])
    publish(home, *WEEKS[:3])
    reason = _reason(_tick(home))
    assert f"week {WEEKS[3]} is not closed in the source, which ends with {WEEKS[2]}" in reason
    assert "missing_or_changed_weeks" in reason


def test_after_the_last_week_there_is_nothing_to_ask_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path, end_week=WEEKS[2])
    publish(home, *WEEKS[:3])
    assert "not closed" in _reason(_tick(home))


@pytest.mark.parametrize("rows", [[*ROWS, "late user,event 1,2024-01-22 08:00:00"], None])
def test_a_source_that_changed_or_is_gone_is_left_to_the_sensor(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, rows: list[str] | None
) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)
    home = home_on_log(tmp_path)
    publish(home, *WEEKS[:3])
    observe(home)
    if rows:
        home_on_log(tmp_path, rows)
    else:
        (tmp_path / "log.csv").unlink()
    reason = _reason(_tick_as_it_is(home))
    assert "has to be observed first" in reason and f"then for week {WEEKS[3]}" in reason
