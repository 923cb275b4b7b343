"""A real `tgn dev`, which becomes `dagster dev`, on a small log of three weeks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import duckdb
import pandas as pd

from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift

ROOT = Path(__file__).parents[2]
WEEKS = [shift("2024-01-01", i) for i in range(3)]
WORLD = World(users=40, events=30, communities=3)
LOCATION = "tgn_assets", "__repository__"
"""Names of the code location and of the repository."""


class Server:
    """A running `dagster dev`, through the GraphQL that its UI uses."""

    def __init__(self, url: str, home: Path):
        self.url, self.home = url, home

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def runs(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Runs with the tag, in the order in which they started."""
        found = self.ask(
            """query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
                 runId jobName status startTime endTime tags { key value } } } } }""",
            filter={"tags": [{"key": tag, "value": value}]},
        )["runsOrError"]["results"]
        for run in found:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return sorted(found, key=lambda run: run["startTime"] or float("inf"))

    def published(self) -> list[str]:
        with duckdb.connect(str(self.home / "warehouse.duckdb"), read_only=True) as con:
            rows = con.execute("SELECT DISTINCT week::VARCHAR FROM weekly_top5_predictions ORDER BY 1").fetchall()
        return [week for (week,) in rows]


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := ready():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"{what} took more than {seconds} s")


@contextmanager
def dagster_dev(folder: Path) -> Iterator[Server]:
    """Started with all its state in `folder`, stopped at the end with all its children."""
    log = folder / "log.csv"
    rows = pd.concat([generate_week(week, WORLD) for week in WEEKS])
    rows.rename(columns={"user_id": "ip_address", "ts": "timestamp"}).to_csv(log, index=False)
    settings = {"TGN_HOME": str(folder / "home"), "TGN_SOURCE": str(log), "TGN_END_WEEK": WEEKS[-1]}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TGN_", "DAGSTER_"))}
    environment = inherited | settings | {"PYTHONPATH": str(ROOT)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tgn_assets.cli.main", "dev", "--port", str(port)]
    with (folder / "dagster.log").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            first = wait_for("the address", lambda: (folder / "dagster.log").read_text().partition("\n")[0])
            url, _, home = first.partition(" shows ")
            wait_for("the start of dagster dev", lambda: _answers(url) or process.poll() is not None)
            yield Server(url, Path(home))
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # code servers outlive their parent
            process.wait()
            output.seek(0)
            print(output.read()[-5000:])


def _answers(url: str) -> bool:
    with suppress(OSError):
        return urlopen(f"{url}/server_info", timeout=5).status == 200
    return False
