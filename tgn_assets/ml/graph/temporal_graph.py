"""The union of weekly snapshots as one temporal graph, and what of it may be seen before a given week."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgn_assets.ml.config import NodeFeatureConfig
from tgn_assets.ml.graph.snapshots import NODE_FEATURES, Snapshot
from tgn_assets.ml.linalg.csr import with_transpose
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER
from tgn_assets.ml.weeks import week_number

EdgeType = tuple[str, str, str]
Adjacency = dict[EdgeType, tuple[Tensor, Tensor]]
DEFAULT_FEATURES = NodeFeatureConfig()


@dataclass(frozen=True)
class GraphView:
    """The graph as it was known at the close of week `week`; positions are those of the whole `WindowGraph`."""

    week: int
    edge_index: Tensor  # [2, L] user and event of the edges, of weeks <= `week`; a pair has one for each week
    edge_week: Tensor  # [L]
    edge_weight: Tensor  # [L] ln(1 + count), halved every half-life
    features: dict[str, Tensor]  # {type: [n, F]}; zero for a node not seen by then
    known: dict[str, Tensor]  # {type: [n] bool}

    @property
    def data(self) -> HeteroData:
        """The graph in PyG's form, with edges of both directions; built anew each time: it is twice as large."""
        data = HeteroData()
        for kind, known in self.known.items():
            data[kind].num_nodes = len(known)
        for edge_type, index in ((INTERACTS, self.edge_index), (REV_INTERACTS, self.edge_index.flip(0))):
            data[edge_type].edge_index, data[edge_type].edge_weight = index, self.edge_weight
        return data

    @cached_property
    def adjacency(self) -> Adjacency:
        """`adjacency` of the whole graph."""
        return adjacency(self.data)

    def to(self, device: torch.device | str) -> "GraphView":
        """A copy on `device`."""
        index, week, weight = (x.to(device) for x in (self.edge_index, self.edge_week, self.edge_weight))
        features, known = ({kind: x.to(device) for kind, x in part.items()} for part in (self.features, self.known))
        return GraphView(self.week, index, week, weight, features, known)


