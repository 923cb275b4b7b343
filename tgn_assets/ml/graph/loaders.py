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
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.sampler import BaseSampler, NegativeSampling, NeighborSampler

from tgn_assets.ml.config import GNNConfig, SamplerName
from tgn_assets.ml.graph.neighbor_sampler import NativeNeighborSampler
from tgn_assets.ml.linalg.sparse import split_by_cost
from tgn_assets.ml.safe_text import SafeError
from tgn_assets.ml.schema import EVENT, INTERACTS, USER

InstalledSampler = Literal["native", "torch-sparse", "pyg-lib"]
EDGES_PER_BATCH = 2**18
"""Edges (and nodes) in a batch of `layer_loaders`: 64 MiB of neighbours' vectors at a width of 64."""


class SamplerNotInstalled(SafeError, ImportError):
    """The neighbour sampler that was asked for is not there; the message names the extra to install."""


def link_loader(
    graph: HeteroData, links: Tensor, config: GNNConfig, *, may_be_negative: Tensor | None = None, shuffle: bool = False
) -> LinkLoader:
    """Batches of `links` [2, L] (user and event positions) with the neighbourhoods of their ends.

    `batch[INTERACTS].input_id` [B] are positions in `links`. Without `may_be_negative` the links are
    `batch[INTERACTS].edge_label_index` [2, B], in positions of the batch. With it, each link gets a negative, an event
    drawn uniformly among those where `may_be_negative` [E] is True; positions are then in `batch[USER].src_index`,
    `batch[EVENT].dst_pos_index` and `batch[EVENT].dst_neg_index`, [B] each.

    `config.seed` fixes the order and all that the native sampler draws; the compiled ones draw from torch's global
    generator. Iterate one loader again for the next epoch's draws. SamplerNotInstalled if the sampler is not there.
    """
    weight = None if may_be_negative is None else may_be_negative.float()
    options: dict[str, Any] = {
        "edge_label_index": (INTERACTS, links),
        "neg_sampling": None if weight is None else NegativeSampling("triplet", amount=1, dst_weight=weight),
        "batch_size": config.batch_size,
        "shuffle": shuffle,
        "generator": torch.Generator().manual_seed(config.seed),
    }
    return LinkLoader(graph, _sampler(graph, config.fan_out, config.sampler, config.seed), **options)


def layer_loaders(
    graph: HeteroData, *, sampler: SamplerName = "auto", edges_per_batch: int = EDGES_PER_BATCH
) -> dict[str, NodeLoader]:
    """{node type: batches of its nodes, in order, each node in one of them and with all edges into it}.

    One layer needs no more of the graph. `batch[kind].n_id` are the nodes [B] of the batch, and the other type's `n_id`
    their neighbours. A batch has about `edges_per_batch` edges and nodes, or those of a single node that has more.
    SamplerNotInstalled if `sampler` is not there.
    """
    chosen, loaders = _sampler(graph, [-1], sampler, seed=0), {}
    incoming = {edge_type[-1]: store.edge_index[1] for edge_type, store in graph.edge_items()}
    for kind in (USER, EVENT):
        cost = 1 + torch.bincount(incoming[kind], minlength=graph[kind].num_nodes)
        options: dict[str, Any] = {
            "batch_sampler": [range(low, high) for low, high in split_by_cost(cost.numpy(), edges_per_batch)],
            "generator": torch.Generator(),  # a DataLoader without one would draw from torch's global generator
        }
        loaders[kind] = NodeLoader(graph, chosen, kind, **options)
    return loaders


def installed_sampler(name: SamplerName) -> InstalledSampler:
    """The sampler that `name` stands for: "auto" is a compiled one if there is one, or else the native one.

    SamplerNotInstalled if it is not there. Where both compiled ones are installed PyG uses pyg-lib alone.
    """
    compiled: InstalledSampler = (
        "pyg-lib" if pyg.WITH_PYG_LIB else "torch-sparse" if pyg.WITH_TORCH_SPARSE else "native"
    )
    if name == "auto":
        return compiled
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
