import dataclasses
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import freeze_time

from tgn_assets import run_launcher
from tgn_assets.automation import backlog, sensors
from tgn_assets.automation.backlog import OBSERVE_JOB, RANGE_END, RANGE_START, REASON_TAG, stored_backlog
from tgn_assets.automation.sensors import missing_or_changed_weeks_sensor
from tgn_assets.definitions import build_definitions
from tgn_assets.settings import Settings
from tgn_assets.state.home import OBSERVATION, Home
from tgn_assets.state.lineage import UPSTREAM
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, asked, home_on_log, ingest, observe, publish
from tgn_assets_tests.support.postgres import Postgres

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def no_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)


@dg.job
def observe_source() -> None:
    """A job that stands for the real one."""


class Ticks:
    """Ticks of the sensor of `home`; an observation that one requests is made, and then there is another tick."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self._sensor = missing_or_changed_weeks_sensor(home)
        self._home, self._instance = home, instance

    def once(self) -> dg.SensorResult | dg.SkipReason:
        """A single tick."""
        answer = self._sensor(dg.build_sensor_context(self._instance))
        assert isinstance(answer, dg.SensorResult | dg.SkipReason)
        return answer

    def __call__(self) -> dg.SensorResult | dg.SkipReason:
        answer = self.once()
        if _observes(answer):
            observe(self._home)
            answer = self.once()
        return answer

    def request(self) -> dg.RunRequest:
        answer = self()
        assert isinstance(answer, dg.SensorResult) and answer.run_requests, answer
        [request] = answer.run_requests
        return request

    def reason(self) -> str:
        answer = self()
        skip = answer.skip_reason if isinstance(answer, dg.SensorResult) else answer
        assert isinstance(skip, dg.SkipReason) and skip.skip_message, answer
        return skip.skip_message


def test_a_run_that_never_started_does_not_hold_up_the_sensor(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on_log(tmp_path)
    tick = Ticks(home, instance)
    lost = asked(instance, tick.request(), dg.DagsterRunStatus.NOT_STARTED)
    assert "is not_started" in tick.reason()
    monkeypatch.setattr(run_launcher, "START_SECONDS", -60)
    assert tick.request().tags["tgn/request"] == lost.tags["tgn/request"]  # killed, so tried once more
    assert instance.get_runs()[0].status == FAILURE


def complete(folder: Path, instance: dg.DagsterInstance) -> tuple[Home, Ticks]:
    """A home of which the sensor has seen that every week is published."""
    home = home_on_log(folder)
    tick = Ticks(home, instance)
    publish(home, *WEEKS)
    assert "complete" in tick.reason()
    return home, tick


def test_a_new_home_requests_the_past_then_the_newest_week(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    tick = Ticks(home, instance)
    past = tick.request()
    assert (past.partition_key, past.tags[RANGE_START], past.tags[RANGE_END]) == (None, WEEKS[0], WEEKS[2])
    assert past.asset_selection == [dg.AssetKey("raw_interactions"), dg.AssetKey("weekly_snapshots")]
    ingest(home, *WEEKS[:3])
    newest = tick.request()
    assert (newest.partition_key, newest.tags[REASON_TAG]) == (WEEKS[3], "missing")
    publish(home, WEEKS[3])
    assert tick.reason() == f"all weeks up to {WEEKS[3]} are complete"


def test_missing_weeks_are_requested_one_by_one_oldest_first(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    tick = Ticks(home, instance)
    publish(home, WEEKS[0])
    for week in WEEKS[1:]:
        assert tick.request().partition_key == week
        publish(home, week)
    assert "complete" in tick.reason()


def test_it_waits_while_any_run_is_unfinished(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(home_on_log(tmp_path), instance)
    run = asked(instance, tick.request(), dg.DagsterRunStatus.STARTED)
    assert f"run {run.run_id[:8]} is started" in tick.reason()


def test_it_waits_while_a_backfill_is_in_progress(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    instance.add_backfill(
        PartitionBackfill("abc", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=0.0)
    )
    assert "backfill abc is in progress" in Ticks(home_on_log(tmp_path), instance).reason()


def test_a_week_whose_rows_changed_is_requested_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home, tick = complete(tmp_path, instance)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[1]} 08:00:00"])
    request = tick.request()
    assert (request.partition_key, request.tags[REASON_TAG]) == (WEEKS[1], "changed")
    publish(home, WEEKS[1])
    scores = tick.request()
    assert (scores.partition_key, scores.tags[REASON_TAG]) == (WEEKS[2], "stale")
    assert scores.asset_selection == [dg.AssetKey("eval_metrics"), dg.AssetKey("weekly_report")]
    publish(home, WEEKS[2])
    newest = tick.request()
    assert (newest.partition_key, newest.tags[REASON_TAG]) == (WEEKS[3], "stale")
    publish(home, WEEKS[3])
    assert "complete" in tick.reason()


def test_a_rewritten_source_with_the_same_rows_requests_nothing(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    _, tick = complete(tmp_path, instance)
    home_on_log(tmp_path, reversed(ROWS))
    assert "complete" in tick.reason()


def test_an_unchanged_source_is_not_read_again(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tick = complete(tmp_path, instance)
    monkeypatch.setattr(Home, "closed_weeks", _must_not_be_called)
    assert "complete" in tick.reason()


def test_a_source_that_always_changes_is_read_after_a_cooldown(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tick = complete(tmp_path, instance)
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[1]} 08:00:00"])
    assert "complete" in tick.reason()
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)
    assert tick.request().partition_key == WEEKS[1]


def test_a_failed_week_is_not_retried_until_its_rows_change(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    tick = Ticks(home, instance)
    publish(home, *WEEKS[:2])
    first = tick.request()
    run = asked(instance, first, FAILURE)
    second = tick.request()
    assert second.partition_key == WEEKS[3]  # a week that cannot be done does not hold up the ones after it
    asked(instance, second, FAILURE)
    assert f"run {run.run_id[:8]} could not refresh {WEEKS[2]}" in tick.reason()
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[2]} 08:00:00"])
    again = tick.request()
    assert again.partition_key == WEEKS[2]
    assert again.run_key != first.run_key


def test_no_week_is_refreshed_before_the_past_is_ingested(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(home_on_log(tmp_path), instance)
    asked(instance, tick.request(), FAILURE)
    assert f"could not ingest {WEEKS[0]}..{WEEKS[2]}" in tick.reason()


def test_a_run_that_changed_nothing_is_repeated_once_at_most(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(home_on_log(tmp_path), instance)
    first = tick.request()
    asked(instance, first, SUCCESS)
    second = tick.request()
    assert first.run_key != second.run_key
    asked(instance, second, SUCCESS)
    assert f"could not ingest {WEEKS[0]}..{WEEKS[2]}" in tick.reason()


@pytest.mark.parametrize(
    ("hour", "asks"), [("2024-01-29 06:04", False), ("2024-01-29 06:06", True), ("2024-02-10 00:00", True)]
)
def test_a_week_just_closed_is_left_to_the_schedule(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, hour: str, asks: bool
) -> None:
    monkeypatch.setattr(sensors, "now", lambda: datetime.fromisoformat(hour).replace(tzinfo=UTC))
    home = home_on_log(tmp_path)
    publish(home, *WEEKS[:3])
    answer = Ticks(home, instance)()
    assert isinstance(answer, dg.SensorResult)
    assert [request.partition_key for request in answer.run_requests or []] == ([WEEKS[3]] if asks else [])


def test_a_week_is_not_requested_before_the_source_closed_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path, [*ROWS, "user 1,event 1,2024-02-03 12:00:00"])  # a Saturday
    publish(home, *WEEKS)
    assert "complete" in Ticks(home, instance).reason()


def test_a_source_without_a_closed_week_is_no_error(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path, ["user,event,2024-01-03 12:00:00"])
    assert Ticks(home, instance).reason() == "the source has no closed week yet"


def test_weeks_of_a_deleted_warehouse_are_requested_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home, tick = complete(tmp_path, instance)
    for week in WEEKS[1:]:
        (home.artifacts / "trained_ranker" / week).mkdir(parents=True)
    home.warehouse_path.unlink()
    assert tick.request().tags[RANGE_END] == WEEKS[0]
    ingest(home, WEEKS[0])
    assert tick.request().partition_key == WEEKS[1]


def test_a_killed_run_is_tried_once_more(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(home_on_log(tmp_path), instance)
    for _ in range(2):
        run = asked(instance, tick.request(), dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run)
    assert f"run {run.run_id[:8]} could not ingest" in tick.reason()


def test_a_week_without_scores_and_report_is_requested(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home, tick = complete(tmp_path, instance)
    home_on_log(tmp_path, [*ROWS, "user 9,event 1,2024-02-04 12:00:00"])
    publish(home, "2024-01-29", but=("eval_metrics", "weekly_report"))
    request = tick.request()
    assert request.partition_key == "2024-01-29"
    assert request.asset_selection == [dg.AssetKey("eval_metrics"), dg.AssetKey("weekly_report")]


def test_weeks_made_elsewhere_are_shown_in_this_instance(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS)
    answer = Ticks(home, instance)()
    assert isinstance(answer, dg.SensorResult)
    assert {(event.asset_key.path[-1], event.partition) for event in answer.asset_events} == {
        (asset, week) for asset in ("raw_interactions", *UPSTREAM) for week in WEEKS
    }
    for event in answer.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        instance.report_runless_asset_event(event)
    again = Ticks(home, instance)()
    assert isinstance(again, dg.SensorResult) and again.asset_events == []


def test_runs_of_other_projects_are_not_waited_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    @dg.job
    def of_others() -> None:
        pass

    instance.create_run_for_job(of_others, status=dg.DagsterRunStatus.STARTED)
    assert Ticks(home_on_log(tmp_path), instance).request()


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
        assert _observes(tick.once())
    assert "slow" not in "".join(asked_of_server)
    began = time.monotonic()
    assert tick.request().tags[RANGE_END] == WEEKS[2]
    assert time.monotonic() - began > 1  # the observation took its time
    with postgres.heard() as asked_of_server:
        assert tick.request().tags[RANGE_END] == WEEKS[2]
    assert "slow" not in "".join(asked_of_server)


def test_a_signature_that_takes_too_long_asks_for_an_observation(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on_log(tmp_path)
    observe(home)
    tick = Ticks(home, instance)
    monkeypatch.setattr(backlog, "SIGNATURE_SECONDS", 0.01)
    monkeypatch.setattr(backlog, "signature_of", lambda _home: time.sleep(1))
    assert _observes(tick.once())
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    assert not _observes(tick.once())


def test_the_observation_run_leaves_its_result_in_home_and_catalogue(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS[:2])
    tick = Ticks(home, instance)
    assert _run_observation(home, instance, tick.once())
    [record] = instance.fetch_observations(dg.AssetKey("interaction_log"), limit=2).records
    assert record.asset_observation
    metadata = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert (metadata["newest_closed_week"], metadata["rows"], metadata["changed_weeks"]) == (WEEKS[3], 16, 2)
    assert metadata["to_ingest"] == f"{WEEKS[2]}, {WEEKS[3]}"
    answer = tick.once()
    assert isinstance(answer, dg.SensorResult) and answer.run_requests
    assert answer.run_requests[0].partition_key == WEEKS[2]


def test_it_waits_for_an_observation_in_progress(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    instance.create_run_for_job(observe_source, status=dg.DagsterRunStatus.STARTED)
    assert "is started" in Ticks(home_on_log(tmp_path), instance).reason()


def test_a_killed_observation_is_requested_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(home_on_log(tmp_path), instance)
    first = tick.once()
    killed = _failed_observation(instance, first, time.time() - sensors.INTERVAL)
    second = tick.once()
    assert _observes(second) and killed.run_id in str(second)  # in the run key, of which Dagster launches each once
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
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    observe(home_on_log(tmp_path))
    assert not _observes(Ticks(home_on_log(tmp_path), instance).once())
    assert _observes(Ticks(home_on_log(tmp_path, **other), instance).once())


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "{"])
def test_a_damaged_observation_is_made_again(tmp_path: Path, instance: dg.DagsterInstance, damage: str) -> None:
    home = home_on_log(tmp_path)
    observe(home)
    (home.root / OBSERVATION).write_text(damage)
    tick = Ticks(home, instance)
    assert _observes(tick.once())
    assert tick.request().tags[RANGE_START] == WEEKS[0]


def test_rows_ingested_since_end_the_cooldown(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a week whose rows grew between the observation and its run would be run again."""
    home = home_on_log(tmp_path)
    publish(home, *WEEKS[:3])
    tick = Ticks(home, instance)
    assert tick.request().partition_key == WEEKS[3]
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[3]} 08:00:00"])
    publish(home, WEEKS[3])
    assert "complete" in tick.reason()


