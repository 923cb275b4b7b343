"""A PyG `BaseSampler` of our own, without a compiled extension: neighbourhoods and negatives as of each seed's time."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
    NodeSamplerInput,
)
from torch_geometric.typing import EdgeType

from tgn_assets.ml.graph.neighbor_index import InstanceTable, KnownNodes, NeighborIndex, edge_times, first_times

Seeds = tuple[str, Tensor, Tensor | None]
"""Node type, nodes [n], their times [n] or None."""


class TemporalNeighborSampler(BaseSampler):
    """Samples directed neighbourhoods like PyG's `NeighborSampler`, by time where the seeds have times.

    At hop h every node met for the first time draws up to `fan_out[h]` distinct edges into it per edge type, uniformly
    (-1: all of them). With `time_attr`, an edge in a seed's neighbourhood, at any hop, is never newer than the seed:
    edge time <= seed time; hand in seed time - 1 for strictly older. Seeds of equal time share one subgraph, seeds of
    different times share nothing (PyG's `disjoint` keeps every single seed apart); a node's `batch` is then the rank
    of its time among the distinct seed times of the mini-batch. Negatives are drawn from nodes that have an edge by
    their seed's time, or no edge in the graph at all.

    All draws come from one generator: the same seed gives the same sequence of mini-batches, in one process.
    """

    def __init__(self, graph: HeteroData, fan_out: Sequence[int], time_attr: str | None = None, seed: int = 0) -> None:
        if not fan_out or any(size != -1 and size < 1 for size in fan_out):
            raise ValueError(f"fan_out holds a positive number or -1 for every hop, not {list(fan_out)}")
        times = edge_times(graph, time_attr) if time_attr else {}
        self.fan_out = list(fan_out)
        self.generator = torch.Generator().manual_seed(seed)
        self.neighbors = {
            edge_type: NeighborIndex(store.edge_index, times.get(edge_type), graph[edge_type[-1]].num_nodes)
            for edge_type, store in graph.edge_items()
        }
        self.tables = {kind: InstanceTable(graph[kind].num_nodes) for kind in graph.node_types}
        first = first_times(graph, time_attr) if time_attr else {}
        self.known = {
            kind: KnownNodes(first.get(kind, torch.zeros(table.num_nodes))) for kind, table in self.tables.items()
        }

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: object) -> HeteroSamplerOutput:
        """The neighbourhoods of nodes, which come first and in their order; ValueError if one repeats at one time."""
        out, (number,) = self._sample([(index.input_type, index.node, index.time)])
        if not torch.equal(number, torch.arange(len(number))):
            raise ValueError("a batch of seed nodes holds the same node, at the same time, more than once")
        out.metadata = (index.input_id, index.time)
        return out

    def sample_from_edges(
        self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> HeteroSamplerOutput:
        """The neighbourhoods of both ends of links and of their negatives, which have the time of their positive."""
        source, _, target = index.input_type
        row, col, label, time = index.row, index.col, index.label, index.time
        if neg_sampling is not None and neg_sampling.is_triplet():
            amount = int(neg_sampling.amount)
            late = None if time is None else time.repeat_interleave(amount)
            other = self.known[target].draw(len(row) * amount, neg_sampling.dst_weight, late, self.generator)
            out, (src, pos, neg) = self._sample([(source, row, time), (target, col, time), (target, other, late)])
            out.metadata = (index.input_id, src, pos, neg.view(len(row), amount).squeeze(-1), time)
            return out
        if neg_sampling is not None:
            size = math.ceil(len(row) * neg_sampling.amount)
            late = None if time is None else time.repeat(math.ceil(neg_sampling.amount))[:size]
            label = torch.ones(len(row)) if label is None else label
            label = torch.cat([label, label.new_zeros(size, *label.shape[1:])])
            row = torch.cat([row, self.known[source].draw(size, neg_sampling.src_weight, late, self.generator)])
            col = torch.cat([col, self.known[target].draw(size, neg_sampling.dst_weight, late, self.generator)])
            time = None if time is None or late is None else torch.cat([time, late])
        out, numbers = self._sample([(source, row, time), (target, col, time)])
        out.metadata = (index.input_id, torch.stack(numbers), label, time)
        return out

    def _sample(self, seeds: list[Seeds]) -> tuple[HeteroSamplerOutput, list[Tensor]]:
        """The subgraph around all `seeds`, and the numbers in it of each kind of seeds."""
        moments, groups = _group([time for _, _, time in seeds])
        for table in self.tables.values():
            table.begin(None if moments is None else len(moments))
        numbers = [self.tables[kind].add(node, group) for (kind, node, _), group in zip(seeds, groups, strict=True)]
        links: dict[EdgeType, list[tuple[Tensor, ...]]] = {edge_type: [] for edge_type in self.neighbors}
        sizes = {kind: [table.size] for kind, table in self.tables.items()}
        for fan_out in self.fan_out:
            # Taken before the hop adds to the tables: what a hop finds is expanded in the next one.
            frontier = {kind: table.frontier() for kind, table in self.tables.items()}
            for edge_type, index in self.neighbors.items():
                first, node, group = frontier[edge_type[-1]]
                time = None if moments is None else moments.index_select(0, group)
                which, neighbor, edge = index.sample(node, time, fan_out, self.generator)
                inherited = None if moments is None else group.index_select(0, which)
                number = self.tables[edge_type[0]].add(neighbor, inherited)
                links[edge_type].append((number, which + first, edge))
            for kind, table in self.tables.items():
                sizes[kind].append(table.size - sum(sizes[kind]))
        joined = {edge_type: [torch.cat(part) for part in zip(*hops, strict=True)] for edge_type, hops in links.items()}
        instances = {kind: table.instances() for kind, table in self.tables.items()}
        out = HeteroSamplerOutput(
            node={kind: node for kind, (node, _) in instances.items()},
            row={edge_type: link[0] for edge_type, link in joined.items()},
            col={edge_type: link[1] for edge_type, link in joined.items()},
            edge={edge_type: link[2] for edge_type, link in joined.items()},
            batch=None if moments is None else {kind: group for kind, (_, group) in instances.items()},
            num_sampled_nodes=sizes,
            num_sampled_edges={edge_type: [len(edge) for _, _, edge in hops] for edge_type, hops in links.items()},
        )
        return out, numbers


def _group(times: list[Tensor | None]) -> tuple[Tensor | None, list[Tensor | None]]:
    """The distinct times, ascending, and the rank among them of each seed; None where the seeds have no times."""
    given = [time for time in times if time is not None]
    if not given:
        return None, [None] * len(times)
    moments, rank = torch.cat(given).unique(return_inverse=True)
    return moments, list(rank.split([len(time) for time in given]))
