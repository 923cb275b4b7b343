"""PyG's tutorial on link prediction: LinkNeighborLoader on torch-sparse, binary cross-entropy on sampled links.

Batch 256, fan-out [15, 10], one negative; node id embeddings and two SAGEConv layers of 64. It trains for `limit`
seconds and answers with `users` and `events` [epochs, n, 64]: the embeddings by full-graph inference after each epoch.
"""

import sys
import time
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkNeighborLoader
from torch_geometric.nn import SAGEConv, to_hetero

LINK, REVERSE = ("user", "interacts_with", "event"), ("event", "rev_interacts_with", "user")


class Sage(nn.Module):
    """Two SAGEConv layers, for `to_hetero`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(dim, dim), SAGEConv(dim, dim)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def main(source: str, target: str) -> None:
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    given = np.load(source)
    links, dim = torch.from_numpy(given["links"]), int(given["dim"])
    graph = HeteroData()
    graph["user"].num_nodes, graph["event"].num_nodes = int(given["users"]), int(given["events"])
    graph[LINK].edge_index, graph[REVERSE].edge_index = links, links.flip(0)
    loader = LinkNeighborLoader(
        graph, [15, 10], edge_label_index=(LINK, links), neg_sampling_ratio=1.0, batch_size=256, shuffle=True
    )
    ids = nn.ModuleDict({kind: nn.Embedding(graph[kind].num_nodes, dim) for kind in graph.node_types})
    sage = to_hetero(Sage(dim), graph.metadata())
    optimizer = torch.optim.Adam([*ids.parameters(), *sage.parameters()], lr=float(given["learning_rate"]))
    spent, trained, users, events = 0.0, 0, [], []
    while spent < given["limit"]:
        start = time.perf_counter()
        for batch in loader:
            vectors = sage({kind: ids[kind](batch[kind].n_id) for kind in ids}, batch.edge_index_dict)
            user, event = batch[LINK].edge_label_index
            logits = (vectors["user"][user] * vectors["event"][event]).sum(1)
            loss = F.binary_cross_entropy_with_logits(logits, batch[LINK].edge_label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trained += len(batch[LINK].input_id)
            if spent + time.perf_counter() - start > given["limit"]:
                break
        spent += time.perf_counter() - start
        with torch.no_grad():
            whole = sage({kind: table.weight for kind, table in ids.items()}, graph.edge_index_dict)
        users.append(whole["user"].numpy())
        events.append(whole["event"].numpy())
    np.savez(target, users=np.stack(users), events=np.stack(events), seconds=spent, trained=trained)


if __name__ == "__main__":
    main(*sys.argv[1:])
