"""Requests a second and latency of `tgn serve` for a million users, beside a bare "hello" of the same server.

    python -m benchmarks.speed.serve [--publish] [--users N] [--seconds S]

The load comes from wrk (Debian: `apt-get install wrk`), which keeps CONNECTIONS connections busy: each sends the next
request when it has its answer. Both servers run at once, and wrk asks them in turns; in the last turn the lists are
published anew, twice, while it asks. Also prints what a lookup costs, by DuckDB and in memory, and the memory that the
service and its reader take. `make bench-serve` writes it to benchmarks/RESULTS.md and docs/performance.md.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import psutil  # type: ignore[import-untyped]

from benchmarks.common import ROOT, machine, work_folder
from benchmarks.servers import answers, running, wait_for
from benchmarks.table import publish
from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.schema import create_tables
from tgn_assets.serve.lists import WeekLists
from tgn_assets.serve.server import serve
from tgn_assets.state.published_copy import write_copy

SECTION = "serving"
USERS, EVENTS, K = 1_000_000, 100_000, 5
CONNECTIONS, SECONDS, TURNS = 16, 8, 3
LOOKUPS = 20_000
LISTS_SQL = """
    INSERT INTO weekly_top5_predictions BY NAME
    SELECT DATE '2026-01-05' AS week, DATE '2026-01-12' AS target_week, printf('user-%07d@shop', u) AS user_id,
           r::INTEGER AS rank, 'event-' || hash(u * {k} + r + {seed}) % {events} AS event_id,
           0.5 / r + hash(u) % 1000000 / 1e8 AS score, 'tgn_assets' AS source,
           if(r < {k}, 'repeat', 'next_step') AS reason_kind,
           if(r < {k}, printf('had in %d of the last 4 weeks, last on 2026-01-%02d', r, 1 + hash(u) % 9),
              printf('often follows event-%d, which the user had last week (%d times in the week after it)',
                     hash(u) % {events}, 1 + hash(u + 1) % 20)) AS reason,
           json_object('weeks', r, 'of', 4) AS reason_parameters
    FROM range({users}) AS a(u), range(1, {k} + 1) AS b(r)
"""
NEW_USERS_SQL = """
    INSERT INTO new_user_top5_predictions BY NAME
    SELECT * EXCLUDE user_id FROM weekly_top5_predictions WHERE user_id = 'user-0000000@shop'
