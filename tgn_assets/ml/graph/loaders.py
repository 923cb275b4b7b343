"""Batches of supervised links, or of nodes, with their neighbourhoods: PyG loaders on whichever sampler there is.

A batch is an ordinary `HeteroData`: per node type `n_id`, per edge type `e_id`, `edge_index` and its attributes.

Every edge of the graph may appear in a batch. The caller has cut the graph at one point in time (`WindowGraph.view`),
so that no link is among the edges that its own prediction sees.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch_geometric.typing as pyg
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader, LinkNeighborLoader, NeighborLoader, NodeLoader
from torch_geometric.sampler import BaseSampler, NegativeSampling, NeighborSampler

from tgn_assets.ml.config import SamplerName
from tgn_assets.ml.graph.neighbor_sampler import NativeNeighborSampler
from tgn_assets.ml.linalg.sparse import blocks
from tgn_assets.ml.schema import EVENT, INTERACTS, USER

InstalledSampler = Literal["native", "torch-sparse", "pyg-lib"]
EDGES_PER_BATCH = 2**18
"""Edges (and nodes) in a batch of `layer_loaders`: 64 MiB of neighbours' vectors at a width of 64."""


class SamplerNotInstalled(ImportError):
    """The neighbour sampler that was asked for is not there; the message names the extra to install."""


def link_loader(
    graph: HeteroData,
    links: Tensor,
    *,
    fan_out: Sequence[int],
    batch_size: int,
    negative_weight: Tensor | None = None,
    sampler: SamplerName = "auto",
    shuffle: bool = False,
    seed: int = 0,
) -> LinkLoader:
    """Batches of `links` [2, L] (user and event positions) with the neighbourhoods of their ends.

    `batch[INTERACTS].input_id` [B] are positions in `links`. Without `negative_weight` the links are
    `batch[INTERACTS].edge_label_index` [2, B], in positions of the batch. With it, each link gets an event as negative,
    drawn in proportion to `negative_weight` [E]; positions are then in `batch[USER].src_index`,
    `batch[EVENT].dst_pos_index` and `batch[EVENT].dst_neg_index`, [B] each.

    `seed` fixes the order and all that the native sampler draws; the compiled ones draw from torch's global generator.
    Iterate one loader again for the next epoch's draws. SamplerNotInstalled if `sampler` is not there.
    """
    negatives = None if negative_weight is None else NegativeSampling("triplet", amount=1, dst_weight=negative_weight)
    options: dict[str, Any] = {
        "edge_label_index": (INTERACTS, links),
        "neg_sampling": negatives,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "generator": torch.Generator().manual_seed(seed),
    }
    chosen = _sampler(graph, fan_out, sampler, seed)
    if isinstance(chosen, NeighborSampler):
        return LinkNeighborLoader(graph, list(fan_out), neighbor_sampler=chosen, **options)
    return LinkLoader(graph, chosen, **options)


def layer_loaders(
    graph: HeteroData, *, sampler: SamplerName = "auto", edges_per_batch: int = EDGES_PER_BATCH
) -> dict[str, NodeLoader]:
    """{node type: batches of its nodes, in order, each node in one of them and with all edges into it}.

    What one layer needs to know of the graph. `batch[kind].n_id` are then the nodes [B] of the batch, and the other
    type's `n_id` their neighbours. A batch has about `edges_per_batch` edges and nodes, or those of a single node that
    has more. SamplerNotInstalled if `sampler` is not there.
    """
    chosen, loaders = _sampler(graph, [-1], sampler, seed=0), {}
    incoming = {edge_type[-1]: store.edge_index[1] for edge_type, store in graph.edge_items()}
    for kind in (USER, EVENT):
        cost = 1 + torch.bincount(incoming[kind], minlength=graph[kind].num_nodes)
        options: dict[str, Any] = {
            "batch_sampler": [range(low, high) for low, high in blocks(cost.numpy(), edges_per_batch)],
            "generator": torch.Generator(),  # a DataLoader without one would draw from torch's global generator
        }
        if isinstance(chosen, NeighborSampler):
            loaders[kind] = NeighborLoader(graph, [-1], kind, neighbor_sampler=chosen, **options)
        else:
            loaders[kind] = NodeLoader(graph, chosen, kind, **options)
    return loaders


def installed_sampler(name: SamplerName) -> InstalledSampler:
    """The sampler that `name` stands for: "auto" is a compiled one if there is one, or else the native one.

    SamplerNotInstalled if it is not there. Where both compiled ones are installed PyG uses pyg-lib alone.
    """
    compiled: InstalledSampler | None = (
        "pyg-lib" if pyg.WITH_PYG_LIB else "torch-sparse" if pyg.WITH_TORCH_SPARSE else None
    )
    if name == "auto":
        return compiled or "native"
    if name == "torch-sparse" and compiled == "pyg-lib":
        raise SamplerNotInstalled(
            "the sampler 'torch-sparse' cannot be had while pyg-lib is installed, which PyG then uses instead; "
            "uninstall pyg-lib, or set TGN_SAMPLER to pyg-lib, native or auto"
        )
    if name not in ("native", compiled):
        raise SamplerNotInstalled(
            f"the sampler {name!r} is not installed; docs/deployment.md says how to install it, or set TGN_SAMPLER to "
            "native or auto"
        )
    return name


def _sampler(graph: HeteroData, fan_out: Sequence[int], name: SamplerName, seed: int) -> BaseSampler:
    if installed_sampler(name) == "native":
        return NativeNeighborSampler(graph, fan_out, seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using 'NeighborSampler' without a 'pyg-lib' installation")
        return NeighborSampler(graph, list(fan_out))
