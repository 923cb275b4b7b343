"""The graph encoder: a heterogeneous GraphSAGE over the temporal graph of users and events.

Notable choices: a node is its learnt id plus features that exist for nodes without one; every SAGEConv reads a
row-normalised, time-decayed sparse adjacency, so that a whole graph and a sampled piece of it go through the same code;
the layers' outputs are combined as in LightGCN (arXiv 2002.02126); popularity is a column of the event vector of its
own, so that the rest of the vector is free for affinity and every score is one dot product.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from tgn_assets.ml.config import GNNConfig, SamplerName
from tgn_assets.ml.graph.loaders import layer_loaders
from tgn_assets.ml.graph.temporal_graph import Adjacency, GraphView, UserRows, adjacency, mean_matrix
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER

NODES_PER_BATCH = 2**16
"""Nodes whose inputs are computed at a time where the graph is gone through in batches."""


class FeatureVectors(NamedTuple):
    """The inputs of nodes without ids, `features` [n, F + 1] @ `weight` [F + 1, dim], as these two factors: a sum over
    neighbours of the features, which are narrower, is cheaper, and only a layer's output is as large as all vectors."""

    features: Tensor  # the last column is one
    weight: Tensor  # the last row is the bias

    def index_select(self, dim: int, index: Tensor) -> "FeatureVectors":
        """Those of some nodes."""
        return self._replace(features=self.features.index_select(dim, index))


Vectors = Tensor | FeatureVectors