"""
RECORD_SQL = (
    "INSERT INTO published_weeks VALUES ('2026-01-05', '2026-01-12', '2026-01-05', {k}, {users}, {events}, '{{}}')"
)
SCRIPT = """
math.randomseed(7)
function request() return wrk.format("GET", {path}) end
function done(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  local figures = "\\n[%d, %d, %d, %d, %d]\\n"
  io.write(figures:format(summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
"""
HELLO, USER = '"/"', 'string.format("/v1/users/user-%07d%%40shop", math.random(0, {users} - 1))'


@dataclass(frozen=True)
class Load:
    """What wrk measured: requests a second, milliseconds, and requests that failed."""

    rate: float
    p50: float
    p99: float
    failed: int


def main() -> None:
    """Prints the tables, and publishes them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publish", action="store_true", help="also write them to RESULTS.md and docs/performance.md")
    parser.add_argument("--users", type=int, default=USERS, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each turn (default: %(default)s)")
    parser.add_argument("--hello", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hello:
        serve_hello(given.hello)
    elif not shutil.which("wrk"):
        parser.exit(1, "wrk is not installed (Debian: apt-get install wrk)\n")
    else:
        text = "\n".join(measured(given.users, given.seconds))
        print(text)
        if given.publish:
            publish(SECTION, text)


def serve_hello(port: int) -> None:
    """Serves the text "hello" as `tgn serve` serves lists: Starlette, uvicorn, the same options."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(_: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    serve(Starlette(routes=[Route("/", hello)]), host="127.0.0.1", port=port)


def measured(users: int, seconds: int) -> Iterator[str]:
    """The lines of the page."""
    with work_folder() as folder:
        publish_lists(folder, users, seed=0)
        memory = Memory.of(folder)
        by_duckdb, in_memory = compare_lookups(folder / "current.duckdb", folder / "compact", users)
        with servers(folder) as (hello_port, port, service):
            hello, ours, swap = loads(folder, (hello_port, port), users, seconds)
            resident = psutil.Process(service.pid).memory_info().rss
    yield f"{machine()}; wrk, {CONNECTIONS} connections, {TURNS} turns of {seconds} s each, their medians.\n"
    yield "| what | requests a second | p50 | p99 | failed |\n|---|---|---|---|---|"
    for what, load in (
        ('a bare "hello"', hello),
        (f"`GET /v1/users/{{id}}`, {users:,} users", ours),
        ("the same while lists are published twice", swap),
    ):
        yield f"| {what} | {load.rate:,.0f} | {load.p50:.1f} ms | {load.p99:.1f} ms | {load.failed} |"
    yield f"\n{ours.rate / hello.rate:.0%} of the rate of the hello.\n"
    yield "| what it takes | |\n|---|---|"
    yield f"| lists of {users:,} users in memory | {memory.lists / 1e6:,.0f} MB |"
    yield f"| the service with them, resident after these requests | {resident / 1e6:,.0f} MB |"
    yield f"| reading `current.duckdb` ({memory.file / 1e6:,.0f} MB) | {memory.seconds:.1f} s |"
    yield f"| memory of the process that reads | {memory.reader / 1e6:,.0f} MB |"
    yield f"| a user's list, by DuckDB from the file | {by_duckdb * 1e3:,.1f} ms |"
    yield f"| a user's list, from memory | {in_memory * 1e6:,.0f} µs |"
    yield "\n`make bench-serve`."


def publish_lists(folder: Path, users: int, seed: int) -> None:
    """Replaces `current.duckdb` in `folder` by lists of so many users."""
    with connect() as con:
        create_tables(con)
        sizes = {"users": users, "events": EVENTS, "k": K, "seed": seed}
        for query in (LISTS_SQL, NEW_USERS_SQL, RECORD_SQL):
            con.execute(query.format(**sizes))
        write_copy(con, folder)


@dataclass(frozen=True)
class Memory:
    """Bytes of `current.duckdb`, of its compact form and of the process that reads it; the seconds of the latter."""

    file: int
    lists: int
    reader: int
    seconds: float

    @classmethod
    def of(cls, folder: Path) -> "Memory":
        """Reads the file in `folder` and leaves the compact form there."""
        source, target = folder / "current.duckdb", folder / "compact"
        start = time.perf_counter()
        with target.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tgn_assets.serve.compact", str(source), str(out.fileno())],
                pass_fds=[out.fileno()],
                cwd=ROOT,
            )
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError("the lists could not be read; the output above says why")
        seconds = time.perf_counter() - start
        return cls(source.stat().st_size, target.stat().st_size, used.ru_maxrss * 1024, seconds)


def compare_lookups(copy: Path, compact: Path, users: int) -> tuple[float, float]:
    """Seconds of a lookup by DuckDB and in memory. RuntimeError if they find different lists."""
    query = "SELECT * EXCLUDE (week, target_week, user_id) FROM weekly_top5_predictions WHERE user_id = ? ORDER BY rank"
    draw, lists = random.Random(1), WeekLists(memoryview(compact.read_bytes()))
    drawn = [f"user-{draw.randrange(users):07d}@shop" for _ in range(LOOKUPS)]
    with connect(copy, read_only=True) as con:
        some = drawn[: LOOKUPS // 100]
        start = time.perf_counter()
        by_duckdb = [con.execute(query, [user]).fetchall() for user in some]
        middle = time.perf_counter()
        in_memory = [lists.items(user) for user in drawn]
        end = time.perf_counter()
    for rows, items in zip(by_duckdb, in_memory, strict=False):
        if [tuple(item.values()) for item in json.loads(items or b"[]")] != rows:
            raise RuntimeError("the list in memory is not that of the table")
    return (middle - start) / len(some), (end - middle) / len(drawn)


@contextmanager
def servers(home: Path) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """The ports of a hello and of `tgn serve` on `home`, once both answer, and the latter's process."""
    hello = [sys.executable, "-m", "benchmarks.speed.serve", "--hello"]
    ours = [sys.executable, "-m", "tgn_assets.cli.main", "serve", "--port"]
    options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | {"TGN_HOME": str(home), "TGN_SERVE_TOKEN": ""}}
    with (
        running(hello, home / "hello.log", **options) as (_, hello_port),
        running(ours, home / "serve.log", **options) as (process, port),
    ):
        wait_for("reading the lists", lambda: answers(f"http://127.0.0.1:{port}/healthz"))
        yield hello_port, port, process


def loads(folder: Path, ports: Sequence[int], users: int, seconds: int) -> tuple[Load, Load, Load]:
    """The median turns of the hello and of the lists, and the turn in which lists are published."""
    paths = (HELLO, USER.format(users=users))
    turns: list[tuple[Load, Load]] = []
    for _ in range(TURNS):
        one, other = (wrk(folder, port, path, seconds) for port, path in zip(ports, paths, strict=True))
        turns.append((one, other))

    def publish_twice() -> None:
        for seed in (1, 2):
            publish_lists(folder, users, seed)

    writer = Thread(target=publish_twice)
    writer.start()
    swap = wrk(folder, ports[1], paths[1], 3 * seconds)
    writer.join()
    hello, ours = (median_of(list(of)) for of in zip(*turns, strict=True))
    return hello, ours, swap


def median_of(turns: list[Load]) -> Load:
    """The median of each figure; all that failed."""
    rate, p50, p99 = (median(getattr(turn, name) for turn in turns) for name in ("rate", "p50", "p99"))
    return Load(rate, p50, p99, sum(turn.failed for turn in turns))


def wrk(folder: Path, port: int, path: str, seconds: int) -> Load:
    """One turn of load on the server at `port`; the Lua expression `path` says what is asked."""
    script = folder / "load.lua"
    script.write_text(SCRIPT.format(path=path))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    requests, micros, p50, p99, failed = json.loads(output.strip().splitlines()[-1])
    return Load(requests / micros * 1e6, p50 / 1e3, p99 / 1e3, failed)


if __name__ == "__main__":
    main()
