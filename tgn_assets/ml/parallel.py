"""Blocks of users side by side: NumPy, SciPy, LightGBM and torch leave Python to other threads while they compute."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Block = TypeVar("Block")
Result = TypeVar("Result")


def in_threads(work: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
    """`work` of each block, in their order, as many at a time as torch has threads; torch has one in each meanwhile.

    So a result does not depend on how many threads there are. An exception ends the iteration.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, blocks)
    finally:
        torch.set_num_threads(threads)
