"""When the sensor has the source observed, and what becomes of an observation that fails."""

import dataclasses
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from tgn_assets.automation import backlog, sensors
from tgn_assets.automation.backlog import stored_backlog
from tgn_assets.automation.runs import OBSERVE_JOB, RANGE_END, RANGE_START
from tgn_assets.definitions import build_definitions
from tgn_assets.settings import Settings
from tgn_assets.state.home import OBSERVATION, Home
from tgn_assets_tests.automation.ticks import Ticks, complete, observes
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log, observe, publish
from tgn_assets_tests.support.postgres import Postgres

SUCCESS = dg.DagsterRunStatus.SUCCESS
pytestmark = pytest.mark.usefixtures("no_cooldown")


@dg.job
def observe_source() -> None:
    """A job that stands for the real one."""


def test_an_unchanged_source_is_not_read_again(home: Home, tick: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(home, tick)
    monkeypatch.setattr(Home, "closed_weeks", _must_not_be_called)
    assert "complete" in tick.reason()


def test_a_source_that_always_changes_is_read_after_a_cooldown(
    tmp_path: Path, home: Home, tick: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(home, tick)
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[1]} 08:00:00"])
    assert "changed since it was read a moment ago" in tick.reason()
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)
    assert tick.request().partition_key == WEEKS[1]


def test_a_tick_never_reads_a_slow_source(
    tmp_path: Path, instance: dg.DagsterInstance, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ", ".join(f"('u', 'e', timestamptz '{week} 12:00Z' + interval '6 days')" for week in WEEKS)
    postgres.run(
        "DROP VIEW IF EXISTS slow",
        "CREATE VIEW slow AS SELECT ip_address, event_id, timestamp FROM pg_sleep(1), "
        f"(VALUES {rows}) AS log(ip_address, event_id, timestamp)",
    )
    home = Home(Settings(home=tmp_path, source=postgres.url(), source_query="slow", start_week=WEEKS[0]))
    tick = Ticks(home, instance)
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)  # the hour may change
    home.source_spec()  # as when the definitions are loaded
    with postgres.heard() as asked_of_server:
        assert observes(tick.once())
    assert "slow" not in "".join(asked_of_server)
    began = time.monotonic()
    assert tick.request().tags[RANGE_END] == WEEKS[2]
    assert time.monotonic() - began > 1  # the observation took its time
    with postgres.heard() as asked_of_server:
        assert tick.request().tags[RANGE_END] == WEEKS[2]
    assert "slow" not in "".join(asked_of_server)


def test_a_signature_that_takes_too_long_asks_for_an_observation(
    home: Home, tick: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(home)
    monkeypatch.setattr(backlog, "SIGNATURE_SECONDS", 0.01)
    monkeypatch.setattr(backlog, "signature_of", lambda _home: time.sleep(1))
    assert observes(tick.once())
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    assert not observes(tick.once())


def test_the_observation_run_leaves_its_result_in_home_and_catalogue(
    instance: dg.DagsterInstance, home: Home, tick: Ticks
) -> None:
    publish(home, *WEEKS[:2])
    assert _run_observation(home, instance, tick.once())
    [record] = instance.fetch_observations(dg.AssetKey("interaction_log"), limit=2).records
    assert record.asset_observation
    metadata = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert (metadata["newest_closed_week"], metadata["rows"], metadata["changed_weeks"]) == (WEEKS[3], 16, 2)
    assert metadata["to_ingest"] == f"{WEEKS[2]}, {WEEKS[3]}"
    answer = tick.once()
    assert isinstance(answer, dg.SensorResult) and answer.run_requests
    assert answer.run_requests[0].partition_key == WEEKS[2]


def test_it_waits_for_an_observation_in_progress(instance: dg.DagsterInstance, tick: Ticks) -> None:
    instance.create_run_for_job(observe_source, status=dg.DagsterRunStatus.STARTED)
    assert "is started" in tick.reason()


def test_a_killed_observation_is_requested_again(instance: dg.DagsterInstance, tick: Ticks) -> None:
    first = tick.once()
    killed = _failed_observation(instance, first, time.time() - sensors.INTERVAL)
    second = tick.once()
    assert observes(second) and killed.run_id in str(second)  # in the run key, of which Dagster launches each once
    assert killed.run_id not in str(first)


@pytest.mark.parametrize(
    "other",
    [
        {"end_week": WEEKS[2]},
        {"row_filter": "event_id <> 'event 1'"},
        {"time_zone": "Europe/Berlin"},
    ],
)
def test_an_observation_of_other_settings_is_not_used(
    tmp_path: Path, instance: dg.DagsterInstance, tick: Ticks, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    observe(home_on_log(tmp_path))
    assert not observes(tick.once())
    assert observes(Ticks(home_on_log(tmp_path, **other), instance).once())


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "{", {"digests": None}, {"read_at": "yesterday"}])
def test_a_damaged_observation_is_made_again(home: Home, tick: Ticks, damage: str | dict[str, Any]) -> None:
    observe(home)
    file = home.root / OBSERVATION
    file.write_text(damage if isinstance(damage, str) else json.dumps(json.loads(file.read_text()) | damage))
    assert observes(tick.once())
    assert tick.request().tags[RANGE_START] == WEEKS[0]


