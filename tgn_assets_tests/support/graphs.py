"""Small user-event graphs and a fixed model, for the tests of sampling."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader
from torch_geometric.nn import HeteroConv, SAGEConv

from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.graph.loaders import link_loader
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER


def bipartite(users: int, events: int, edges: list[tuple[int, int]]) -> HeteroData:
    """A graph of (user, event) edges; `x` are random features, `edge_weight` counts the edges from 1."""
    user, event = torch.tensor(edges, dtype=torch.int64).view(-1, 2).t()
    graph, generator = HeteroData(), torch.Generator().manual_seed(0)
    for kind, size in ((USER, users), (EVENT, events)):
        graph[kind].num_nodes, graph[kind].x = size, torch.randn(size, 4, generator=generator)
    for edge_type, index in ((INTERACTS, [user, event]), (REV_INTERACTS, [event, user])):
        graph[edge_type].edge_index = torch.stack(index)
        graph[edge_type].edge_weight = torch.arange(1.0, 1 + len(user))
    return graph


def random_graph(users: int = 30, events: int = 20, edges: int = 150, seed: int = 0) -> HeteroData:
    generator = torch.Generator().manual_seed(seed)
    ends = [torch.randint(top, (edges,), generator=generator).tolist() for top in (users, events)]
    return bipartite(users, events, list(zip(*ends, strict=True)))


def edge_set(batch: HeteroData, edge_type: tuple[str, str, str]) -> set[tuple[int, int]]:
    """The message edges of a batch as (source, target) of the graph it was drawn from."""
    source, target = batch[edge_type].edge_index
    return set(zip(batch[edge_type[0]].n_id[source].tolist(), batch[edge_type[2]].n_id[target].tolist(), strict=True))


class Sage(nn.Module):
    """Mean aggregation with fixed weights."""

    def __init__(self, hops: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            HeteroConv({edge_type: SAGEConv((4, 4), 4) for edge_type in (INTERACTS, REV_INTERACTS)})
            for _ in range(hops)
        )

    @torch.no_grad()
    def forward(self, graph: HeteroData) -> dict[str, Tensor]:
        x = graph.x_dict
        for conv in self.convs:
            x = conv(x, graph.edge_index_dict)
        return x


def loader(graph: HeteroData, links: list[tuple[int, int]] | Tensor, **options: Any) -> LinkLoader:
    """A native loader of all hops in full and eight links a batch, unless `options` say otherwise."""
    given = {name: options.pop(name) for name in ("may_be_negative", "shuffle") if name in options}
    chosen: dict[str, Any] = {"fan_out": [-1, -1], "batch_size": 8, "sampler": "native"} | options
    config = GNNConfig(layers=len(chosen["fan_out"]), **chosen)
    return link_loader(graph, links if isinstance(links, Tensor) else torch.tensor(links).t(), config, **given)


def assert_same(a: HeteroData, b: HeteroData) -> None:
    """The two batches with negatives hold the same nodes, edges and negatives in the same order."""
    for kind in (USER, EVENT):
        assert torch.equal(a[kind].n_id, b[kind].n_id)
    for edge_type in (INTERACTS, REV_INTERACTS):
        assert torch.equal(a[edge_type].e_id, b[edge_type].e_id)
        assert torch.equal(a[edge_type].edge_index, b[edge_type].edge_index)
    assert torch.equal(a[EVENT].dst_neg_index, b[EVENT].dst_neg_index)
