"""What a user may turn when training: the launchpad shows these fields with their descriptions."""

from typing import Literal

from pydantic import BaseModel, Field


class GNNConfig(BaseModel, frozen=True):
    """Phase 1: the heterogeneous GraphSAGE encoder."""

    window: int = Field(8, ge=1, le=104, description="Weeks in the training window: the message graph and the links.")
    replay: int = Field(
        12,
        ge=1,
        le=104,
        description="Past weeks that a cold start walks through, one after the other, as if it had run then.",
    )
    dim: int = Field(64, ge=4, le=1024, description="Width of an embedding.")
    layers: int = Field(2, ge=1, le=4, description="SAGEConv layers: how many hops a node sees.")
    epochs: int = Field(20, ge=1, le=500, description="At most this many passes over the window on a cold start.")
    warm_epochs: int = Field(2, ge=1, le=500, description="At most this many passes when last week's model is at hand.")
    patience: int = Field(3, ge=1, description="Stop after this many passes without a better validation loss.")
    learning_rate: float = Field(0.01, gt=0, description="Adam's step size.")
    id_dropout: float = Field(0.2, ge=0, lt=1, description="Share of nodes whose learnt id is hidden in each pass.")
    half_life: float = Field(
        4.0, gt=0, description="Weeks after which an edge's weight in the message graph has halved."
    )
    batching: Literal["auto", "full", "sampled"] = Field(
        "auto", description="Whole-graph passes, sampled neighbourhoods, or whichever fits the graph."
    )
    batch_size: int = Field(1024, ge=1, description="Links in a sampled batch.")
    fan_out: list[int] = Field([15, 10], description="Neighbours drawn per node at each hop of a sampled batch.")
    seed: int = Field(0, ge=0, description="Same seed and same data give the same bytes.")


class CandidateConfig(BaseModel, frozen=True):
    """What candidates and their features are computed with; half-lives are in weeks."""

    repeat_half_lives: list[float] = Field(
        default=[1.0, 4.0, 16.0, 64.0],
        description="Half-lives of a user's interactions with the event: one feature each.",
    )
    repeat_share_half_life: float = Field(
        default=16.0, gt=0, description="Half-life in the event's share of a user's interactions."
    )
    repeat_rate_prior: float = Field(
        default=5.0, gt=0, description="Weeks of average behaviour added to the repeat rate of a user or an event."
    )
    popularity_half_lives: list[float] = Field(
        default=[0.07, 0.15, 0.3, 1.0, 4.0, 16.0],
        description="Half-lives of an event's popularity: one feature each.",
    )
    trend_half_lives: list[list[float]] = Field(
        default=[[0.15, 1.0], [0.3, 4.0]],
        description="Short and long half-lives whose popularities are compared: one feature each.",
    )
    popular_half_life: float = Field(
        default=0.3, gt=0, description="Half-life of the popularity that the channel of popular events ranks by."
    )
    steady_half_life: float = Field(
        default=4.0, gt=0, description="The same for the steadily popular events, of which the channel takes half."
    )
    affinity_half_life: float = Field(
        default=16.0, gt=0, description="Half-life of the popularity that a user's usual events are compared by."
    )
    profile_half_life: float = Field(
        default=8.0, gt=0, description="Half-life of a user's interactions in the user's profile."
    )
    recent_half_life: float = Field(default=1.0, gt=0, description="The same in the profile of recent interests.")
    events_per_user: int = Field(
        default=200, ge=1, description="Heaviest events of a profile: co-occurrence costs their square."
    )
    neighbours: int = Field(default=100, ge=1, description="Most similar events kept of each event.")
    shrinkage: float = Field(
        default=10.0, ge=0, description="Added to the cosine's denominator: rare events are less similar."
    )
    category_half_life: float = Field(
        default=1.0, gt=0, description="Half-life of the popularity of an event's category."
    )
    category_prior: float = Field(
        default=2.0, gt=0, description="Interactions of average behaviour added to a category's share."
    )


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
    features: CandidateConfig = Field(default=CandidateConfig(), description="Candidates and their features.")
