"""What a user may turn when training: the launchpad shows these fields with their descriptions."""

from collections.abc import Mapping
from typing import Any, Literal

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


class FitConfig(BaseModel, frozen=True):
    """How the ranker's networks are fitted, cold and warm."""

    pairs_per_epoch: int = Field(
        default=400_000,
        ge=1,
        description="Candidate pairs of an epoch, of all networks together, that set the number of networks.",
    )
    users_per_step: int = Field(default=256, ge=1, description="Users whose lists make one step of the optimizer.")
    weight_decay: float = Field(default=1e-3, ge=0, description="AdamW's weight decay.")
    warm_step: float = Field(
        default=2 / 3, gt=0, description="Share of the learning rate in the epochs of a warm start."
    )
    warm_patience: int = Field(
        default=2, ge=1, description="Stop a warm start after this many epochs that gain too little."
    )
    warm_gain: float = Field(
        default=0.002,
        ge=0,
        description="Relative gain of validation NDCG below which an epoch of a warm start does not count.",
    )
    newest_weeks: int = Field(
        default=3, ge=1, description="Newest weeks that the final epoch learns from, the held-out one among them."
    )
    final_step: float = Field(default=1 / 3, gt=0, description="Share of the learning rate in that final epoch.")


class LambdaRankConfig(BaseModel, frozen=True):
    """LightGBM's LambdaRank; all but `rounds` and `max_pairs` are parameters of LightGBM under its own names."""

    rounds: int = Field(default=100, ge=1, description="Boosting rounds: one tree each.")
    max_pairs: int = Field(
        default=100_000, ge=1, description="Candidate pairs learned from; of more, negative ones are left out, seeded."
    )
    learning_rate: float = Field(default=0.1, gt=0, description="Shrinkage of each tree.")
    num_leaves: int = Field(default=15, ge=2, description="Leaves of a tree, at most.")
    max_bin: int = Field(default=63, ge=2, description="Bins of a feature's histogram.")
    bin_construct_sample_cnt: int = Field(default=50_000, ge=1, description="Pairs that the bins are chosen from.")
    min_data_in_leaf: int = Field(default=50, ge=0, description="Pairs in a leaf, at least.")
    lambdarank_truncation_level: int = Field(default=10, ge=1, description="Ranks whose order is learned.")
    feature_fraction: float = Field(default=0.5, gt=0, le=1, description="Share of the features drawn for each tree.")
    bagging_fraction: float = Field(default=0.8, gt=0, le=1, description="Share of the pairs drawn for each tree.")
    bagging_freq: int = Field(default=1, ge=0, description="Rounds after which the pairs are drawn again.")


class BlendConfig(BaseModel, frozen=True):
    """How the networks' and LambdaRank's scores are blended."""

    tree_weight: float = Field(
        default=0.4, ge=0, description="Weight of the LambdaRank score; the standardised score of the networks has one."
    )
    contenders: int = Field(
        default=30, ge=1, description="Candidates of a user that LambdaRank scores: those that the networks rank first."
    )


class CalibrationConfig(BaseModel, frozen=True):
    """How scores become probabilities."""

    users: int = Field(default=2048, ge=1, description="Users of the newest closed week whose lists are calibrated on.")
    min_slope: float = Field(
        default=0.05, gt=0, description="Least weight of a score: a better rank never gets a lower probability."
    )
    ridge: float = Field(default=1.0, gt=0, description="Ridge penalty of the logistic regressions.")


class FallbackConfig(BaseModel, frozen=True):
    """When a baseline's lists replace the ranker's for a segment of users."""

    active_weeks: int = Field(default=4, ge=1, description="Newest weeks; who interacted in one of them is active.")
    confidence: float = Field(
        default=0.9, gt=0, le=1, description="Share of bootstrap resamples in which a baseline must beat the ranker."
    )
    min_users: int = Field(default=20, ge=1, description="Users of a segment below which the ranker always serves it.")
    resamples: int = Field(default=1000, ge=1, description="Bootstrap resamples of the segment's users.")


class RankerConfig(BaseModel, frozen=True):
    """The ranker: a temporal Transformer and a scoring head, blended with LambdaRank."""

    origins: int = Field(
        default=8, ge=1, le=104, description="Past weeks from whose close the ranker learns to rank the week after."
    )
    users_per_cutoff: int = Field(
        default=4096, ge=1, description="Users that a past week is learned from; of more, a seeded sample."
    )
    sequence: int = Field(default=8, ge=1, le=104, description="Weekly embeddings the Transformer looks back on.")
    dim: int = Field(default=64, ge=4, le=1024, description="Width of the Transformer and of its temporal embeddings.")
    heads: int = Field(default=4, ge=1, description="Attention heads; they divide the width.")
    layers: int = Field(default=1, ge=1, le=8, description="Transformer layers.")
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="Share of the Transformer's activations dropped while training."
    )
    attribute_limit: float = Field(
        default=5.0, gt=0, description="Standard deviations at which the networks clip a feature made from attributes."
    )
    networks: int = Field(
        default=4,
        ge=1,
        le=16,
        description="At most this many networks, averaged; fewer where the past weeks have many pairs.",
    )
    epochs: int = Field(
        default=30, ge=1, le=500, description="At most this many epochs over the past weeks on a cold start."
    )
    warm_epochs: int = Field(
        default=10, ge=1, le=500, description="At most this many when last week's ranker is at hand."
    )
    patience: int = Field(default=4, ge=1, description="Stop after this many epochs without a better validation NDCG.")
    learning_rate: float = Field(default=0.003, gt=0, description="Adam's step size.")
    candidates: int = Field(
        default=60, ge=5, le=1000, description="Events that each recall channel hands to the ranking."
    )
    seed: int = Field(default=0, ge=0, description="Same seed and same data give the same bytes.")
    features: CandidateConfig = Field(default=CandidateConfig(), description="Candidates and their features.")
    fit: FitConfig = Field(default=FitConfig(), description="How the networks are fitted.")
    lambdarank: LambdaRankConfig = Field(default=LambdaRankConfig(), description="LightGBM's LambdaRank.")
    blend: BlendConfig = Field(default=BlendConfig(), description="How the two scores are blended.")
    calibration: CalibrationConfig = Field(default=CalibrationConfig(), description="How scores become probabilities.")
    fallback: FallbackConfig = Field(default=FallbackConfig(), description="When a baseline replaces the ranker.")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a dumped config, nested ones under dotted names.

    >>> flatten({"seed": 0, "blend": {"contenders": 30}})
    {'seed': 0, 'blend.contenders': 30}
    """
    flat = dict[str, Any]()
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
