"""A real `tgn dev`, which becomes `dagster dev`: started, asked by the GraphQL of its UI, and stopped.

For `benchmarks.soak` and the tests of whole programs.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from benchmarks.servers import answers, free_port, wait_for

ROOT = Path(__file__).parents[1]
LOCATION = {"repositoryLocationName": "tgn_assets", "repositoryName": "__repository__"}
"""Names of the code location and of the repository."""
LOG = "dagster.log"
"""What it prints, in the folder that it is started in."""
Run = dict[str, Any]


class Server:
    """A running `dagster dev` on `home`."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url, home

    def ask(self, query: str, **variables: Any) -> Any:
        """The data that answers a query, or a mutation."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as response:
            answer = json.load(response)
        if "errors" in answer:
            raise RuntimeError(str(answer))
        return answer["data"]

    def runs(self, tag: str, value: str) -> list[Run]:
        """Runs with the tag, in the order in which they started."""
        found = self.ask(
            """query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
                 runId jobName status startTime endTime tags { key value } } } } }""",
            filter={"tags": [{"key": tag, "value": value}]},
        )["runsOrError"]["results"]
        for run in found:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return sorted(found, key=lambda run: run["startTime"] or float("inf"))

    def launch_backfill(self, weeks: Sequence[str]) -> str:
        """The id of a backfill of `weeks`."""
        selector = {"partitionSetName": "weekly_refresh_partition_set", "repositorySelector": LOCATION}
        backfill = self.ask(
            """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={"partitionNames": list(weeks), "selector": selector},
        )["launchPartitionBackfill"]
        if backfill["__typename"] != "LaunchBackfillSuccess":
            raise RuntimeError(str(backfill))
        return backfill["backfillId"]

    def runs_of_backfill(self, backfill: str, number: int, seconds: float = 240) -> list[Run]:
        """The runs of a backfill of so many weeks, once all have ended."""
        return wait_for("the backfill", lambda: ended(self.runs("dagster/backfill", backfill), number), seconds)


def ended(runs: list[Run], number: int) -> list[Run] | None:
    """The `runs`, if there are so many and all have ended."""
    ends = ("SUCCESS", "FAILURE", "CANCELED")
    return runs if len(runs) == number and all(run["status"] in ends for run in runs) else None


@contextmanager
def dev_server(folder: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """A `tgn dev` in `folder` with these variables `TGN_*`; in the end it is stopped with all that it started."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TGN_", "DAGSTER_"))}
    command = [sys.executable, "-m", "tgn_assets.cli.main", "dev", "--port", str(free_port())]
    with (folder / LOG).open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, **settings, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            first = wait_for("the address", lambda: (folder / LOG).read_text().partition("\n")[0])
            url, _, home = first.partition(" shows ")
            wait_for("the start of dagster dev", lambda: answers(f"{url}/server_info") or process.poll() is not None)
            yield Server(url, Path(home))
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # code servers outlive their parent
            process.wait()
