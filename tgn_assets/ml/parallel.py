"""Work side by side. Threads by default: NumPy, SciPy, LightGBM and torch release the GIL while they compute.

What is done for every user goes through `Workers.map`, shard by shard, so that another engine can do it elsewhere.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import torch

from tgn_assets.ml.safe_text import SafeError, first_line

Block = TypeVar("Block")
Shared = TypeVar("Shared")
Shard = TypeVar("Shard")
Result = TypeVar("Result")
_here = threading.local()
"""`threads`: how many threads this one may start work in while torch has one; unset in the threads of a pool."""
BLOCKS_PER_TRIM = 32
"""Blocks after which freed memory is returned to the system: after every block it would cost too much time."""


def device_name(wanted: str) -> str:
    """`cpu`, `cuda`, ...: `wanted`, or for `auto` a GPU if there is one. ValueError if torch cannot use it."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{wanted} cannot be used ({first_line(error)}); set it to auto or cpu") from error
    return wanted


class WorkersError(SafeError, RuntimeError):
    """The engine cannot be used, or could not do the work; the message says what helps."""


class Workers(Protocol):
    """An engine that maps a function over shards of users."""

    def map(self, work: Callable[[Shared, Shard], Result], shared: Shared, shards: Iterable[Shard]) -> Iterator[Result]:
        """Yields `work(shared, shard)` of each shard, in order; torch has one thread in it.

        `work` is a function at the top of a module, and changes neither of its arguments, which may be copies in
        another process: all that it reads of users is in the shard, and it returns all that it finds. Only a few
        shards are made ahead of the reader. An exception of `work` ends the iteration.
        """
        ...


class Threads:
    """`Workers` in the threads of this process."""

    def map(self, work: Callable[[Shared, Shard], Result], shared: Shared, shards: Iterable[Shard]) -> Iterator[Result]:
        """`Workers.map`."""
        return map_threaded(partial(work, shared), shards)


THREADS = Threads()


def map_threaded(work: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
    """Yields `work` of each block, in order, computed in as many threads as torch has; in each of them torch has one.

    So a result does not depend on the number of threads. An exception ends the iteration. Only a few results are
    computed ahead of the reader, so that memory stays bounded.
    """
    with _one_torch_thread() as threads, ThreadPoolExecutor(threads) as pool:
        ahead = deque[Future[Result]]()
        for number, block in enumerate(blocks, 1):
            ahead.append(pool.submit(work, block))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
            if not number % BLOCKS_PER_TRIM:
                trim_malloc()
        while ahead:
            yield ahead.popleft().result()
    trim_malloc()


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of as many threads as torch has; in each of them torch has one. Their memory is returned in the end."""
    with _one_torch_thread() as threads, ThreadPoolExecutor(threads) as pool:
        yield pool
    trim_malloc()


def trim_malloc() -> None:
    """Returns freed memory to the system: glibc keeps it in an arena per thread, in pieces that often do not fit the
    arrays of the next blocks, so that memory would grow with the number of blocks."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # which other C libraries do not have, nor need
    if trim is not None:
        trim(0)


@contextmanager
def run_alongside(work: Callable[[int], Result], side_by_side: bool = True) -> Iterator["Future[Result]"]:
    """Runs `work` in another thread while the body runs, and waits for it at the end; `work` gets a number of threads.

    `work` may use all threads but one. In the body torch has one thread, while pools there have all of them: threads
    that wait in a pool do not compete for a core, as those of torch would. Without `side_by_side` the body runs first,
    with all threads, and then `work`: better for a body that is all torch and gains much from a second thread. In
    `work` torch has one thread either way, so that the result is the same.
    """
    if side_by_side:
        with _one_torch_thread() as threads, ThreadPoolExecutor(1) as pool:
            yield pool.submit(work, max(threads - 1, 1))
        return
    waiting: Future[Result] = Future()
    yield waiting
    with _one_torch_thread() as threads:
        waiting.set_result(work(threads))


@contextmanager
def _one_torch_thread() -> Iterator[int]:
    """Sets torch to one thread meanwhile; yields the number of threads that it had before the outermost of these."""
    before, outer = torch.get_num_threads(), getattr(_here, "threads", None)
    _here.threads = outer or before
    torch.set_num_threads(1)
    try:
        yield _here.threads
    finally:
        torch.set_num_threads(before)
        _here.threads = outer
