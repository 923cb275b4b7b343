"""Published lists without training, and a `tgn serve` that serves them at a port of its own."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from benchmarks.servers import running
from tgn_assets.ml.schema import NEW_USER_LISTS, TABLES, USER_LISTS, create_tables
from tgn_assets.ml.weeks import shift
from tgn_assets.state.published_copy import write_copy

ROOT = Path(__file__).parents[2]
WEEK = "2026-01-05"

Item = tuple[Any, ...]
"""event_id, score and source, and values of the columns after them."""
IDS = [
    *("17850", "ann", "a/b", "/", "//a//", "a b", "a+b", "100%", "a%2Fb", "?q=1", "#1", "ümläut", "東京", "🍵"),
    *(
        "\n",
        "a\nb\n",
        "\t",
        "\x00",
        ".",
        "..",
        "users:batch",
        "a;b",
        '"quoted"',
        "\\",
        "\u202e",
        "é",
        "e\u0301",
        "A" * 1000,
    ),
]


"""Ids that a path, a query, JSON or a terminal might take for something else."""


LISTS: dict[str, list[Item]] = {user: [(f"event {user}", 0.5, "tgn_assets"), ("x/y", 1 / 3, "popular")] for user in IDS}


NEW_USERS: list[Item] = [("tea", 0.25, "popular")]


def publish_lists(
    folder: Path, lists: Mapping[str, Sequence[Item]], new_users: Sequence[Item] = (), *, week: str = WEEK
) -> Path:
    """Replaces `current.duckdb` in `folder`, as a week that publishes these lists does; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        fill(con, lists, new_users, week)
        write_copy(con, folder)
    return folder / "current.duckdb"


def fill(
    con: duckdb.DuckDBPyConnection, lists: Mapping[str, Sequence[Item]], new_users: Sequence[Item], week: str
) -> None:
    """Leaves in the empty database `con` what a week that publishes these lists leaves in the warehouse."""
    create_tables(con)
    of_week = [week, shift(week, 1)]
    insert(con, USER_LISTS, [[*of_week, user, *item] for user, items in lists.items() for item in enumerated(items)])
    insert(con, NEW_USER_LISTS, [[*of_week, *item] for item in enumerated(new_users)])
    con.execute("INSERT INTO published_weeks VALUES (?, ?, ?, 5, ?, 1, '{}')", [*of_week, week, len(lists)])


def enumerated(items: Sequence[Item]) -> list[list[Any]]:
    """rank, event_id, score, source, ... of each item."""
    return [[rank, *item] for rank, item in enumerate(items, 1)]


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Inserts `rows`, whose values are in the order of the schema; the last columns may be left out."""
    if rows:
        frame = pd.DataFrame(rows, columns=TABLES[table].names[: len(rows[0])])  # noqa: F841 (DuckDB reads it by name)
        con.execute(f"INSERT INTO {table} BY NAME FROM frame")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body; the content type says that it is JSON."""
        assert self.headers["content-type"] in ("application/json", "application/problem+json")
        return json.loads(self.body)


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """The answer to one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


@dataclass(frozen=True)
class Service:
    """A running `tgn serve`."""

    process: "subprocess.Popen[bytes]"
    port: int
    home: Path
    log: Path

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return ask(self.port, path, method, body, headers)

    def batch(self, user_ids: Any, **more: Any) -> Answer:
        """The answer to a batch."""
        return self.ask("/v1/users:batch", "POST", json.dumps({"user_ids": user_ids, **more}).encode())

    def health(self) -> Any:
        """What /healthz answers."""
        return self.ask("/healthz").json

    def wait_for(self, **health: Any) -> Any:
        """The answer of /healthz once it has these values; within a minute."""
        for _ in range(600):
            found = self.health()
            if all(found.get(name) == value for name, value in health.items()):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{found} is not {health}; {self.log.read_text()}")


@contextmanager
def serving(home: Path, *options: str, **environment: str) -> Iterator[Service]:
    """`tgn serve` on what is published in `home`, once it answers; in the end it gets SIGTERM if it still runs."""
    home.mkdir(parents=True, exist_ok=True)
    log = home.with_name(f"{home.name}.log")
    command = [sys.executable, "-m", "tgn_assets.cli.main", "serve", *options, "--port"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TGN_")}
    settings = {"TGN_HOME": str(home), "PYTHONPATH": path}
    with running(command, log, env=inherited | settings | environment, cwd=home) as (process, port):
        yield Service(process, port, home, log)
