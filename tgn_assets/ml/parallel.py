"""Work side by side: NumPy, SciPy, LightGBM and torch leave Python to other threads while they compute."""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Block = TypeVar("Block")
Result = TypeVar("Result")
_here = threading.local()
"""`threads`: how many this thread may deal work out to while torch has one; those of a pool have no such number."""
BLOCKS_PER_TRIM = 32
"""Blocks after which freed memory is given back: after each of them it would cost more time than it is worth."""


def map_threaded(work: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
    """`work` of each block, in their order, as many at a time as torch has threads; torch has one in each meanwhile.

    So a result does not depend on how many threads there are. An exception ends the iteration. No more than a few
    results wait to be asked for, or those of a million users would pile up before a slow reader.
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
def workers() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch has, for work that is dealt out in parts; torch has one in each meanwhile."""
    with _one_torch_thread() as threads, ThreadPoolExecutor(threads) as pool:
        yield pool


def trim_malloc() -> None:
    """What has been freed goes back to the system: glibc keeps it in an arena for each thread, in pieces that the
    arrays of the next blocks often do not fit, so that they grow in number with the users."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # which other C libraries do not have, nor need
    if trim is not None:
        trim(0)


@contextmanager
def run_alongside(work: Callable[[int], Result], side_by_side: bool = True) -> Iterator["Future[Result]"]:
    """`work` goes on beside the body, in as many threads as it is told, all but one; the end waits for it.

    In the body torch has one thread, and what is dealt out there goes to as many as ever: threads that wait in a pool
    do not fight for a core, as those of torch would. A body that is all torch and gains much from a second thread goes
    before, with all of them, and then `work`, not `side_by_side`. What torch does in `work` it does with one thread
    either way, so that the result is the same.
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
    """Gives the number of threads that torch had before the outermost of these, and has again after it."""
    before, outer = torch.get_num_threads(), getattr(_here, "threads", None)
    _here.threads = outer or before
    torch.set_num_threads(1)
    try:
        yield _here.threads
    finally:
        torch.set_num_threads(before)
        _here.threads = outer
