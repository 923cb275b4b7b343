"""Mini-batches of supervised links, or of nodes, with their neighbourhoods: PyG loaders on whichever sampler is there.

A batch is an ordinary `HeteroData`: per node type `n_id` and its attributes, per edge type `e_id`, `edge_index` and its
attributes. `batch[INTERACTS].input_id` [B] are positions in the links given. `batch[INTERACTS].edge_label_index` and
`.edge_label` hold the links in batch positions; for triplet negatives `batch[USER].src_index` [B] does, with
`batch[EVENT].dst_pos_index` [B] and `.dst_neg_index` ([B], or [B, amount] for more than one).

Time is respected in one of two ways. *Seed times*: each seed sees the edges up to its own. *A cut*: `message_graph`
drops all newer edges, and the seeds of a loader share what is left. The compiled samplers are always given a cut:
torch-sparse cannot sample by time, and pyg-lib does it with a subgraph of its own for every single seed and with
negatives from any time. So they serve seeds of one time (the loader makes the cut), and ours serves those of several.
(torch-sparse 0.6.18 is also uneven: it draws a node's last neighbours too rarely, rusty1s/pytorch_sparse issue 385.)
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch_geometric.typing as pyg
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader, LinkNeighborLoader, NeighborLoader, NodeLoader
from torch_geometric.sampler import NegativeSampling, NeighborSampler

from tgn_assets.ml.graph.message_graph import message_graph, without_links
from tgn_assets.ml.graph.neighbor_index import first_times
from tgn_assets.ml.graph.temporal_sampler import TemporalNeighborSampler
from tgn_assets.ml.schema import EVENT, INTERACTS, USER

__all__ = ["TemporalNeighborSampler", "first_times", "fits_in_memory", "link_loader", "message_graph", "node_loader"]

Backend = Literal["auto", "pyg-lib", "torch-sparse", "native"]


def link_loader(
    graph: HeteroData,
    links: Tensor,
    *,
    fan_out: Sequence[int],
    batch_size: int,
    neg_sampling: NegativeSampling | None = None,
    seed_time: Tensor | None = None,
    time_attr: str = "edge_time",
    exclude_links: bool = False,
    backend: Backend = "auto",
    shuffle: bool = False,
    seed: int = 0,
) -> LinkLoader:
    """Batches of `links` [2, L] (user and event positions) with the neighbourhoods of their ends.

    With `seed_time` [L], no edge of a link's neighbourhood has a newer `time_attr`; pass the time before for strictly
    older ones. Its negatives are then events known by that time. Without it every edge and event of `graph` may appear:
    the caller has cut the graph (`message_graph`) and gives events not known yet a `dst_weight` of 0 (`first_times`).

    `exclude_links` is needed wherever a link may be an edge that it sees itself: it leaves the supervised pairs of a
    batch, negatives included, out of its message edges, in both directions; with `seed_time` only edges of that very
    time go. Where all edges are older than the links it would only hide that a user comes back to an event.

    `seed` fixes the order and all that our sampler draws; the compiled ones draw from torch's global generator. Iterate
    one loader again for the next epoch's draws. ValueError if `backend` is not installed or cannot do what is asked;
    "auto" takes the first that can.
    """
    setup = _setup(graph, fan_out, seed_time, time_attr, backend, seed)
    if setup.cut is not None and neg_sampling is not None:
        neg_sampling = _known_by(setup.cut, neg_sampling, graph, time_attr)
    transform = partial(
        without_links,
        graph=setup.graph,
        edge_ids=setup.sampler.edge_permutation or {},
        time_attr=None if seed_time is None else time_attr,
        time=setup.cut,
    )
    options: dict[str, Any] = {
        "edge_label_index": (INTERACTS, links),
        "neg_sampling": neg_sampling,
        "transform_sampler_output": transform if exclude_links else None,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "generator": torch.Generator().manual_seed(seed),
    }
    if isinstance(setup.sampler, NeighborSampler):
        return LinkNeighborLoader(setup.graph, list(fan_out), neighbor_sampler=setup.sampler, **options)
    return LinkLoader(setup.graph, setup.sampler, edge_label_time=seed_time, **options)


def node_loader(
    graph: HeteroData,
    kind: str,
    nodes: Tensor | None = None,
    *,
    fan_out: Sequence[int],
    batch_size: int,
    seed_time: Tensor | None = None,
    time_attr: str = "edge_time",
    backend: Backend = "auto",
    seed: int = 0,
) -> NodeLoader:
    """Batches of `nodes` [n] of type `kind` (None: all), in their order, with their neighbourhoods.

    The first `batch[kind].batch_size` nodes of a batch are its seeds; in one batch a node may repeat only at another
    time. Time, backends, seed and errors are those of `link_loader`.
    """
    setup = _setup(graph, fan_out, seed_time, time_attr, backend, seed)
    if isinstance(setup.sampler, NeighborSampler):
        return NeighborLoader(
            setup.graph, list(fan_out), (kind, nodes), neighbor_sampler=setup.sampler, batch_size=batch_size
        )
    return NodeLoader(setup.graph, setup.sampler, (kind, nodes), input_time=seed_time, batch_size=batch_size)


def fits_in_memory(nodes: int, edges: int, dim: int, layers: int, weeks: int, budget_bytes: int = 6 * 2**30) -> bool:
    """Whether training the encoder on whole graphs, `weeks` of them, stays within `budget_bytes`, by an estimate.

    In float32 a node takes three vectors of `dim` per layer (input, aggregate, a gradient) and six more (id, its
    gradient, Adam's two moments, what is on the way). An edge of one direction takes 20 bytes in each week's graph: its
    place in the sparse adjacency and in the transpose for the backward pass. Set a little above the
    peaks of `GNNEncoder` on graphs of 0.3 and 0.6 million nodes and 1 to 6 million edges.
    """
    return 4 * dim * nodes * (3 * layers + 6) + 20 * edges * weeks <= budget_bytes


class _Setup(NamedTuple):
    """A sampler, the graph it reads, and the time that graph was cut at in place of sampling by time."""

    graph: HeteroData
    sampler: TemporalNeighborSampler | NeighborSampler
    cut: int | None


def _setup(
    graph: HeteroData, fan_out: Sequence[int], seed_time: Tensor | None, time_attr: str, backend: Backend, seed: int
) -> _Setup:
    # Where both are installed PyG itself prefers pyg-lib, so torch-sparse cannot be had.
    compiled = "pyg-lib" if pyg.WITH_PYG_LIB else "torch-sparse" if pyg.WITH_TORCH_SPARSE else None
    times = [] if seed_time is None else seed_time.unique().tolist()
    if backend not in ("auto", "native", compiled):
        raise ValueError(f"sampling backend {backend!r} is not at hand; installed: {compiled or 'no compiled one'}")
    if backend not in ("auto", "native") and len(times) > 1:
        raise ValueError(f"{backend} samples a graph cut at one time, not seeds of {len(times)} times; use 'native'")
    if backend == "native" or compiled is None or len(times) > 1:
        return _Setup(graph, TemporalNeighborSampler(graph, fan_out, time_attr if times else None, seed), None)
    cut = times[0] if times else None
    graph = graph if cut is None else message_graph(graph, cut + 1, time_attr)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using 'NeighborSampler' without a 'pyg-lib' installation")
        return _Setup(graph, NeighborSampler(graph, list(fan_out)), cut)


def _known_by(time: int, neg_sampling: NegativeSampling, graph: HeteroData, time_attr: str) -> NegativeSampling:
    """`neg_sampling` among the nodes that `graph` knows by `time`."""
    first = first_times(graph, time_attr)
    weights = {USER: neg_sampling.src_weight, EVENT: neg_sampling.dst_weight}
    known = {
        kind: (first[kind] <= time).float() * (1.0 if weight is None else weight) for kind, weight in weights.items()
    }
    return NegativeSampling(neg_sampling.mode, neg_sampling.amount, known[USER], known[EVENT])
