"""Which weeks the sensor requests, and what it waits for."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from tgn_assets import run_launcher
from tgn_assets.automation import sensors
from tgn_assets.automation.runs import RANGE_END, RANGE_START, REASON_TAG
from tgn_assets.state.home import Home
from tgn_assets.state.lineage import UPSTREAM
from tgn_assets_tests.automation.ticks import Ticks, complete
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, asked, home_on_log, ingest, publish

pytestmark = pytest.mark.usefixtures("no_cooldown")


SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def test_a_run_that_never_started_does_not_hold_up_the_sensor(
    instance: dg.DagsterInstance, tick: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = asked(instance, tick.request(), dg.DagsterRunStatus.NOT_STARTED)
    assert "is not_started" in tick.reason()
    monkeypatch.setattr(run_launcher, "START_SECONDS", -60)
    assert tick.request().tags["tgn/request"] == lost.tags["tgn/request"]  # killed, so tried once more
    assert instance.get_runs()[0].status == FAILURE


def test_a_new_home_requests_the_past_then_the_newest_week(home: Home, tick: Ticks) -> None:
    past = tick.request()
    assert (past.partition_key, past.tags[RANGE_START], past.tags[RANGE_END]) == (None, WEEKS[0], WEEKS[2])
    assert past.asset_selection == [dg.AssetKey("raw_interactions"), dg.AssetKey("weekly_snapshots")]
    ingest(home, *WEEKS[:3])
    newest = tick.request()
    assert (newest.partition_key, newest.tags[REASON_TAG]) == (WEEKS[3], "missing")
    publish(home, WEEKS[3])
    assert tick.reason() == f"all weeks up to {WEEKS[3]} are complete"


def test_missing_weeks_are_requested_one_by_one_oldest_first(home: Home, tick: Ticks) -> None:
    publish(home, WEEKS[0])
    for week in WEEKS[1:]:
        assert tick.request().partition_key == week
        publish(home, week)
    assert "complete" in tick.reason()


def test_it_waits_while_any_run_is_unfinished(instance: dg.DagsterInstance, tick: Ticks) -> None:
    run = asked(instance, tick.request(), dg.DagsterRunStatus.STARTED)
    assert f"run {run.run_id[:8]} is started" in tick.reason()


def test_it_waits_while_a_backfill_is_in_progress(instance: dg.DagsterInstance, tick: Ticks) -> None:
    instance.add_backfill(
        PartitionBackfill("abc", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=0.0)
    )
    assert "backfill abc is in progress" in tick.reason()


def test_a_week_whose_rows_changed_is_requested_again(tmp_path: Path, home: Home, tick: Ticks) -> None:
    complete(home, tick)
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


def test_a_rewritten_source_with_the_same_rows_requests_nothing(tmp_path: Path, home: Home, tick: Ticks) -> None:
    complete(home, tick)
    home_on_log(tmp_path, reversed(ROWS))
    assert "complete" in tick.reason()


def test_a_failed_week_is_not_retried_until_its_rows_change(
    tmp_path: Path, instance: dg.DagsterInstance, home: Home, tick: Ticks
) -> None:
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


@pytest.mark.parametrize("ended", [FAILURE, dg.DagsterRunStatus.CANCELED])
def test_what_a_failed_run_made_is_no_reason_to_try_again(
    tmp_path: Path, instance: dg.DagsterInstance, home: Home, tick: Ticks, ended: dg.DagsterRunStatus
) -> None:
    complete(home, tick)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[3]} 08:00:00"])
    run = asked(instance, tick.request(), ended)
    ingest(home, WEEKS[3])
    assert f"run {run.run_id[:8]} could not refresh {WEEKS[3]}" in tick.reason()


def test_a_failed_week_is_tried_again_after_what_it_reads_was_mended(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    home = home_on_log(tmp_path, event_features=str(tmp_path / "attributes.csv"))
    tick, artifacts = Ticks(home, instance), home.artifact_store()
    publish(home, *WEEKS[:3])
    artifacts.pin(WEEKS[0])
    mends = [
        lambda: (tmp_path / "attributes.csv").write_text("event_id,price\nevent 1,1\n"),
        lambda: artifacts.pin(None),
    ]
    for mend in mends:
        asked(instance, tick.request(), FAILURE)
        assert f"could not refresh {WEEKS[3]}" in tick.reason()
        mend()
    asked(instance, tick.request(), FAILURE)
    (tmp_path / "attributes.csv").write_text("event_id,price\nevent 1,1\n")
    assert f"could not refresh {WEEKS[3]}" in tick.reason()  # written anew, but the same
    publish(home, WEEKS[3])
    artifacts.pin(WEEKS[0])
    assert "complete" in tick.reason()  # what is published stays


def test_no_week_is_refreshed_before_the_past_is_ingested(instance: dg.DagsterInstance, tick: Ticks) -> None:
    asked(instance, tick.request(), FAILURE)
    assert f"could not ingest {WEEKS[0]}..{WEEKS[2]}" in tick.reason()


def test_a_run_that_changed_nothing_is_repeated_once_at_most(instance: dg.DagsterInstance, tick: Ticks) -> None:
    first = tick.request()
    asked(instance, first, SUCCESS)
    second = tick.request()
    assert first.run_key != second.run_key
    asked(instance, second, SUCCESS)
    assert f"could not ingest {WEEKS[0]}..{WEEKS[2]}" in tick.reason()


def test_a_straggler_of_lost_weeks_requests_nothing(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    many = [row.replace("user", f"user {at}") for at in range(5) for row in ROWS]
    home = home_on_log(tmp_path, many)
    publish(home, *WEEKS)
    home_on_log(tmp_path, [f"user 1,event 1,{WEEKS[0]} 08:00:00", *(row for row in many if WEEKS[3][:8] + "28" in row)])
    assert "complete" in Ticks(home, instance).reason()


def test_what_comes_goes_and_comes_back_is_requested_each_time(
    tmp_path: Path, instance: dg.DagsterInstance, home: Home, tick: Ticks
) -> None:
    complete(home, tick)
    keys = set[str | None]()
    for rows in 3 * [[*ROWS, f"late user,event 1,{WEEKS[3]} 08:00:00"], ROWS]:
        home_on_log(tmp_path, rows)
        request = tick.request()
        keys.add(request.run_key)
        asked(instance, request, SUCCESS)
        publish(home, WEEKS[3])
        assert "complete" in tick.reason()
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("hour", "asks"), [("2024-01-29 06:04", False), ("2024-01-29 06:06", True), ("2024-02-10 00:00", True)]
)
def test_a_week_just_closed_is_left_to_the_schedule(
    home: Home, tick: Ticks, monkeypatch: pytest.MonkeyPatch, hour: str, asks: bool
) -> None:
    monkeypatch.setattr(sensors, "now", lambda: datetime.fromisoformat(hour).replace(tzinfo=UTC))
    publish(home, *WEEKS[:3])
    answer = tick()
    assert isinstance(answer, dg.SensorResult)
    assert [request.partition_key for request in answer.run_requests or []] == ([WEEKS[3]] if asks else [])
    assert asks or f"{WEEKS[3]} is left to the schedule until Monday 06:05 UTC" in str(answer.skip_reason)


def test_a_week_is_not_requested_before_the_source_closed_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path, [*ROWS, "user 1,event 1,2024-02-03 12:00:00"])  # a Saturday
    publish(home, *WEEKS)
    assert "complete" in Ticks(home, instance).reason()


def test_a_source_without_a_closed_week_is_no_error(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path, ["user,event,2024-01-03 12:00:00"])
    assert Ticks(home, instance).reason() == "the source has no closed week yet"


def test_weeks_of_a_deleted_warehouse_are_requested_again(home: Home, tick: Ticks) -> None:
    complete(home, tick)
    for week in WEEKS[1:]:
        (home.artifacts / "trained_ranker" / week).mkdir(parents=True)
        (home.artifacts / "trained_ranker" / week / "meta.json").touch()
    home.warehouse_path.unlink()
    assert tick.request().tags[RANGE_END] == WEEKS[0]
    ingest(home, WEEKS[0])
    assert tick.request().partition_key == WEEKS[1]


def test_a_killed_run_is_tried_once_more(instance: dg.DagsterInstance, tick: Ticks) -> None:
    for _ in range(2):
        run = asked(instance, tick.request(), dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run)
    assert f"run {run.run_id[:8]} could not ingest" in tick.reason()


def test_a_week_without_scores_and_report_is_requested(tmp_path: Path, home: Home, tick: Ticks) -> None:
    complete(home, tick)
    home_on_log(tmp_path, [*ROWS, "user 9,event 1,2024-02-04 12:00:00"])
    publish(home, "2024-01-29", but=("eval_metrics", "weekly_report"))
    request = tick.request()
    assert request.partition_key == "2024-01-29"
    assert request.asset_selection == [dg.AssetKey("eval_metrics"), dg.AssetKey("weekly_report")]


def test_weeks_made_elsewhere_are_shown_in_this_instance(instance: dg.DagsterInstance, home: Home, tick: Ticks) -> None:
    publish(home, *WEEKS)
    answer = tick()
    assert isinstance(answer, dg.SensorResult)
    assert {(event.asset_key.path[-1], event.partition) for event in answer.asset_events} == {
        (asset, week) for asset in ("raw_interactions", *UPSTREAM) for week in WEEKS
    }
    for event in answer.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        instance.report_runless_asset_event(event)
    again = tick()
    assert isinstance(again, dg.SensorResult) and again.asset_events == []


def test_runs_of_other_projects_are_not_waited_for(instance: dg.DagsterInstance, tick: Ticks) -> None:
    @dg.job
    def of_others() -> None:
        pass

    instance.create_run_for_job(of_others, status=dg.DagsterRunStatus.STARTED)
    assert tick.request()