class GNNEncoder(nn.Module):
    """Heterogeneous GraphSAGE (arXiv 1706.02216) over user-event interactions.

    `num_nodes` is the number of learnable ids per node type, `num_features` the width of the features; the vectors
    that come out are `config.dim` + 1 wide. More than `config.max_user_ids` users have no ids.
    """

    def __init__(self, num_nodes: dict[str, int], num_features: int, config: GNNConfig) -> None:
        super().__init__()
        dim, layers = config.dim, config.layers
        # Users start without an id of their own: they are what they interacted with, until training finds more to say.
        self.ids = nn.ParameterDict({EVENT: torch.randn(num_nodes[EVENT], dim) * config.event_id_std})
        if num_nodes[USER] <= config.max_user_ids:
            self.ids[USER] = torch.zeros(num_nodes[USER], dim)
        self.features = nn.ModuleDict({kind: nn.Linear(num_features, dim) for kind in num_nodes})
        self.convs = nn.ModuleList(
            HeteroConv({edge_type: WeightedMeanSAGEConv(dim) for edge_type in (INTERACTS, REV_INTERACTS)})
            for _ in range(layers)
        )
        self.layer_weight = nn.ParameterDict({kind: torch.zeros(layers + 1) for kind in num_nodes})
        # A bias would raise all logits alike. Its gradient, rounding errors alone, would be added up in any order.
        self.popularity = nn.Linear(num_features, 1, bias=False)

    def embed(self, kind: str, position: Tensor | None, features: Tensor, id_dropout: float = 0.0) -> Vectors:
        """[n, dim] input of the nodes of type `kind` at `position` [n] (None: of all) with `features` [n, F].

        `id_dropout` is the share of nodes whose id is hidden, so that the model learns to do with the features alone:
        they are all that is known of a node that was never trained on.
        """
        if kind not in self.ids:
            linear: Any = self.features[kind]
            weight = torch.cat([linear.weight.T, linear.bias[None]])
            return FeatureVectors(nn.functional.pad(features, (0, 1), value=1.0), weight)
        # The gradient of a lookup holds the rows of a batch; that of an index would be as large as the table.
        ids = self.ids[kind] if position is None else nn.functional.embedding(position, self.ids[kind], sparse=True)
        if id_dropout:
            ids = ids * (torch.rand(len(ids), 1, device=ids.device) >= id_dropout)
        return self.features[kind](features) + ids

    def forward(
        self, x_dict: dict[str, Vectors], adjacency: Adjacency, event_features: Tensor, rows: UserRows | None = None
    ) -> dict[str, Tensor]:
        """{type: [n, dim + 1]} from inputs {type: [n, dim]} and the `graph.adjacency` of their edges.

        With `rows` only their m users get a vector, in their order: the last layer, and what training must keep of it,
        is left out for the others. The dot product of a user's and an event's vector is the logit of their link; the
        last column of an event's vector is its popularity, computed from `event_features` [n, F], and a user's is one.
        """
        outputs, result = self._layers(x_dict, adjacency, rows), {}
        for kind, weight in self.layer_weight.items():
            mixed = _mixed(weight, (vectors_of(output.pop(kind)) for output in outputs))
            column = torch.ones_like(mixed[:, :1]) if kind == USER else self.popularity(event_features)
            result[kind] = torch.cat([mixed, column], dim=1)
        return result

    def _layers(
        self, x_dict: dict[str, Vectors], adjacency: Adjacency, rows: UserRows | None
    ) -> list[dict[str, Vectors]]:
        """The inputs, and the outputs of each layer: of all nodes, or of all events and the users `rows`.

        The vectors of `rows` are computed beside those of everyone that the next layer's events need: a selection of
        these would have a gradient as large as all of them.
        """
        outputs, convs = [dict(x_dict)], list[Any](self.convs)
        if rows is None:
            for conv in convs:
                outputs.append(conv(outputs[-1], adjacency))
            return outputs
        everyone, outputs = x_dict[USER], [{**x_dict, USER: x_dict[USER].index_select(0, rows.users)}]
        for number, conv in enumerate(convs, 1):
            x = outputs[-1]
            ends = {INTERACTS: (everyone, x[EVENT]), REV_INTERACTS: (x[EVENT], x[USER])}
            outputs.append(conv(ends, {**adjacency, REV_INTERACTS: rows.matrices}))
            if number < len(convs):
                everyone = conv.convs[REV_INTERACTS]((x[EVENT], everyone), adjacency[REV_INTERACTS])
        return outputs

    def full_pass(self, view: GraphView, id_dropout: float = 0.0, rows: UserRows | None = None) -> dict[str, Tensor]:
        """{type: [n, dim + 1]} of every node, or of all events and `rows.users`, from the whole graph at once."""
        x_dict = {kind: self.embed(kind, None, x, id_dropout) for kind, x in view.features.items()}
        return self(x_dict, view.adjacency, view.features[EVENT], rows)

    def sampled_pass(self, batch: HeteroData, view: GraphView, id_dropout: float = 0.0) -> dict[str, Tensor]:
        """{type: [n, dim + 1]} of the nodes of a mini-batch that a PyG loader drew from `view.data`."""
        features = {kind: view.features[kind][batch[kind].n_id] for kind in (USER, EVENT)}
        x_dict = {kind: self.embed(kind, batch[kind].n_id, x, id_dropout) for kind, x in features.items()}
        return self(x_dict, adjacency(batch), features[EVENT])

    @torch.no_grad()
    def inference(
        self, view: GraphView, *, batching: Literal["full", "sampled"] = "full", sampler: SamplerName = "auto"
    ) -> dict[str, Tensor]:
        """{type: [n, dim + 1]} of every node, each layer computed once for all nodes.

        `full` computes the whole graph at once. `sampled` computes batches of nodes, each with all of its neighbours
        (`graph.loaders.layer_loaders`): both agree to about 1e-6 of a vector's size. It holds one batch on the
        encoder's device and, on the host, the result and the vectors before and after one layer.
        """
        self.eval()
        return self.full_pass(view) if batching == "full" else self._layer_by_layer(view.to("cpu"), sampler)

    def _layer_by_layer(self, view: GraphView, sampler: SamplerName) -> dict[str, Tensor]:
        device, loaders = self.popularity.weight.device, layer_loaders(view.data, sampler=sampler)
        vectors = {}
        for kind, x in view.features.items():
            batches = torch.arange(len(x)).split(NODES_PER_BATCH)
            inputs = (vectors_of(self.embed(kind, at.to(device), x[at].to(device))) for at in batches)
            vectors[kind] = torch.cat([part.cpu() for part in inputs])
        shares = {kind: weight.softmax(0).tolist() for kind, weight in self.layer_weight.items()}
        result = {kind: nn.functional.pad(x * shares[kind][0], (0, 1), value=1.0) for kind, x in vectors.items()}
        for number, layer in enumerate(self.convs, start=1):
            convs: Any = layer.convs
            before, vectors = vectors, {kind: torch.empty_like(x) for kind, x in vectors.items()}
            for edge_type in (INTERACTS, REV_INTERACTS):
                source, _, target = edge_type
                for batch in loaders[target]:
                    nodes, matrices = batch[target].n_id, mean_matrix(batch, edge_type)
                    ends = before[source][batch[source].n_id], before[target][nodes]
                    on_device = ([x.to(device) for x in part] for part in (ends, matrices))
                    vectors[target][nodes] = convs[edge_type](*on_device).cpu()
            for kind, x in vectors.items():
                result[kind][:, :-1].add_(x, alpha=shares[kind][number])
        result[EVENT][:, -1:] = self.popularity(view.features[EVENT].to(device)).cpu()
        return result


