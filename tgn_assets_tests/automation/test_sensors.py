from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from tgn_assets.automation import backlog, sensors
from tgn_assets.automation.backlog import RANGE_END, RANGE_START, REASON_TAG
from tgn_assets.automation.jobs import weekly_refresh
from tgn_assets.automation.sensors import missing_or_changed_weeks_sensor
from tgn_assets.ml.sources.spec import SourceError
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import UPSTREAM
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, asked, home_on_log, ingest, publish

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def no_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 0)


class Ticks:
    """Ticks of the sensor of `home`, each with the cursor that the last one left."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self._sensor = missing_or_changed_weeks_sensor(home)
        self._instance = instance
        self._cursor: str | None = None

    def __call__(self) -> dg.SensorResult | dg.SkipReason:
        answer = self._sensor(dg.build_sensor_context(self._instance, cursor=self._cursor))
        assert isinstance(answer, dg.SensorResult | dg.SkipReason)
        if isinstance(answer, dg.SensorResult):
            self._cursor = answer.cursor
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
    ("hour", "asks"), [("2024-01-29 06:59", False), ("2024-01-29 07:01", True), ("2024-02-10 00:00", True)]
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


def test_a_source_that_stays_unreadable_fails_the_tick(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on_log(tmp_path)
    tick, clock = Ticks(home, instance), [1e9]
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    assert tick.request()
    (tmp_path / "log.csv").unlink()
    assert "TGN_SOURCE" in tick.reason()  # it may be back in a moment
    reads = []
    for _ in range(20):
        clock[0] += sensors.INTERVAL
        with pytest.raises(SourceError, match="TGN_SOURCE") as failed:
            tick()
        reads.append("less and less often" not in str(failed.value))
    assert [number + 1 for number, read in enumerate(reads) if read] == [1, 2, 4, 8, 16]
    home_on_log(tmp_path)  # and as soon as it is back
    assert tick.request()


def test_a_clock_that_was_ahead_does_not_blind_the_sensor(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tick = complete(tmp_path, instance)
    monkeypatch.setattr(backlog, "RESCAN_COOLDOWN", 1e6)
    monkeypatch.setattr(backlog.time, "time", lambda: 0.0)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[1]} 08:00:00"])
    assert tick.request().partition_key == WEEKS[1]


def _must_not_be_called(*_: object, **__: object) -> None:
    raise AssertionError("the source was read")
