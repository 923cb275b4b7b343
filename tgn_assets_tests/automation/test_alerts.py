"""Alerts, told to a real HTTP server on this machine."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest

from tgn_assets.automation import alerts
from tgn_assets.automation.alerts import Alerts, failed_runs_sensor, overdue_lists_sensor
from tgn_assets.automation.runs import JOB
from tgn_assets.automation.sensors import missing_or_changed_weeks_sensor
from tgn_assets.state.home import Home
from tgn_assets_tests.support.event_logs import JOBS, WEEKS, home_on_log, publish, run_observation

MONDAY = datetime(2024, 1, 29, tzinfo=UTC)
"""When the last of `WEEKS` closes."""


class Receiver(HTTPServer):
    """Keeps the texts that are posted to it, unless it is told to `fail` with a status."""

    texts: list[str]
    fail: int | None = None
    refuse: str | None = None
    """A word of texts that it answers with status 400."""
    drips: int = 0
    """Beginnings of an answer before it, 20 ms apart."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        text = json.loads(body)["text"]
        status = server.fail or (400 if server.refuse and server.refuse in text else 204)
        if status == 204:
            server.texts.append(text)
        self.send_response(status)
        self.send_header("Location", "/login")
        for _ in range(server.drips):
            time.sleep(0.02)
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.end_headers()

    def do_GET(self) -> None:
        """The page that a redirect leads to."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(("127.0.0.1", 0), Handler) as server:
        server.texts = []
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, receiver: Receiver) -> Home:
    return home_on_log(tmp_path, alert_url=receiver.url)


def test_each_state_of_a_topic_is_sent_once(home: Home, receiver: Receiver) -> None:
    for text in ("broken", "broken", "otherwise broken"):
        Alerts(home).send("source", text)
    Alerts(home).resolve("source")
    Alerts(home).send("source", "broken")
    assert receiver.texts == [f"tgn_assets, {home.root}: {text}" for text in ("broken", "otherwise broken", "broken")]


@pytest.mark.parametrize("status", [302, 308, 500])
def test_an_alert_that_was_not_taken_is_told_again(
    home: Home, receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.fail = status
    Alerts(home).send("source", "broken")
    assert f"did not take an alert (status {status})" in caplog.text and "secret" not in caplog.text
    receiver.fail = None
    Alerts(home).send("source", "broken")
    assert len(receiver.texts) == 1


def test_what_was_not_taken_is_sent_again_by_the_sensor_of_overdue_lists(home: Home, receiver: Receiver) -> None:
    receiver.fail = 503
    for topic in ("run 2024-01-01", "run 2024-01-08", "source"):
        Alerts(home).send(topic, f"{topic} failed")
    Alerts(home).resolve("source")
    for _ in range(2):
        overdue_lists_sensor(home)(dg.build_sensor_context())
        receiver.fail = None
    overdue_lists_sensor(home)(dg.build_sensor_context())
    assert [text.split(": ")[1] for text in receiver.texts[:2]] == ["run 2024-01-01 failed", "run 2024-01-08 failed"]
    assert sum("run 2024" in text for text in receiver.texts) == 2


def test_an_alert_that_is_refused_for_ever_keeps_no_other_waiting(home: Home, receiver: Receiver) -> None:
    receiver.fail, receiver.refuse = 503, "unwelcome"
    for topic in ("unwelcome", "welcome"):
        Alerts(home).send(topic, topic)
    receiver.fail = None
    Alerts(home).send_again()
    assert receiver.texts == [f"tgn_assets, {home.root}: welcome"]


def test_a_slow_receiver_gets_no_more_than_a_tick_has_time_for(
    home: Home, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.fail = 503
    for number in range(4):
        Alerts(home).send(f"run {number}", "failed")
    receiver.fail, receiver.drips = None, 3
    monkeypatch.setattr(alerts, "TIMEOUT", 0.1)
    Alerts(home).send_again()
    assert 0 < len(receiver.texts) < 4
    receiver.drips = 0
    for _ in range(3):
        Alerts(home).send_again()
    assert len(receiver.texts) >= 4


def test_an_answer_that_drips_does_not_hold_up_the_tick(
    home: Home, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "TIMEOUT", 0.1)
    receiver.drips = 50
    Alerts(home).send("source", "broken")
    assert "did not take an alert (TimeoutError)" in caplog.text


def test_a_failed_run_is_told_with_its_cause(home: Home, receiver: Receiver) -> None:
    @dg.op
    def trained_ranker() -> None:
        raise dg.Failure("the loss is NaN")

    @dg.job(name=JOB)
    def failing() -> None:
        trained_ranker()

    with dg.DagsterInstance.ephemeral() as instance:
        result = failing.execute_in_process(
            instance=instance, raise_on_error=False, tags={"dagster/partition": WEEKS[3]}
        )
        context = dg.build_run_status_sensor_context(
            "failed_runs", result.get_run_failure_event(), instance, result.dagster_run
        ).for_run_failure()
        failed_runs_sensor(home)(context)
    [text] = receiver.texts
    assert f"run {result.run_id[:8]} of {WEEKS[3]} failed: the loss is NaN" in text


def test_a_source_that_cannot_be_read_twice_in_a_row_is_told(home: Home, receiver: Receiver, tmp_path: Path) -> None:
    sensor = missing_or_changed_weeks_sensor(home, JOBS)
    home.start_week()
    (tmp_path / "log.csv").unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        for told in (0, 1, 1):
            assert not run_observation(home, instance).success
            sensor(dg.build_sensor_context(instance))
            assert len(receiver.texts) == told
        assert "could not be observed" in receiver.texts[0] and "log.csv does not exist" in receiver.texts[0]
        assert "source" in json.loads((home.root / "alerts.json").read_text())
        home_on_log(tmp_path)
        assert run_observation(home, instance).success
        sensor(dg.build_sensor_context(instance))
    assert json.loads((home.root / "alerts.json").read_text()) == {}


def test_a_failed_observation_is_no_failed_run_of_a_week(home: Home, receiver: Receiver, tmp_path: Path) -> None:
    home.start_week()
    (tmp_path / "log.csv").unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_observation(home, instance)
        context = dg.build_run_status_sensor_context(
            "failed_runs", result.get_run_failure_event(), instance, result.dagster_run
        ).for_run_failure()
        failed_runs_sensor(home)(context)
    assert receiver.texts == []


def test_lists_that_are_missing_on_monday_noon_are_told_once(
    home: Home, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick(hours: int) -> tuple[bool, str] | None:
        monkeypatch.setattr(alerts, "now", lambda: MONDAY + timedelta(hours=hours))
        answer = overdue_lists_sensor(home)(dg.build_sensor_context(cursor=cursor[0]))
        if isinstance(answer, dg.SkipReason):
            return None
        assert isinstance(answer, dg.SensorResult)
        cursor[0] = answer.cursor
        [event] = answer.asset_events
        assert isinstance(event, dg.AssetCheckEvaluation) and event.description
        return event.passed, event.description

    cursor: list[str | None] = [None]
    publish(home, *WEEKS[:3])
    assert tick(11) == (True, f"Week {WEEKS[2]} has its lists.")
    assert tick(11) is None
    overdue = tick(12)
    assert overdue and not overdue[0] and f"Week {WEEKS[3]} has no lists" in overdue[1]
    publish(home, WEEKS[1])  # an older week that is run again does not count
    assert tick(13) is None
    assert len(receiver.texts) == 1
    publish(home, WEEKS[3])
    assert tick(14) == (True, f"Week {WEEKS[3]} has its lists.")