def test_rows_ingested_since_end_the_cooldown(
    tmp_path: Path, home: Home, tick: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a week whose rows grew between the observation and its run would be run again."""
    publish(home, *WEEKS[:3])
    assert tick.request().partition_key == WEEKS[3]
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[3]} 08:00:00"])
    publish(home, WEEKS[3])
    assert "complete" in tick.reason()


def test_the_hour_of_the_schedule_ends_the_cooldown(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    read_at = datetime(2026, 3, 2, 5, 59, tzinfo=UTC).timestamp()  # a Monday
    dataclasses.replace(observe(home), signature="another", read_at=read_at).store(home)
    for seconds, current in ((30, True), (90, False)):
        monkeypatch.setattr(backlog.time, "time", lambda now=read_at + seconds: now)
        assert (stored_backlog(home).backlog is not None) == current


def test_failed_observations_are_repeated_less_and_less_often(
    tmp_path: Path, instance: dg.DagsterInstance, home: Home, tick: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.time()]
    home.start_week()
    (tmp_path / "log.csv").unlink()
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    requested = []
    for number in range(42):
        answer = tick.once()
        if observes(answer):
            requested.append(number)
            _failed_observation(instance, answer, clock[0])
        else:
            assert "the source could not be observed: no file" in tick.reason()
        clock[0] += sensors.INTERVAL + 0.1
    assert requested == [0, 1, 3, 7, 15, 31]
    home_on_log(tmp_path)  # once it is back, it takes five minutes at most
    assert tick.request()


def test_a_source_that_breaks_anew_each_minute_is_not_read_each_time(
    tmp_path: Path, instance: dg.DagsterInstance, tick: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.time()]
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    requested = []
    for number in range(60):
        home_on_log(tmp_path, ROWS[:1] * (number + 1))
        answer = tick.once()
        if observes(answer):
            requested.append(number)
            _failed_observation(instance, answer, clock[0])
        clock[0] += sensors.INTERVAL + 0.1
    assert requested == [0, 1, 3, 7, 15, 25, 35, 45, 55]


def test_an_observation_that_another_home_got_counts_as_failed(instance: dg.DagsterInstance, tick: Ticks) -> None:
    assert observes(tick.once())
    instance.create_run_for_job(observe_source, status=SUCCESS)
    assert "TGN_HOME" in tick.reason()


def test_a_clock_that_was_ahead_does_not_blind_the_sensor(
    instance: dg.DagsterInstance, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    for ahead, expected in ((0, False), (1e5, True)):
        dataclasses.replace(observe(home), signature="another", read_at=time.time() + ahead).store(home)
        assert observes(Ticks(home, instance).once()) == expected


def _failed_observation(
    instance: dg.DagsterInstance, answer: dg.SensorResult | dg.SkipReason, moment: float
) -> dg.DagsterRun:
    """A run for the request in `answer`, that started and failed at `moment` (unix seconds)."""
    assert isinstance(answer, dg.SensorResult) and answer.run_requests
    [request] = answer.run_requests
    with freeze_time(moment):
        run = instance.create_run_for_job(observe_source, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run, "no file")
    return run


def _run_observation(home: Home, instance: dg.DagsterInstance, answer: dg.SensorResult | dg.SkipReason) -> bool:
    """Executes the job that `answer` requests; whether it succeeded."""
    assert observes(answer)
    job = build_definitions(home.settings).resolve_job_def(OBSERVE_JOB)
    return job.execute_in_process(instance=instance, raise_on_error=False).success


def _must_not_be_called(*_: object, **__: object) -> None:
    raise AssertionError("the source was read")
