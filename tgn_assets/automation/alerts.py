"""Alerts to TGN_ALERT_URL: a run failed, the source cannot be read, the lists are not there in time."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from time import monotonic
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import dagster as dg

from tgn_assets.automation.backlog import READER_PATIENCE
from tgn_assets.automation.runs import RANGE_START, failure_message, is_ours
from tgn_assets.automation.timeouts import call_with_timeout
from tgn_assets.checks.freshness import PUBLISHED_IN_TIME, in_time
from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.safe_text import chat_text
from tgn_assets.state.dagster_compat import PARTITION
from tgn_assets.state.home import ALERTS, Home
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.warehouse import WarehouseError

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that the receiver of an alert has to answer, however it spreads its answer: Dagster ends a tick after 60."""


class _NoRedirect(HTTPRedirectHandler):
    """Leaves an answer that redirects as it is: urllib would follow it by a GET, without the alert."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        pass


class Alert(NamedTuple):
    """The last alert about a topic, and whether the receiver took it."""

    text: str
    taken: bool


class Alerts:
    """Posts `{"text": ...}`, as chat services take it, to the URL of the settings, if there is one.

    An alert about a topic is sent once, until its text changes or the topic is resolved: a file in the home remembers
    it. An alert that is not taken is logged, without the URL, and sent again by `send_again`.
    """

    def __init__(self, home: Home) -> None:
        self._url, self._file, self._root = home.settings.alert_url, home.root / ALERTS, home.root

    def send(self, topic: str, text: str) -> None:
        """Sends `text` about `topic`, unless that is what was sent last."""
        alerts = self._remembered()
        if self._url and alerts.get(topic) != (text, True):
            self._save(alerts | {topic: Alert(text, self._post(text))})

    def send_again(self) -> None:
        """Sends what was not taken, as far as it can within a tick: a receiver may be slow, or refuse one of them."""
        until = monotonic() + TIMEOUT
        for topic, alert in self._remembered().items():
            if not alert.taken and monotonic() < until:
                self.send(topic, alert.text)

    def resolve(self, topic: str) -> None:
        """Forgets what was sent about `topic`."""
        alerts = self._remembered()
        if alerts.pop(topic, None) is not None:
            self._save(alerts)

    def _post(self, text: str) -> bool:
        body = json.dumps({"text": chat_text(f"tgn_assets, {self._root}: {text}")}).encode()
        try:
            request = Request(str(self._url), data=body, headers={"Content-Type": "application/json"}, method="POST")
            call_with_timeout(TIMEOUT, lambda: build_opener(_NoRedirect).open(request, timeout=TIMEOUT).close())
            return True
        except (OSError, ValueError, HTTPException) as error:  # its text may hold the URL, and that a secret
            said = f"status {error.code}" if isinstance(error, HTTPError) else type(error).__name__
            logger.warning("the receiver of TGN_ALERT_URL did not take an alert (%s)", said)
            return False

    def _remembered(self) -> dict[str, Alert]:
        """The last alert about each topic; nothing if the file is damaged: then alerts are sent again."""
        try:
            return {topic: Alert(**alert) for topic, alert in json.loads(self._file.read_text("utf-8")).items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def _save(self, alerts: Mapping[str, Alert]) -> None:
        replace_text(self._file, json.dumps({topic: alert._asdict() for topic, alert in alerts.items()}, indent=1))


def failed_runs_sensor(home: Home) -> dg.SensorDefinition:
    """The sensor that alerts of runs of our assets that failed."""

    @dg.run_failure_sensor(
        name=home.names.of("failed_runs"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells TGN_ALERT_URL of every run of this home that failed, with the cause.",
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        if is_ours(run, home.names):
            week = run.tags.get(PARTITION) or run.tags.get(RANGE_START, "of no week")
            cause = failure_message(context.instance, run)
            Alerts(home).send(f"run {week}", f"run {run.run_id[:8]} of {week} failed: {cause}; see `tgn status`")

    return failed_runs


def overdue_lists_sensor(home: Home) -> dg.SensorDefinition:
    """The sensor that looks whether the newest week has lists by Monday noon."""

    @dg.sensor(
        name=home.names.of("overdue_lists"),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Evaluates the check {PUBLISHED_IN_TIME} when its outcome changes, and tells TGN_ALERT_URL if the week "
            "that closed last has no lists by Monday 12:00 UTC. Sends again what the URL did not take before."
        ),
    )
    def overdue_lists(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        Alerts(home).send_again()
        try:
            outcome = in_time(home.warehouse(READER_PATIENCE).lineage(), now())
        except WarehouseError as error:
            return dg.SkipReason(str(error))
        if outcome.passed:
            Alerts(home).resolve("lists")
        else:
            Alerts(home).send("lists", outcome.message)
        if context.cursor == outcome.message:
            return dg.SkipReason(outcome.message)
        evaluation = dg.AssetCheckEvaluation(
            asset_key=home.names.key(PREDICTIONS),
            check_name=PUBLISHED_IN_TIME,
            passed=outcome.passed,
            description=outcome.message,
        )
        return dg.SensorResult(skip_reason=outcome.message, cursor=outcome.message, asset_events=[evaluation])

    return overdue_lists


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)
