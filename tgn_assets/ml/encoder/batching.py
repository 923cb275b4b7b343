"""Whether the encoder computes the whole graph at once, or in sampled batches: training and inference decide apart."""

from dataclasses import dataclass
from typing import Literal

from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.graph.loaders import InstalledSampler, installed_sampler
from tgn_assets.ml.graph.temporal_graph import GraphView
from tgn_assets.ml.schema import EVENT, USER

MEMORY_BUDGET = 6 * 2**30
"""Bytes that an estimate of the encoder's memory may reach before `auto` takes sampled batches."""
TRAINING_VECTORS, TRAINING_VECTORS_PER_LAYER = 5, 3
"""Vectors of width `dim` that a node takes while training on whole graphs: its id, the gradient of that, `RowAdam`'s
first moment and what is on the way; and for each layer an input, an aggregate and a gradient."""
INFERENCE_VECTORS, INFERENCE_VECTORS_PER_LAYER = 7, 1
"""The same for the embeddings of a whole graph: the three that training still holds, and what is on the way; the output
of each layer. Layer by layer it is three instead of what is on the way and the outputs."""
TRAINING_ID_VECTORS, INFERENCE_ID_VECTORS = 7, 5
"""Those that a user without an id does not take: the id, its gradient and its first moment; the input, of which the
narrow features are kept, and what is on the way from it."""
EDGE_BYTES = 20
"""Of an edge of one direction: its position in the sparse adjacency, and in the transpose for the gradient."""

ResolvedBatching = Literal["full", "sampled"]


@dataclass(frozen=True)
class BatchingPlan:
    """How the encoder computes its graphs, as a checkpoint and the run's metadata tell."""

    training: ResolvedBatching
    inference: ResolvedBatching
    sampler: InstalledSampler | None
    """What draws neighbours; None where everything is `full`."""


def plan_batching(config: GNNConfig, *, training: list[GraphView], inference: GraphView) -> BatchingPlan:
    """How `config` trains on the graphs `training` and embeds the nodes of the graph `inference`.

    `auto` is `full` where an estimate stays within `MEMORY_BUDGET`; the estimate for training is a little above the
    peaks measured on graphs of 0.3 to 1.1 million nodes and 1 to 6 million edges. SamplerNotInstalled if the sampler
    that `config` asks for is not there, whether it is needed or not.
    """
    sampler = installed_sampler(config.sampler)
    of_training = TRAINING_VECTORS + TRAINING_VECTORS_PER_LAYER * config.layers
    of_inference = INFERENCE_VECTORS + INFERENCE_VECTORS_PER_LAYER * config.layers
    train = _path(config, training, of_training, of_training - TRAINING_ID_VECTORS)
    infer = _path(config, [inference], of_inference, of_inference - INFERENCE_ID_VECTORS)
    return BatchingPlan(train, infer, sampler if "sampled" in (train, infer) else None)


def _path(config: GNNConfig, views: list[GraphView], vectors: int, without_id: int) -> ResolvedBatching:
    """`full` if the `vectors` of each node, float32 numbers, and the edges of all views fit the budget. A user without
    an id has the vectors `without_id`."""
    if config.batching != "auto":
        return config.batching
    users, events = (max(len(view.known[kind]) for view in views) for kind in (USER, EVENT))
    of_user = vectors if users <= config.max_user_ids else without_id
    edges = sum(2 * len(view.edge_week) for view in views)
    estimate = 4 * config.dim * (of_user * users + vectors * events) + EDGE_BYTES * edges
    return "full" if estimate <= MEMORY_BUDGET else "sampled"
