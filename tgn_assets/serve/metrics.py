"""Counts and times of requests, as Prometheus reads them."""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from tgn_assets.serve.served_copy import ServedCopy

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper limits of the histogram of seconds."""
Sample = tuple[str, float]
"""The labels, braces included, and the value."""


class Metrics:
    """What happened since the service began."""

    def __init__(self) -> None:
        self.started = time.time()
        self.in_progress = 0
        self.requests = Counter[tuple[str, int]]()
        self.lists = Counter[str]({"own": 0, "new-user": 0, "none": 0})
        self._seconds: dict[str, list[int]] = {}
        self._sums = Counter[str]()

    def observe(self, route: str, status: int, seconds: float) -> None:
        """A request to `route` was answered."""
        self.requests[route, status] += 1
        counts = self._seconds.get(route)
        if counts is None:
            counts = self._seconds[route] = [0] * (len(BUCKETS) + 1)
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[route] += seconds  # type: ignore[assignment]

    def text(self, served: ServedCopy) -> str:
        """All of it in the text format, with what is served."""
        return "".join(f"{line}\n" for line in (*self._of_requests(), *_of_copy(served), *self._of_process()))

    def _of_requests(self) -> Iterator[str]:
        requests = (
            (f'{{route="{route}",status="{status}"}}', count) for (route, status), count in self.requests.items()
        )
        yield from _metric("tgn_serve_requests_total", "counter", "Requests answered.", requests)
        name = "tgn_serve_request_seconds"
        yield from _metric(name, "histogram", "Seconds from a request to its answer.", ())
        for route, counts in self._seconds.items():
            below = 0
            for limit, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
                below += count
                yield f'{name}_bucket{{route="{route}",le="{limit}"}} {below}'
            yield f'{name}_sum{{route="{route}"}} {self._sums[route]}'
            yield f'{name}_count{{route="{route}"}} {below}'
        yield from _gauge("tgn_serve_requests_in_progress", "Requests not answered yet.", self.in_progress)
        lists = ((f'{{list="{kind}"}}', count) for kind, count in self.lists.items())
        yield from _metric(
            "tgn_serve_lists_total", "counter", "Lists answered: of the user, for new users, none.", lists
        )

    def _of_process(self) -> Iterator[str]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm", encoding="utf-8") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        yield from _gauge("process_resident_memory_bytes", "Resident memory.", resident)
        seconds = used.ru_utime + used.ru_stime
        yield from _metric("process_cpu_seconds_total", "counter", "Seconds of CPU.", [("", seconds)])
        yield from _gauge("process_start_time_seconds", "Start of the service.", self.started)


def _of_copy(served: ServedCopy) -> Iterator[str]:
    lists, problem = served.lists, served.problem
    yield from _gauge("tgn_serve_ready", "1 if a week is served.", int(lists is not None))
    yield from _gauge("tgn_serve_up_to_date", "0 while current.duckdb cannot be served.", int(not problem))
    loads = ((f'{{result="{result}"}}', count) for result, count in served.loads.items())
    yield from _metric("tgn_serve_loads_total", "counter", "Readings of current.duckdb.", loads)
    if lists is None or served.published is None:
        return
    target = datetime.fromisoformat(lists.target_week).replace(tzinfo=UTC).timestamp()
    for name, meaning, value in (
        ("published_timestamp_seconds", "When current.duckdb was written.", served.published),
        ("target_week_timestamp_seconds", "Monday of the week that the lists are for.", target),
        ("users", "Users with a list.", lists.users),
        ("lists_bytes", "Memory of the lists.", lists.bytes),
        ("load_seconds", "Seconds of the last reading.", served.load_seconds),
    ):
        yield from _gauge(f"tgn_serve_{name}", meaning, value)


def _gauge(name: str, meaning: str, value: float) -> Iterator[str]:
    return _metric(name, "gauge", meaning, [("", value)])


def _metric(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value}"
