"""Our neighbour sampler beside torch-sparse's, each through PyG's link loader, in one process.

    python -m benchmarks.speed.neighbor_sampler

The graph has 200 thousand users, 50 thousand events and 5 million edges each way (users uniform, events by Zipf's law).
A batch has 1,024 of these edges as links, fan-out [15, 10], no negatives.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch_geometric.data import HeteroData

from benchmarks.common import run_peer
from benchmarks.logs.generated import zipf
from benchmarks.table import Row, show
from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.graph.loaders import link_loader
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER

USERS, EVENTS, EDGES = 200_000, 50_000, 5_000_000
SIZE, WARM_UP, BATCHES = 1024, 3, 20


def rows() -> Iterator[Row]:
    """The row of the table."""
    rng = np.random.default_rng(0)
    edges = np.stack([rng.integers(0, USERS, EDGES), zipf(EVENTS, rng.random(EDGES))])
    links = edges[:, rng.choice(EDGES, SIZE * (WARM_UP + BATCHES), replace=False)]
    ours, drawn = _ours(edges, links)
    answer = run_peer(
        "peers", "neighbor_sampler", edges=edges, links=links, users=USERS, events=EVENTS, size=SIZE, batches=BATCHES
    )
    theirs = float(answer["seconds"])
    yield Row(
        what="our sampler through PyG's LinkLoader, links per second, batch 1,024, fan-out [15, 10]",
        against="LinkNeighborLoader on torch-sparse, single process",
        must="3x",
        aim="8x",
        measured=f"{theirs / ours:.1f}x",
        figures=f"{BATCHES * SIZE / ours:,.0f} and {BATCHES * SIZE / theirs:,.0f} links/s; {drawn / BATCHES:,.0f} and "
        f"{int(answer['edges_drawn']) / BATCHES:,.0f} edges a batch and direction",
    )


def _ours(edges: IntArray, links: IntArray) -> tuple[float, int]:
    """(seconds for BATCHES batches, edges from user to event drawn in them)."""
    graph, edge_index = HeteroData(), torch.from_numpy(edges)
    graph[USER].num_nodes, graph[EVENT].num_nodes = USERS, EVENTS
    graph[INTERACTS].edge_index, graph[REV_INTERACTS].edge_index = edge_index, edge_index.flip(0)
    config = GNNConfig(fan_out=[15, 10], batch_size=SIZE, sampler="native")
    iterator = iter(link_loader(graph, torch.from_numpy(links), config))
    for _ in range(WARM_UP):
        next(iterator)
    start = time.perf_counter()
    drawn = sum(next(iterator)[INTERACTS].edge_index.shape[1] for _ in range(BATCHES))
    return time.perf_counter() - start, drawn


if __name__ == "__main__":
    show(rows())
