"""Users per second of the exact top-5 among 100 thousand events for 20 thousand of a million users, 64 dimensions.

    python -m benchmarks.speed.topk

Ranks users in blocks, in parallel, as `recommend` does. The limit is a plain matrix product of the same shape, block by
block into memory allocated before, its result unused: the fastest of several block sizes, with the threads inside one
product or each at its own block. The peer is the top-k that the models of `implicit` recommend with.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.common import run_peer
from benchmarks.table import Row, show
from tgn_assets.ml.linalg.topk import top_products
from tgn_assets.ml.parallel import map_threaded
from tgn_assets.ml.recommend.top_k import RANKING_SHARD

ALL_USERS, USERS, EVENTS, DIM, K = 1_000_000, 20_000, 100_000, 64, 5
BLOCKS = (64, 256, 1024)


def rows() -> Iterator[Row]:
    """The two rows of the table. RuntimeError if the peer finds other events."""
    torch.manual_seed(0)
    everyone, events = torch.randn(ALL_USERS, DIM), torch.randn(EVENTS, DIM)
    users = everyone[torch.randperm(ALL_USERS)[:USERS]]
    limit = min(
        _timed(partial(product, users, events, size)) for size in BLOCKS for product in (_product, _parallel_products)
    )
    _top(users[:RANKING_SHARD], events)
    ours = _timed(lambda: _top(users, events))
    answer = run_peer("peers", "topk", users=users.numpy(), events=events.numpy())
    theirs = float(answer["seconds"])
    _check(users, events, torch.from_numpy(answer["lists"].astype(np.int64)))
    what = f"exact top-{K} for {USERS:,} of {ALL_USERS:,} users among {EVENTS:,} events, {DIM} dimensions"
    figures = f"{USERS / ours:,.0f} users/s"
    yield Row(
        what=what,
        against="a plain matrix product of the same shape",
        must="60% of the limit",
        aim="85%",
        measured=f"{limit / ours:.0%}",
        figures=f"{figures}, {USERS / limit:,.0f} users/s",
    )
    yield Row(
        what=what,
        against="implicit's top-k",
        must="1x",
        aim="",
        measured=f"{theirs / ours:.1f}x",
        figures=f"{figures}, {USERS / theirs:,.0f} users/s",
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _product(users: torch.Tensor, events: torch.Tensor, size: int) -> None:
    out = torch.empty(size, len(events))
    for block in users.split(size):
        torch.mm(block, events.T, out=out[: len(block)])


def _parallel_products(users: torch.Tensor, events: torch.Tensor, size: int) -> None:
    for _ in map_threaded(lambda part: _product(part, events, size), users.split(RANKING_SHARD)):
        pass


def _top(users: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(map_threaded(lambda part: top_products(part, events, K), users.split(RANKING_SHARD))))


def _check(users: torch.Tensor, events: torch.Tensor, lists: torch.Tensor) -> None:
    some, made = users[:1000], top_products(users[:1000], events, K)
    for one, other in zip(made, lists[:1000], strict=True):
        if not torch.equal(one.sort().values, other.sort().values):
            raise RuntimeError("implicit and top_products find different events")
    torch.testing.assert_close((some[:, None] * events[made]).sum(2).amax(1), (some @ events.T).amax(1))


if __name__ == "__main__":
    show(rows())
