"""What a user may turn when training: the launchpad shows these fields with their descriptions."""

from typing import Literal

from pydantic import BaseModel, Field

Batching = Literal["auto", "full", "sampled"]
SamplerName = Literal["auto", "native", "torch-sparse", "pyg-lib"]


class NodeFeatureConfig(BaseModel, frozen=True):
    """The node features that the encoder reads beside its learnt ids."""

    recent_half_lives: list[float] = Field(
        default=[0.3, 1.0, 4.0],
        description="Half-lives, in weeks, of the decayed interaction counts that are part of a node's features.",
    )
    scale: float = Field(
        default=0.1, gt=0, description="Factor that brings the ln(1 + n) features to the size of a fresh id embedding."
    )


class SoftmaxLossConfig(BaseModel, frozen=True):
    """The encoder's loss: exact up to a number of logits a week, beyond it an estimate from drawn users and events."""

    max_logits: int = Field(
        default=2**25, ge=1, description="Logits (users x events) of a week up to which it is exact."
    )
    drawn_users: int = Field(default=2**15, ge=1, description="Beyond that: users drawn in each epoch of a week.")
    drawn_events: int = Field(default=2**11, ge=1, description="Beyond that: events drawn for each block of users.")
    users_per_draw: int = Field(default=2**9, ge=1, description="Beyond that: users of a block, who share draws.")


class LinearLinkConfig(BaseModel, frozen=True):
    """The linear link model: two ridge regressions between events, in closed form."""

    rank: int = Field(default=64, ge=1, le=1024, description="Width of the link vectors of each regression.")
    next_week_ridge: float = Field(default=60.0, gt=0, description="L2 penalty of the regression on the week after.")
    co_occurrence_ridge: float = Field(default=30.0, gt=0, description="L2 penalty of the co-occurrence one.")
    half_life: float = Field(
        default=8.0, gt=0, description="Weeks after which an edge's weight in the next-week regression has halved."
    )
    max_events: int = Field(
        default=2048, ge=1, description="Events with link vectors, the most popular ones; costs grow with the cube."
    )
    popularity_half_life: float = Field(
        default=4.0, gt=0, description="Weeks after which an interaction counts half when those events are chosen."
    )
    max_rows: int = Field(default=50_000, ge=1, description="Most rows (a user in a week) that are fitted to.")
    max_rows_per_week: int = Field(default=4096, ge=1, description="Most of them from one week.")
    max_weeks: int = Field(default=104, ge=1, description="Newest weeks that the next-week regression is fitted to.")
    max_neighbours: int = Field(default=200, ge=1, description="Heaviest edges of a user that are kept.")


class GNNConfig(BaseModel, frozen=True):
    """The heterogeneous GraphSAGE encoder, and the linear link model beside it."""

    window: int = Field(default=8, ge=1, le=104, description="Weeks in the training window: message graph and links.")
    replay: int = Field(
        default=12,
        ge=1,
        le=104,
        description="Past weeks that a cold start walks through, one after the other, as if it had run then.",
    )
    dim: int = Field(default=64, ge=4, le=1024, description="Width of an embedding.")
    layers: int = Field(default=2, ge=1, le=4, description="SAGEConv layers: how many hops a node sees.")
    epochs: int = Field(default=20, ge=1, le=500, description="Most epochs over the window on a cold start.")
    warm_epochs: int = Field(default=2, ge=1, le=500, description="Most epochs when last week's model is at hand.")
    patience: int = Field(default=3, ge=1, description="Stop after this many epochs without a better validation loss.")
    learning_rate: float = Field(default=0.01, gt=0, description="Adam's step size.")
    weight_decay: float = Field(default=1e-5, ge=0, description="Adam's L2 penalty.")
    id_dropout: float = Field(default=0.2, ge=0, lt=1, description="Share of nodes whose id is hidden in each epoch.")
    event_id_std: float = Field(
        default=0.25, gt=0, description="Standard deviation of a new event's id embedding; a new user's is zero."
    )
    half_life: float = Field(
        default=4.0, gt=0, description="Weeks after which an edge's weight in the message graph has halved."
    )
    batching: Batching = Field(
        default="auto",
        description="`full`: the whole graph at once; `sampled`: batches of sampled neighbourhoods, and layer by layer "
        "for the embeddings; `auto`: what TGN_BATCHING says, or else what fits the memory.",
    )
    sampler: SamplerName = Field(
        default="auto",
        description="What draws the neighbours of sampled batches: `native`, `torch-sparse` or `pyg-lib`; `auto`: what "
        "TGN_SAMPLER says, or else a compiled one where one is installed.",
    )
    batch_size: int = Field(default=1024, ge=1, description="Links in a sampled batch.")
    fan_out: list[int] = Field(default=[15, 10], description="Neighbours drawn per node and hop of a sampled batch.")
    seed: int = Field(default=0, ge=0, description="Same seed and same data give the same bytes.")
    features: NodeFeatureConfig = Field(default=NodeFeatureConfig(), description="Node features.")
    loss: SoftmaxLossConfig = Field(default=SoftmaxLossConfig(), description="The softmax loss over all events.")
    linear: LinearLinkConfig = Field(default=LinearLinkConfig(), description="The linear link model.")


class RankerConfig(BaseModel, frozen=True):
    """Phase 2: the temporal Transformer and the scoring head."""

    origins: int = Field(
        8, ge=1, le=104, description="Past weeks from whose close the ranker learns to rank the week after."
    )
    sequence: int = Field(8, ge=1, le=104, description="Weekly embeddings the Transformer looks back on.")
    dim: int = Field(64, ge=4, le=1024, description="Width of the Transformer and of its temporal embeddings.")
    heads: int = Field(4, ge=1, description="Attention heads; they divide the width.")
    layers: int = Field(1, ge=1, le=8, description="Transformer layers.")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Share of the Transformer's activations dropped while training."
    )
    networks: int = Field(
        4, ge=1, le=16, description="At most this many networks, averaged; fewer where the past weeks have many pairs."
    )
    epochs: int = Field(30, ge=1, le=500, description="At most this many passes over the origins on a cold start.")
    warm_epochs: int = Field(10, ge=1, le=500, description="At most this many when last week's ranker is at hand.")
    patience: int = Field(4, ge=1, description="Stop after this many passes without a better validation NDCG.")
    learning_rate: float = Field(0.003, gt=0, description="Adam's step size.")
    candidates: int = Field(60, ge=5, le=1000, description="Events that each recall channel hands to the ranking.")
    seed: int = Field(0, ge=0, description="Same seed and same data give the same bytes.")
