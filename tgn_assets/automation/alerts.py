"""Alerts to TGN_ALERT_URL: a run failed, the source cannot be read, the lists are not there in time."""

import json
import logging
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.request import Request, urlopen

import dagster as dg

from tgn_assets.assets.recommendations import PREDICTIONS
from tgn_assets.automation.backlog import PARTITION, RANGE_START, READER_PATIENCE, failure_message, is_ours
from tgn_assets.checks.freshness import PUBLISHED_IN_TIME, in_time
from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.safe_text import chat_text
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import WarehouseError

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that the receiver of an alert has to answer."""


class Alerts:
    """Posts `{"text": ...}`, as chat services take it, to the URL of the settings, if there is one.

    What is told of a matter is told once, until it is another thing or the matter is settled: a file in the home
    remembers it. An alert that cannot be delivered is logged, without the URL, and tried again at the next occasion.
    """

    def __init__(self, home: Home) -> None:
        self._url, self._file, self._root = home.settings.alert_url, home.root / "alerts.json", home.root

    def tell(self, matter: str, text: str) -> None:
        """Sends `text` about `matter`, unless that is what was told last."""
        told = self._told()
        if self._url and told.get(matter) != text and self._send(f"tgn_assets, {self._root}: {text}"):
            self._remember({**told, matter: text})

    def settle(self, matter: str) -> None:
        """Forgets what was told of `matter`."""
        told = self._told()
        if told.pop(matter, None) is not None:
            self._remember(told)

    def _send(self, text: str) -> bool:
        body = json.dumps({"text": chat_text(text)}).encode()
        try:
            request = Request(str(self._url), data=body, headers={"Content-Type": "application/json"}, method="POST")
            with urlopen(request, timeout=TIMEOUT):
                return True
        except (OSError, ValueError, HTTPException) as error:  # its text may hold the URL, and that a secret
            logger.warning("the receiver of TGN_ALERT_URL did not take an alert (%s)", type(error).__name__)
            return False

    def _told(self) -> dict[str, str]:
        """What was told of each matter; nothing if the file is damaged: then it is told again."""
        try:
            return json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def _remember(self, told: dict[str, str]) -> None:
        replace_text(self._file, json.dumps(told, indent=1))


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
            Alerts(home).tell(f"run {week}", f"run {run.run_id[:8]} of {week} failed: {cause}; see `tgn status`")

    return failed_runs


def overdue_lists_sensor(home: Home) -> dg.SensorDefinition:
    """The sensor that looks whether the newest week has lists by Monday noon."""

    @dg.sensor(
        name=home.names.of("overdue_lists"),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Evaluates the check {PUBLISHED_IN_TIME} when its outcome changes, and tells TGN_ALERT_URL if the week "
            "that closed last has no lists by Monday 12:00 UTC."
        ),
    )
    def overdue_lists(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            outcome = in_time(home.warehouse(READER_PATIENCE).lineage(), now())
        except WarehouseError as error:
            return dg.SkipReason(str(error))
        if outcome.passed:
            Alerts(home).settle("lists")
        else:
            Alerts(home).tell("lists", outcome.message)
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