def test_the_hour_of_the_schedule_ends_the_cooldown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    home = home_on_log(tmp_path)
    read_at = datetime(2026, 3, 2, 5, 59, tzinfo=UTC).timestamp()  # a Monday
    dataclasses.replace(observe(home), signature="another", read_at=read_at).store(home)
    for seconds, current in ((30, True), (90, False)):
        monkeypatch.setattr(backlog.time, "time", lambda now=read_at + seconds: now)
        assert (stored_backlog(home)[0] is not None) == current


def test_failed_observations_are_repeated_less_and_less_often(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on_log(tmp_path)
    tick, clock = Ticks(home, instance), [time.time()]
    home.start_week()
    (tmp_path / "log.csv").unlink()
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    requested = []
    for number in range(42):
        answer = tick.once()
        if _observes(answer):
            requested.append(number)
            _failed_observation(instance, answer, clock[0])
        else:
            assert "the source could not be observed: no file" in tick.reason()
        clock[0] += sensors.INTERVAL + 0.1
    assert requested == [0, 1, 3, 7, 15, 31]
    home_on_log(tmp_path)  # once it is back, it takes five minutes at most
    assert tick.request()


def test_a_source_that_breaks_anew_each_minute_is_not_read_each_time(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on_log(tmp_path)
    tick, clock = Ticks(home, instance), [time.time()]
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    requested = []
    for number in range(60):
        home_on_log(tmp_path, ROWS[:1] * (number + 1))
        answer = tick.once()
        if _observes(answer):
            requested.append(number)
            _failed_observation(instance, answer, clock[0])
        clock[0] += sensors.INTERVAL + 0.1
    assert requested == [0, 1, 3, 7, 15, 25, 35, 45, 55]


def test_an_observation_that_another_home_got_counts_as_failed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(home_on_log(tmp_path), instance)
    assert _observes(tick.once())
    instance.create_run_for_job(observe_source, status=SUCCESS)
    assert "TGN_HOME" in tick.reason()


def test_a_clock_that_was_ahead_does_not_blind_the_sensor(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    home = home_on_log(tmp_path)
    for ahead, observes in ((0, False), (1e5, True)):
        dataclasses.replace(observe(home), signature="another", read_at=time.time() + ahead).store(home)
        assert _observes(Ticks(home, instance).once()) == observes


def _observes(answer: dg.SensorResult | dg.SkipReason) -> bool:
    """Whether the tick requests an observation of the source, and nothing else."""
    requests = (answer.run_requests or []) if isinstance(answer, dg.SensorResult) else []
    return [request.job_name for request in requests] == [OBSERVE_JOB]


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
    assert _observes(answer)
    job = build_definitions(home.settings).resolve_job_def(OBSERVE_JOB)
    return job.execute_in_process(instance=instance, raise_on_error=False).success


def _must_not_be_called(*_: object, **__: object) -> None:
    raise AssertionError("the source was read")
