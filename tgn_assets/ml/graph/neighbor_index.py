"""Neighbourhoods of many nodes at once, in plain torch: what `TemporalNeighborSampler` is made of.

Every step is a handful of tensor operations over all nodes of a hop; the only Python loops run over hops, edge types
and the fan-out. Random memory access is what costs, so neighbours are kept as 32-bit numbers where they fit.
"""

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.typing import EdgeType

MAX_TABLE = 2**26
"""Most entries (4 bytes each) of an `InstanceTable`'s lookup table; a batch that would need more is sorted instead."""

_FREE = torch.iinfo(torch.int32).max


class NeighborIndex:
    """The edges into every node of one edge type, by node and oldest first, so that "not newer than t" is a prefix.

    `edge_index` is [2, E] (source, target), `time` [E] integers or None, `num_targets` the number of target nodes.
    """

    def __init__(self, edge_index: Tensor, time: Tensor | None, num_targets: int) -> None:
        source, target = edge_index.cpu()
        if time is None:
            self.moments = None
            order = target.argsort(stable=True)
        else:
            self.moments, rank = time.cpu().unique(return_inverse=True)
            # One ascending number per edge: a single binary search over all edges finds the prefix of any node.
            self.key, order = (target * (len(self.moments) + 1) + rank).sort(stable=True)
        largest = max(len(source), int(source.max())) if len(source) else 0
        dtype = torch.int32 if largest < _FREE else torch.int64
        self.source, self.edge = source.index_select(0, order).to(dtype), order.to(dtype)
        self.start = torch.zeros(num_targets + 1, dtype=torch.int64)
        self.start[1:] = torch.bincount(target, minlength=num_targets).cumsum(0)

    def count(self, node: Tensor, time: Tensor | None) -> Tensor:
        """[n] how many edges into each `node` [n] are not newer than `time` [n]; all of them without a time."""
        start = self.start.index_select(0, node)
        if time is None:
            return self.start.index_select(0, node + 1) - start
        if self.moments is None:
            raise ValueError("the seeds have times, but the sampler was built without `time_attr`")
        rank = torch.searchsorted(self.moments, time, right=True)
        return torch.searchsorted(self.key, node * (len(self.moments) + 1) + rank) - start

    def sample(
        self, node: Tensor, time: Tensor | None, fan_out: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Up to `fan_out` distinct edges into each `node` [n], uniformly among those not newer than its `time` [n].

        Returns three [m]: which of the n nodes an edge goes into, its source node, its position in `edge_index`.
        A `fan_out` of -1 takes them all; parallel edges count as edges of their own.
        """
        start, available = self.start.index_select(0, node), self.count(node, time)
        limit = available if fan_out < 0 else fan_out
        few, many = (available <= limit).nonzero().view(-1), (available > limit).nonzero().view(-1)

        size = available.index_select(0, few)
        shift = start.index_select(0, few) - (size.cumsum(0) - size)
        which, place = few.repeat_interleave(size), shift.repeat_interleave(size)
        place += torch.arange(len(place))
        if len(many):
            chosen = _distinct(available.index_select(0, many), fan_out, generator) + start.index_select(0, many)
            which, place = torch.cat([which, many.repeat(fan_out)]), torch.cat([place, chosen.view(-1)])
        return which, self.source.index_select(0, place).long(), self.edge.index_select(0, place).long()


def _distinct(available: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """[k, n] distinct numbers below each of `available` [n] (all > k), every set of k alike.

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


class InstanceTable:
    """Numbers the instances of one node type in a batch 0, 1, ... in order of first appearance.

    An instance is a node, or a (group, node): seeds of one group share it, seeds of different groups never do. It is
    looked up in a table that lives from batch to batch, of which only the entries a batch touched are wiped: nothing
    is sorted.
    """

    def __init__(self, num_nodes: int) -> None:
        self.num_nodes = num_nodes
        self._table = torch.empty(0, dtype=torch.int32)
        self._keys: list[Tensor] = []
        self._sorting = False

    def begin(self, groups: int | None) -> None:
        """Starts a batch of the groups 0 .. groups - 1, or (None) of one that needs no name."""
        if not self._sorting:
            for key in self._keys:
                self._table.index_fill_(0, key, _FREE)
        self._keys, self.size, self._expanded = [], 0, 0
        self._grouped, entries = groups is not None, (groups or 1) * self.num_nodes
        self._sorting = entries > MAX_TABLE
        if not self._sorting and len(self._table) < entries:
            self._table = torch.full((entries,), _FREE, dtype=torch.int32)

    def add(self, node: Tensor, group: Tensor | None) -> Tensor:
        """[n] the numbers of `node` [n] in `group` [n]; unknown ones get the next numbers."""
        key = node if group is None else group * self.num_nodes + node
        table, entry = self._compact(key) if self._sorting else (self._table, key)
        position = torch.arange(self.size, self.size + len(key), dtype=torch.int32)
        # The least position wins in whatever order threads write, and a known instance's number is less than any.
        table.scatter_reduce_(0, entry, position, "amin")
        fresh = (table.index_select(0, entry) == position).nonzero().view(-1)
        number = torch.arange(self.size, self.size + len(fresh), dtype=torch.int32)
        table.scatter_(0, entry.index_select(0, fresh), number)
        self._keys.append(key.index_select(0, fresh))
        self.size += len(fresh)
        return table.index_select(0, entry).long()

    def frontier(self) -> tuple[int, Tensor, Tensor]:
        """The instances added since the last call: the first one's number, their nodes [n] and groups [n or 0]."""
        fresh = self._keys[self._expanded :]
        self._expanded = len(self._keys)
        key = _join(fresh)
        return self.size - len(key), *self._split(key)

    def instances(self) -> tuple[Tensor, Tensor]:
        """The nodes [size] and groups [size or 0] of the batch's instances, by number."""
        return self._split(_join(self._keys))

    def _split(self, key: Tensor) -> tuple[Tensor, Tensor]:
        return (key % self.num_nodes, key // self.num_nodes) if self._grouped and len(key) else (key, key[:0])

    def _compact(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """A table of just the batch's instances and the asked-for ones, and where in it each `key` stands."""
        distinct, entry = torch.cat([*self._keys, key]).unique(return_inverse=True)
        table = torch.full((len(distinct),), _FREE, dtype=torch.int32)
        table.scatter_(0, entry[: self.size], torch.arange(self.size, dtype=torch.int32))
        return table, entry[self.size :]


def _join(keys: list[Tensor]) -> Tensor:
    return keys[0] if len(keys) == 1 else torch.cat([torch.empty(0, dtype=torch.int64), *keys])


def edge_times(graph: HeteroData, time_attr: str) -> dict[EdgeType, Tensor]:
    """{edge type: [E]} the integer attribute `time_attr` of every edge type; ValueError if one has none."""
    for edge_type, store in graph.edge_items():
        if time_attr not in store or store[time_attr].is_floating_point():
            raise ValueError(f"edges {'-'.join(edge_type)} have no integer attribute {time_attr!r}")
    return {edge_type: store[time_attr].cpu() for edge_type, store in graph.edge_items()}


def first_times(graph: HeteroData, time_attr: str) -> dict[str, Tensor]:
    """{node type: [n]} the earliest `time_attr` among a node's edges, in or out; the least integer if it has none.

    A node without edges is in the graph because it was known before the edges' window.
    """
    newest = torch.iinfo(torch.int64).max
    first = {kind: torch.full((graph[kind].num_nodes,), newest) for kind in graph.node_types}
    for (source, name, target), time in edge_times(graph, time_attr).items():
        for kind, node in zip((source, target), graph[source, name, target].edge_index.cpu(), strict=True):
            first[kind].scatter_reduce_(0, node, time.long(), "amin")
    return {kind: time.masked_fill(time == newest, torch.iinfo(torch.int64).min) for kind, time in first.items()}


class KnownNodes:
    """Draws nodes of one type: for a seed with a time, only nodes known by then.

    `first_time` [n] is the time from which on a node is known.
    """

    def __init__(self, first_time: Tensor) -> None:
        self.first_time, self.order = first_time.sort(stable=True)

    def draw(self, size: int, weight: Tensor | None, time: Tensor | None, generator: torch.Generator) -> Tensor:
        """[size] nodes, with replacement, in proportion to `weight` [n] (None: all alike), known at `time` [size].

        Raises ValueError where no node with a weight is known: a negative from the future would be a leak.
        """
        if weight is not None and len(weight) != len(self.order):
            raise ValueError(f"{len(weight)} weights of negatives for {len(self.order)} nodes")
        known = len(self.order) if time is None else torch.searchsorted(self.first_time, time, right=True)
        weight = torch.ones(len(self.order)) if weight is None else weight.cpu()[self.order]
        mass = torch.cat([torch.zeros(1, dtype=torch.float64), weight.cumsum(0, dtype=torch.float64)])
        total = mass[known].expand(size)
        if size and float(total.min()) <= 0:
            when = "" if time is None else f" at seed time {int(time[total.argmin()])}"
            raise ValueError(f"no node is known{when} that could be drawn as a negative")
        point = torch.rand(size, generator=generator, dtype=torch.float64) * total
        # Rounding may lift a point onto its total, where the next node begins: one that is not known yet.
        point = torch.minimum(point, total.nextafter(torch.zeros_like(total)))
        return self.order.index_select(0, torch.searchsorted(mass, point, right=True) - 1)
