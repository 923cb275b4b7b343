"""A real `dagster dev` on a small log: the sensor ingests, one week is run by GraphQL, two more by a backfill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import duckdb
import pandas as pd
import pytest
from dagster_graphql import DagsterGraphQLClient

from tgn_assets.ml.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning:gql")]

ROOT = Path(__file__).parents[2]
WEEKS = [shift("2024-01-01", i) for i in range(3)]
WORLD = World(users=40, events=30, communities=3)
REPOSITORY = {"repository_location_name": "tgn_assets", "repository_name": "__repository__"}


class Server:
    """A running `dagster dev`, through the GraphQL that its UI uses."""

    def __init__(self, port: int, home: Path):
        self.port, self.home = port, home
        self.client = DagsterGraphQLClient("localhost", port_number=port)

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"http://localhost:{self.port}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def runs(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Runs with the tag, in the order in which they started."""
        found = self.ask(
            """query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
                 runId status startTime endTime tags { key value } } } } }""",
            filter={"tags": [{"key": tag, "value": value}]},
        )["runsOrError"]["results"]
        for run in found:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return sorted(found, key=lambda run: run["startTime"] or float("inf"))

    def published(self) -> list[str]:
        with duckdb.connect(str(self.home / "warehouse.duckdb"), read_only=True) as con:
            rows = con.execute("SELECT DISTINCT week::VARCHAR FROM weekly_top5_predictions ORDER BY 1").fetchall()
        return [week for (week,) in rows]


def _wait(what: str, ready: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := ready():
            return answer
        time.sleep(0.5)
    raise AssertionError(f"{what} took more than {seconds} s")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    log = tmp_path / "log.csv"
    rows = pd.concat([generate_week(week, WORLD) for week in WEEKS])
    rows.rename(columns={"user_id": "ip_address", "ts": "timestamp"}).to_csv(log, index=False)
    settings = {"TGN_HOME": str(tmp_path / "home"), "TGN_SOURCE": str(log), "TGN_END_WEEK": WEEKS[-1]}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TGN_", "DAGSTER_"))}
    environment = inherited | settings
    home = subprocess.run([sys.executable, "-m", "tgn_assets.home"], env=environment, capture_output=True, text=True)
    assert home.returncode == 0, home.stderr
    environment["DAGSTER_HOME"] = home.stdout.strip()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dagster", "dev", "-p", str(port), "-h", "localhost"]
    with (tmp_path / "dagster.log").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait("the start of dagster dev", lambda: _answers(port) or process.poll() is not None)
            yield Server(port, tmp_path / "home")
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # code servers outlive their parent
            process.wait()
            output.seek(0)
            print(output.read()[-5000:])


def _answers(port: int) -> bool:
    with suppress(URLError, OSError):
        return urlopen(f"http://localhost:{port}/server_info", timeout=5).status == 200
    return False


def test_weeks_are_ingested_by_the_sensor_and_refreshed_by_click_and_by_backfill(server: Server) -> None:
    # The sensor is on unless someone has turned it off: on a new home, it begins with the past.
    _wait("the sensor", lambda: server.runs("dagster/sensor_name", "missing_or_changed_weeks"))

    clicked = server.client.submit_job_execution("weekly_refresh", **REPOSITORY, tags={"dagster/partition": WEEKS[0]})
    selector = {"repositoryLocationName": "tgn_assets", "repositoryName": "__repository__"}
    backfill = server.ask(
        """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
             __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        params={
            "partitionNames": WEEKS[1:],
            "selector": {"partitionSetName": "weekly_refresh_partition_set", "repositorySelector": selector},
        },
    )["launchPartitionBackfill"]
    assert backfill["__typename"] == "LaunchBackfillSuccess", backfill

    status = _wait("the first week", lambda: _end(server.client.get_run_status(clicked).value))
    assert status == "SUCCESS"
    assert WEEKS[0] in server.published()

    runs = _wait("the backfill", lambda: _ended(server.runs("dagster/backfill", backfill["backfillId"]), 2))
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    assert [run["tags"]["dagster/partition"] for run in runs] == WEEKS[1:]
    assert runs[0]["endTime"] <= runs[1]["startTime"]
    assert server.published() == WEEKS

    [past] = server.runs("dagster/sensor_name", "missing_or_changed_weeks")
    assert past["status"] == "SUCCESS"
    assert past["tags"]["dagster/asset_partition_range_start"] == WEEKS[0]
    assert past["tags"]["dagster/asset_partition_range_end"] == WEEKS[1]


def _end(status: str) -> str | None:
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def _ended(runs: list[dict[str, Any]], number: int) -> list[dict[str, Any]] | None:
    return runs if len(runs) == number and all(_end(run["status"]) for run in runs) else None
