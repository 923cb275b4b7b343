"""PyG's LinkNeighborLoader on torch-sparse, in one process: seconds for `batches` batches of `links`, after three."""

import sys
import time
import warnings

import numpy as np
import torch
import torch_geometric.typing as pyg
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkNeighborLoader

LINK, REVERSE = ("user", "interacts_with", "event"), ("event", "rev_interacts_with", "user")
WARM_UP = 3


def main(source: str, target: str) -> None:
    warnings.filterwarnings("ignore")
    if pyg.WITH_PYG_LIB or not pyg.WITH_TORCH_SPARSE:
        raise SystemExit("this benchmark measures torch-sparse, which PyG does not use here")
    given = np.load(source)
    edges, batches = torch.from_numpy(given["edges"]), int(given["batches"])
    graph = HeteroData()
    graph["user"].num_nodes, graph["event"].num_nodes = int(given["users"]), int(given["events"])
    graph[LINK].edge_index, graph[REVERSE].edge_index = edges, edges.flip(0)
    links = torch.from_numpy(given["links"])
    loader = LinkNeighborLoader(graph, [15, 10], edge_label_index=(LINK, links), batch_size=int(given["size"]))
    iterator = iter(loader)
    for _ in range(WARM_UP):
        next(iterator)
    start = time.perf_counter()
    drawn = sum(next(iterator)[LINK].edge_index.shape[1] for _ in range(batches))
    np.savez(target, seconds=time.perf_counter() - start, edges_drawn=drawn)


if __name__ == "__main__":
    main(*sys.argv[1:])
