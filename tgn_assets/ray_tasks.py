"""`Workers` as tasks of Ray, on this machine or many: the only module that imports ray, when TGN_WORKERS asks for it.

The run stays where it is, with the warehouse, the models and the commit. A task gets a function, what is shared, and a
few shards of users; it opens no file of TGN_HOME and writes none. What is shared lies in Ray's object store, once on
each node. Results come back in the order of the shards, and each is computed by one thread: lists and models are the
same bytes as with threads.
"""

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from threading import current_thread, main_thread
from typing import Any, NamedTuple

import ray
import torch
from ray import exceptions

from tgn_assets.ml.parallel import Result, Shard, Shared, WorkersError
from tgn_assets.ml.processor import processor
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.safe_text import first_line, safe_text

LOCAL = "ray"
"""The address of a cluster of this machine alone, which starts and ends with the run."""
TRIES = 4
"""Times that a task is begun whose worker or node dies."""
AHEAD = 2
"""Tasks for each processor that are made ahead of the reader."""
CANCELS = (0.5, 1.0, 2.0, 4.0)
"""Seconds until a task that has not ended is cancelled again."""
PATIENCE = 10.0
"""Seconds to wait for the head node of a cluster."""
LOST = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
    exceptions.OwnerDiedError,
)


class _Node(NamedTuple):
    """What decides whether a task's result is the same bytes as the driver's."""

    version: str
    processor: str


class _Task(NamedTuple):
    shards: list[Any]
    result: "ray.ObjectRef[Any]"


class RayTasks:
    """`Workers` on the cluster at `address`, `LOCAL` or Ray's own notation; `shards_per_task` bound a worker's memory.

    WorkersError if there is no such cluster.
    """

    def __init__(self, address: str, *, shards_per_task: int, log: LogFn) -> None:
        self.shards_per_task, self.log, self.own, self.told = shards_per_task, log, _node(), set[str]()
        if not ray.is_initialized():
            _start(address)
        self.ahead = AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def map(self, work: Callable[[Shared, Shard], Result], shared: Shared, shards: Iterable[Shard]) -> Iterator[Result]:
        """`Workers.map`. An error of `work` is raised as it is; what runs then is cancelled, as when the reader stops.

        A task whose worker or node died is begun again, at most `TRIES` times in all, and the log says so.
        """
        store, tasks, rest = ray.put(shared), deque[_Task](), iter(shards)
        try:
            while batch := list(islice(rest, self.shards_per_task)):
                tasks.append(self._begin(work, store, batch))
                if len(tasks) >= self.ahead:
                    yield from self._end(work, store, tasks)
            while tasks:
                yield from self._end(work, store, tasks)
        finally:
            self._cancel([task.result for task in tasks])

    def _begin(self, work: Callable[..., Any], store: "ray.ObjectRef[Any]", shards: list[Any]) -> _Task:
        # In a list: a bare reference would be read again for every task.
        return _Task(shards, _done.remote(self.own, work, [store], shards))

    def _end(self, work: Callable[..., Any], store: "ray.ObjectRef[Any]", tasks: deque[_Task]) -> list[Any]:
        """The results of the oldest of `tasks`, which is removed."""
        for attempt in range(1, TRIES + 1):
            try:
                results, processor = ray.get(tasks[0].result)
            except exceptions.RayTaskError as error:
                raise (error.cause or error) from None
            except exceptions.OutOfMemoryError as error:
                raise WorkersError(
                    f"a worker of Ray ran out of memory over {self.shards_per_task} shards of users: set "
                    "TGN_TASK_SHARDS to less, or give Ray fewer processors or more memory"
                ) from error
            except LOST as error:
                reason = safe_text(first_line(error))
                if attempt == TRIES:
                    raise WorkersError(f"a task of Ray was lost {TRIES} times, at last: {reason}") from error
                self.log(f"a task of Ray was lost and is begun again ({attempt} of {TRIES - 1}): {reason}")
                tasks[0] = self._begin(work, store, tasks[0].shards)
            else:
                tasks.popleft()
                self._compare(processor)
                return results
        raise AssertionError

    def _cancel(self, results: "list[ray.ObjectRef[Any]]") -> None:
        """Ends the tasks of `results`. Ray loses a cancellation now and then: it is sent until the task has ended.

        One that has ended must not be cancelled: Ray, still busy with its reply, would abort this process.
        """
        for seconds in (0.0, *CANCELS):
            results = ray.wait(results, num_returns=len(results), timeout=seconds)[1] if results else []
            if not results:
                return
            for result in results:
                ray.cancel(result, force=True)
        self.log(f"a task of Ray was cancelled {1 + len(CANCELS)} times, and keeps its processor until it ends")

    def _compare(self, processor: str) -> None:
        if processor != self.own.processor and processor not in self.told:
            self.told.add(processor)
            self.log(
                f"a node of Ray computes with {processor}, this one with {self.own.processor}: last digits of scores "
                "may differ from those of one machine"
            )


def _start(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    place: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {"address": address}
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "//" not in host:  # or Ray tries for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
        ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
        if current_thread() is main_thread():  # where Ray has set it, to end the process where Dagster ends the run
            signal.signal(signal.SIGTERM, terminated)
    except (ConnectionError, OSError, ValueError, RuntimeError, exceptions.RayError) as error:
        raise WorkersError(
            f"TGN_WORKERS={safe_text(address)}: no cluster of Ray can be used there ({first_line(error)}); for one "
            "that asks for a token, set RAY_AUTH_MODE=token"
        ) from error


@ray.remote(max_retries=0)
def _done(driver: _Node, work: Callable[..., Any], store: "list[ray.ObjectRef[Any]]", shards: list[Any]) -> Any:
    """(the results of `shards`, the processor that computed them); WorkersError if the node has another version."""
    torch.set_num_threads(1)
    here = _node()
    if here.version != driver.version:
        raise WorkersError(f"a node of Ray has tgn_assets {here.version}, the run {driver.version}: install the same")
    shared = _shared(store[0])
    return [work(shared, shard) for shard in shards], here.processor


@lru_cache(maxsize=1)
def _shared(store: "ray.ObjectRef[Any]") -> Any:
    return ray.get(store)


def _node() -> _Node:
    return _Node(version("tgn_assets"), processor("cpu"))