class WindowGraph:
    """Snapshots of consecutive weeks joined in the node positions of the newest one.

    Nodes that only an earlier snapshot knows were erased from the log since it was made; they are left out.
    """

    def __init__(
        self, snapshots: Mapping[str, Snapshot], half_life: float, features: NodeFeatureConfig = DEFAULT_FEATURES
    ) -> None:
        self.half_life, self.features = half_life, features
        self.snapshots = {week_number(week): snapshot for week, snapshot in sorted(snapshots.items())}
        newest = self.snapshots[max(self.snapshots)]
        self.node_idx: dict[str, Tensor] = {kind: newest.data[kind].node_idx for kind in (USER, EVENT)}
        parts = [(*self._links(snapshot), week) for week, snapshot in self.snapshots.items()]
        self.edge_index = torch.cat([index for index, _, _ in parts], dim=1)
        self.edge_count = torch.cat([count for _, count, _ in parts])
        self.edge_week = torch.cat([torch.full_like(count, week, dtype=torch.int64) for _, count, week in parts])

    @property
    def num_features(self) -> int:
        """The width F of a node's features."""
        return len(NODE_FEATURES) + len(self.features.recent_half_lives)

    def view(self, week: int, window: int) -> GraphView:
        """What was known at the close of `week`, with the edges of the `window` weeks that end with it."""
        seen = self._edges(week - window + 1, week)
        edge_index, edge_week, count = self.edge_index[:, seen], self.edge_week[seen], self.edge_count[seen]
        age = (week - edge_week).float()
        features, known = {}, {}
        for kind, node in zip((USER, EVENT), edge_index, strict=True):
            features[kind], known[kind] = self._features(kind, week, node, count, age)
        weight = torch.log1p(count) * 0.5 ** (age / self.half_life)
        return GraphView(week, edge_index, edge_week, weight, features, known)

    def links(self, week: int, view: GraphView) -> tuple[Tensor, Tensor]:
        """([2, L] user-event links of `week` between nodes that `view` knows, [L] 1 / links of that user)."""
        links = self.edge_index[:, self._edges(week, week)]
        links = links[:, view.known[USER][links[0]] & view.known[EVENT][links[1]]]
        return links, 1.0 / torch.bincount(links[0], minlength=1)[links[0]]

    def _edges(self, first: int, last: int) -> slice:
        """The range of the edges of the weeks `first` to `last`: edges are sorted by week."""
        return slice(*torch.searchsorted(self.edge_week, torch.tensor([first, last + 1])).tolist())

    def _links(self, snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        """([2, L] positions of user and event, [L] counts) of the week's edges between nodes that are still there."""
        edges = snapshot.data[INTERACTS]
        users, events = (
            self._position(snapshot, kind)[index] for kind, index in zip((USER, EVENT), edges.edge_index, strict=True)
        )
        there = (users >= 0) & (events >= 0)
        return torch.stack([users[there], events[there]]), edges.edge_count[there]

    def _position(self, snapshot: Snapshot, kind: str) -> Tensor:
        """[n] position of each node of `snapshot`; -1 where the newest snapshot does not have it."""
        node_idx, newest = snapshot.data[kind].node_idx, self.node_idx[kind]
        if not len(newest):
            return torch.full_like(node_idx, -1)
        position = torch.searchsorted(newest, node_idx).clamp(max=len(newest) - 1)
        return torch.where(newest[position] == node_idx, position, -1)

    def _features(self, kind: str, week: int, node: Tensor, count: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        size = len(self.node_idx[kind])
        features, known = torch.zeros(size, self.num_features), torch.zeros(size, dtype=torch.bool)
        if week not in self.snapshots:
            return features, known
        stored = self.snapshots[week].data[kind]
        position = self._position(self.snapshots[week], kind)
        there = position >= 0
        known[position[there]] = True
        features[position[there], : len(NODE_FEATURES)] = stored.x[there]
        for column, half_life in enumerate(self.features.recent_half_lives, start=len(NODE_FEATURES)):
            recent = torch.zeros(size).index_add_(0, node, count * 0.5 ** (age / half_life))
            features[:, column] = torch.log1p(recent)
        return features * self.features.scale, known


def adjacency(data: HeteroData) -> Adjacency:
    """{edge type: its `mean_matrix` and the transpose of that}."""
    return {edge_type: mean_matrix(data, edge_type) for edge_type in (INTERACTS, REV_INTERACTS)}


def mean_matrix(data: HeteroData, edge_type: EdgeType) -> tuple[Tensor, Tensor]:
    """(CSR [n_dst, n_src] whose rows are the edge weights, normalised to sum to one; its transpose).

    The product with it takes the weighted mean of the neighbours; a node without any gets zero. The gradient of the
    product needs the transpose, which torch would otherwise build in each epoch, for ten times the cost.
    """
    (source, _, target), edges = edge_type, data[edge_type]
    shape = (data[target].num_nodes, data[source].num_nodes)
    src, dst = edges.edge_index
    total = torch.zeros(shape[0], device=src.device).index_add_(0, dst, edges.edge_weight)
    return with_transpose(dst, src, edges.edge_weight / total[dst], shape)


class UserRows(NamedTuple):
    """Some users [m], and their rows of the matrix by which `adjacency` leads to users, with the transpose of these."""

    users: Tensor
    matrices: tuple[Tensor, Tensor]


def user_rows(adjacency: Adjacency, users: Tensor) -> UserRows:
    """The rows of `users` [m]."""
    matrix, _ = adjacency[REV_INTERACTS]
    start, column, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    first, end = start[users], start[users + 1]
    size = end - first
    row = torch.arange(len(users), device=users.device).repeat_interleave(size)
    at = torch.arange(len(row), device=users.device) + (end - size.cumsum(0)).repeat_interleave(size)
    return UserRows(users, with_transpose(row, column[at], values[at], (len(users), matrix.shape[1])))
