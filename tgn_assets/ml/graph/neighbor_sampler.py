"""A PyG `BaseSampler` in plain torch, for where no compiled one is installed.

Every step is a handful of tensor operations over all nodes of a hop; the only Python loops run over hops, edge types
and the fan-out. Random memory access is what costs, so neighbours are kept as 32-bit numbers where they fit.
"""

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

_UNNUMBERED = torch.iinfo(torch.int32).max


class NativeNeighborSampler(BaseSampler):
    """Samples directed neighbourhoods like PyG's `NeighborSampler`.

    At hop h every node met for the first time draws up to `fan_out[h]` distinct edges into it per edge type, uniformly
    (-1: all of them). All draws come from one generator: the same seed gives the same sequence of batches.
    """

    def __init__(self, graph: HeteroData, fan_out: Sequence[int], seed: int = 0) -> None:
        self.fan_out = list(fan_out)
        self.generator = torch.Generator().manual_seed(seed)
        self.incoming = {
            edge_type: IncomingEdges(store.edge_index, graph[edge_type[-1]].num_nodes)
            for edge_type, store in graph.edge_items()
        }
        self.numberings = {kind: NodeNumbering(graph[kind].num_nodes) for kind in graph.node_types}

    def sample_from_nodes(self, index: NodeSamplerInput, **_: object) -> HeteroSamplerOutput:
        """The neighbourhoods of nodes, which come first and in their order; ValueError if one repeats."""
        out, (number,) = self._sample([(index.input_type, index.node)])
        if not torch.equal(number, torch.arange(len(number))):
            raise ValueError("a batch of seed nodes holds the same node more than once")
        out.metadata = (index.input_id, None)
        return out

    def sample_from_edges(
        self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> HeteroSamplerOutput:
        """The neighbourhoods of both ends of links and of their negatives: targets whose `dst_weight` is not 0."""
        source, _, target = index.input_type
        seeds = [(source, index.row), (target, index.col)]
        if neg_sampling is not None:
            seeds.append((target, draw_allowed(neg_sampling.dst_weight, len(index.row), self.generator)))
        out, numbers = self._sample(seeds)
        ends = (torch.stack(numbers), index.label) if neg_sampling is None else numbers
        out.metadata = (index.input_id, *ends, None)
        return out

    def _sample(self, seeds: list[tuple[str, Tensor]]) -> tuple[HeteroSamplerOutput, list[Tensor]]:
        """The subgraph around all `seeds` (node type, nodes [n]), and the numbers in it of each kind of seeds."""
        for numbering in self.numberings.values():
            numbering.clear()
        numbers = [self.numberings[kind].add(node) for kind, node in seeds]
        links: dict[EdgeType, list[tuple[Tensor, ...]]] = {edge_type: [] for edge_type in self.incoming}
        for fan_out in self.fan_out:
            # Taken before the hop adds to the numberings: what a hop finds is expanded in the next one.
            frontier = {kind: numbering.frontier() for kind, numbering in self.numberings.items()}
            for edge_type, incoming in self.incoming.items():
                first, node = frontier[edge_type[-1]]
                which, neighbor, edge = incoming.sample(node, fan_out, self.generator)
                links[edge_type].append((self.numberings[edge_type[0]].add(neighbor), which + first, edge))
        joined = {edge_type: [torch.cat(part) for part in zip(*hops, strict=True)] for edge_type, hops in links.items()}
        nodes = {kind: numbering.nodes() for kind, numbering in self.numberings.items()}
        parts = ({edge_type: link[part] for edge_type, link in joined.items()} for part in range(3))
        return HeteroSamplerOutput(nodes, *parts), numbers


class IncomingEdges:
    """The edges `edge_index` [2, E] (source, target) of one type, by the target that they go into."""

    def __init__(self, edge_index: Tensor, num_targets: int) -> None:
        source, target = edge_index.cpu()
        order = target.argsort(stable=True)
        largest = max(len(source), int(source.max())) if len(source) else 0
        dtype = torch.int32 if largest < torch.iinfo(torch.int32).max else torch.int64
        self.source, self.edge = source.index_select(0, order).to(dtype), order.to(dtype)
        self.start = torch.zeros(num_targets + 1, dtype=torch.int64)
        self.start[1:] = torch.bincount(target, minlength=num_targets).cumsum(0)

    def sample(self, node: Tensor, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Up to `fan_out` distinct edges into each `node` [n], uniformly; all of them if it is -1.

        Returns three [m]: which of the n nodes an edge goes into, its source node, its position in `edge_index`.
        Parallel edges count as edges of their own.
        """
        start = self.start.index_select(0, node)
        available = self.start.index_select(0, node + 1) - start
        limit = available if fan_out < 0 else fan_out
        few, many = (available <= limit).nonzero().view(-1), (available > limit).nonzero().view(-1)

        size = available.index_select(0, few)
        shift = start.index_select(0, few) - (size.cumsum(0) - size)
        which, slot = few.repeat_interleave(size), shift.repeat_interleave(size)
        slot += torch.arange(len(slot))
        if len(many):
            chosen = _draw_distinct(available.index_select(0, many), fan_out, generator) + start.index_select(0, many)
            which, slot = torch.cat([which, many.repeat(fan_out)]), torch.cat([slot, chosen.view(-1)])
        return which, self.source.index_select(0, slot).long(), self.edge.index_select(0, slot).long()


def _draw_distinct(available: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """[k, n] distinct numbers below each of `available` [n] (all > k), every set of k equally likely.

    Floyd's sampling, row-wise (J. Bentley, "A sample of brilliance", CACM 30(9), 1987).
    """
    available = available.to(torch.int32)
    draw = torch.rand(k, len(available), generator=generator, dtype=torch.float64)
    chosen: list[Tensor] = []
    for i, last in enumerate(range(-k, 0)):
        drawn = (draw[i] * (available + last + 1)).to(torch.int32)
        taken = torch.zeros_like(drawn, dtype=torch.bool)
        for earlier in chosen:
            taken |= earlier == drawn
        chosen.append(torch.where(taken, available + last, drawn))
    return torch.stack(chosen)


class NodeNumbering:
    """Numbers the nodes of one type in a batch 0, 1, ... in order of first appearance.

    Numbers are looked up in a table of all nodes that lives from batch to batch, of which only the entries that a batch
    touched are wiped: nothing is sorted.
    """

    def __init__(self, num_nodes: int) -> None:
        self._table = torch.full((num_nodes,), _UNNUMBERED, dtype=torch.int32)
        self._added: list[Tensor] = []
        self._size = self._expanded = 0

    def clear(self) -> None:
        """Starts a batch."""
        for node in self._added:
            self._table.index_fill_(0, node, _UNNUMBERED)
        self._added, self._size, self._expanded = [], 0, 0

    def add(self, node: Tensor) -> Tensor:
        """[n] the numbers of `node` [n]; a node without one gets the next."""
        position = torch.arange(self._size, self._size + len(node), dtype=torch.int32)
        # The least position wins in whatever order threads write, and a number given before is less than any.
        self._table.scatter_reduce_(0, node, position, "amin")
        first = (self._table.index_select(0, node) == position).nonzero().view(-1)
        fresh = node.index_select(0, first)
        self._table.scatter_(0, fresh, torch.arange(self._size, self._size + len(fresh), dtype=torch.int32))
        self._added.append(fresh)
        self._size += len(fresh)
        return self._table.index_select(0, node).long()

    def frontier(self) -> tuple[int, Tensor]:
        """The nodes [n] added since the last call, with the number of the first of them."""
        fresh = _joined(self._added[self._expanded :])
        self._expanded = len(self._added)
        return self._size - len(fresh), fresh

    def nodes(self) -> Tensor:
        """[size] the nodes of the batch, by number."""
        return _joined(self._added)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *parts])


def draw_allowed(allowed: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """[size] positions where `allowed` [n] is not zero, drawn uniformly and with replacement."""
    choice = allowed.cpu().nonzero().view(-1)
    drawn = (torch.rand(size, generator=generator, dtype=torch.float64) * len(choice)).long()
    return choice[drawn.clamp(max=len(choice) - 1)]  # rounding may lift a draw onto the number of choices