class WeightedMeanSAGEConv(SAGEConv):
    """A SAGEConv over the weighted mean of the neighbours that starts as LightGCN (arXiv 2002.02126) does: a node is
    that mean, in the same space as its neighbours."""

    def __init__(self, dim: int) -> None:
        super().__init__((dim, dim), dim, aggr="sum")  # rows add up to one, so that the sum is a weighted mean
        self._remove_generated_file()
        nn.init.eye_(self.lin_l.weight)
        nn.init.zeros_(self.lin_l.bias)
        nn.init.zeros_(self.lin_r.weight)

    def _remove_generated_file(self) -> None:
        """Removes the module that PyG writes to the temporary folder, once in each process, and imports."""
        generated = sys.modules.get(f"{self.__module__}_{type(self).__name__}_propagate")
        if generated and generated.__file__:
            Path(generated.__file__).unlink(missing_ok=True)

    def forward(self, x: tuple[Vectors, Vectors], adjacency: tuple[Tensor, Tensor]) -> Tensor:
        """[n_dst, dim] from the vectors of sources and targets, and an entry of `graph.adjacency`.

        The mean and the layer's weight are both linear: the one that leaves less to be kept comes first.
        """
        (source, of_mean), (target, of_own) = _times(x[0], self.lin_l.weight.T), _times(x[1], self.lin_r.weight.T)
        own = torch.addmm(self.lin_l.bias, target, of_own)
        targets, sources = adjacency[0].shape
        if targets > sources and not isinstance(x[0], FeatureVectors):
            return _SparseProduct.apply(*adjacency, source @ of_mean, own)
        return own.addmm_(_SparseProduct.apply(*adjacency, source, None), of_mean)


def vectors_of(x: Vectors) -> Tensor:
    """[n, dim] `x`, multiplied out."""
    return x.features @ x.weight if isinstance(x, FeatureVectors) else x


def _times(x: Vectors, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors of `x` times `weight`."""
    return (x.features, x.weight @ weight) if isinstance(x, FeatureVectors) else (x, weight)


def _mixed(weight: Tensor, layers: Iterator[Tensor]) -> Tensor:
    """The sum of `layers`, each [n, dim], with the shares softmax(`weight`); each is let go once it is added."""
    first, *others = weight.softmax(0)
    x = next(layers)
    # A share is a row: its gradient is then added up by column, in one order whatever the number of threads.
    mixed = first.expand(x.shape[1]) * x
    for share in others:
        x = next(layers)
        mixed = mixed.addcmul_(share.expand(x.shape[1]), x)
    return mixed


class _SparseProduct(torch.autograd.Function):
    """A sparse matrix, which is no parameter, times dense vectors; the gradient is a product with its transpose.

    With `total` the product is added to that, in place. Either way no memory is cleared or copied, as `@` would.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, vectors: Tensor, total: Tensor | None) -> Tensor:
        ctx.transpose, ctx.adds = transpose, total is not None
        if total is None:
            return _product(matrix, vectors)
        ctx.mark_dirty(total)
        return total.addmm_(matrix, vectors)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[None, None, Tensor, Tensor | None]:
        return None, None, _product(ctx.transpose, grad[0]), grad[0] if ctx.adds else None


def _product(matrix: Tensor, vectors: Tensor) -> Tensor:
    """`matrix` @ `vectors`."""
    return vectors.new_empty(matrix.shape[0], vectors.shape[1]).addmm_(matrix, vectors, beta=0)
