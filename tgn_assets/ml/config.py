"""What a user may turn when training: the launchpad shows these fields with their descriptions."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, model_validator

Batching = Literal["auto", "full", "sampled"]
Default = TypeVar("Default")
PresetName = Literal["fast", "standard", "best"]
PresetChoice = Literal["auto", "fast", "standard", "best"]
SamplerName = Literal["auto", "native", "torch-sparse", "pyg-lib"]


def option(default: Default, description: str, **bounds: Any) -> Default:
    """A field of a config; `bounds` are pydantic's `ge`, `gt`, `le` and `lt`. No number is infinite or NaN."""
    if isinstance(default, float):
        bounds["allow_inf_nan"] = False
    return Field(default, description=description, **bounds)


def _distinct(half_lives: list[float]) -> list[float]:
    if len(set(half_lives)) < len(half_lives):
        raise ValueError(f"the half-lives {half_lives} are not distinct")
    return half_lives


def _short_and_long(pair: list[float]) -> list[float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"the first half-life of {pair} is not the shorter one")
    return pair


def _neighbours_of_hop(number: int) -> int:
    if number != -1 and not 1 <= number <= MAX_FAN_OUT:
        raise ValueError(f"{number} is neither from 1 to {MAX_FAN_OUT:,} nor -1, for all neighbours")
    return number


MAX_WEEKS, MAX_SEED, MAX_FAN_OUT = 1000.0, 2**31 - 1, 10_000
"""Upper bounds: of half-lives, of seeds (LightGBM takes no larger ones), and of the neighbours drawn in a hop."""
HalfLife = Annotated[float, Field(gt=0, le=MAX_WEEKS, allow_inf_nan=False)]
HalfLives = Annotated[list[HalfLife], Field(max_length=16), AfterValidator(_distinct)]
ShortAndLong = Annotated[list[HalfLife], Field(min_length=2, max_length=2), AfterValidator(_short_and_long)]
Hop = Annotated[int, AfterValidator(_neighbours_of_hop)]


class NodeFeatureConfig(BaseModel, frozen=True):
    """The node features that the encoder reads beside its learnt ids."""

    recent_half_lives: HalfLives = option([0.3, 1.0, 4.0], "Half-lives of a node's interaction counts, in weeks.")
    scale: float = option(
        0.1, "Factor that brings the ln(1 + n) features to the size of a fresh id embedding.", gt=0, le=100
    )


class SoftmaxLossConfig(BaseModel, frozen=True):
    """The encoder's loss: exact up to a number of logits a week, beyond it an estimate from drawn users and events."""

    max_logits: int = option(2**25, "Logits (users x events) of a week up to which it is exact.", ge=1, le=2**40)
    drawn_users: int = option(2**13, "Beyond that: users drawn in each epoch of a week.", ge=1, le=2**24)
    drawn_events: int = option(2**11, "Beyond that: events drawn for each block of users.", ge=1, le=2**24)
    users_per_draw: int = option(2**9, "Beyond that: users of a block, who share draws.", ge=1, le=2**24)


class LinearLinkConfig(BaseModel, frozen=True):
    """The linear link model: two ridge regressions between events, in closed form."""

    rank: int = option(64, "Width of the link vectors of each regression.", ge=1, le=1024)
    next_week_ridge: float = option(60.0, "L2 penalty of the regression on the week after.", gt=0, le=1e9)
    co_occurrence_ridge: float = option(30.0, "L2 penalty of the co-occurrence one.", gt=0, le=1e9)
    half_life: float = option(
        8.0, "Weeks after which an edge's weight in the next-week regression has halved.", gt=0, le=MAX_WEEKS
    )
    max_events: int = option(
        2048, "Events with link vectors, the most popular ones; costs grow with the cube.", ge=1, le=2**16
    )
    event_choice_half_life: float = option(
        4.0, "Weeks after which an interaction counts half in choosing these.", gt=0, le=MAX_WEEKS
    )
    max_rows: int = option(50_000, "Most rows (a user in a week) that are fitted to.", ge=1, le=10**8)
    max_rows_per_week: int = option(4096, "Most of them from one week.", ge=1, le=10**8)
    max_weeks: int = option(104, "Newest weeks that the next-week regression is fitted to.", ge=1, le=5000)
    max_neighbours: int = option(200, "Heaviest edges of a user that are kept.", ge=1, le=10**6)


class GNNConfig(BaseModel, frozen=True):
    """The heterogeneous GraphSAGE encoder, and the linear link model beside it."""

    preset: PresetChoice = option(
        "auto",
        "What fields that are left at their default hold (`ml/presets.py`); `auto`: those of TGN_PRESET.",
    )
    window: int = option(8, "Weeks in the training window: message graph and links.", ge=1, le=104)
    replay: int = option(12, "Past weeks that a cold start trains at, one after the other.", ge=1, le=104)
    dim: int = option(64, "Width of an embedding.", ge=4, le=1024)
    layers: int = option(2, "SAGEConv layers: how many hops a node sees.", ge=1, le=4)
    epochs: int = option(20, "Most epochs over the window on a cold start.", ge=1, le=500)
    warm_epochs: int = option(2, "Most epochs when last week's model is at hand.", ge=1, le=500)
    patience: int = option(3, "Stop after this many epochs without a better validation loss.", ge=1, le=500)
    learning_rate: float = option(0.01, "Adam's step size.", gt=0, le=1)
    weight_decay: float = option(1e-5, "Adam's L2 penalty; of an id, only where it has a gradient.", ge=0, le=1)
    id_dropout: float = option(0.2, "Share of nodes whose id is hidden in each epoch.", ge=0, lt=1)
    max_user_ids: int = option(2**18, "Users up to which each has a learnt id; of more users none has.", ge=0, le=2**31)
    event_id_std: float = option(
        0.25, "Standard deviation of a new event's id embedding; a new user's is zero.", gt=0, le=100
    )
    half_life: float = option(
        4.0, "Weeks after which an edge's weight in the message graph has halved.", gt=0, le=MAX_WEEKS
    )
    batching: Batching = option(
        "auto",
        "`full`: the whole graph at once; `sampled`: batches of sampled neighbourhoods, and layer by layer "
        "for the embeddings; `auto`: what TGN_BATCHING says, or else what fits the memory.",
    )
    sampler: SamplerName = option(
        "auto",
        "What draws the neighbours of sampled batches: `native`, `torch-sparse` or `pyg-lib`; `auto`: what "
        "TGN_SAMPLER says, or else a compiled one where one is installed.",
    )
    batch_size: int = option(1024, "Links in a sampled batch.", ge=1, le=2**24)
    fan_out: list[Hop] = option([15, 10], "Neighbours drawn per node and hop of a sampled batch: one number a layer.")
    seed: int = option(0, "Same seed and same data give the same bytes on the same kind of CPU.", ge=0, le=MAX_SEED)
    features: NodeFeatureConfig = option(NodeFeatureConfig(), "Node features.")
    loss: SoftmaxLossConfig = option(SoftmaxLossConfig(), "The softmax loss over all events.")
    linear: LinearLinkConfig = option(LinearLinkConfig(), "The linear link model.")

    @model_validator(mode="after")
    def _one_fan_out_a_layer(self) -> Self:
        if len(self.fan_out) != self.layers:
            raise ValueError(f"fan_out holds one number for each of layers = {self.layers}, not {self.fan_out}")
        return self


class CandidateConfig(BaseModel, frozen=True):
    """What candidates and their features are computed with; half-lives are in weeks."""

    repeat_half_lives: HalfLives = option(
        [1.0, 4.0, 16.0, 64.0], "Half-lives of a user's interactions: one feature each."
    )
    repeat_share_half_life: float = option(
        16.0, "Half-life in the event's share of a user's interactions.", gt=0, le=MAX_WEEKS
    )
    repeat_rate_prior: float = option(5.0, "Weeks of average behaviour added to a repeat rate.", gt=0, le=MAX_WEEKS)
    popularity_half_lives: HalfLives = option(
        [0.07, 0.15, 0.3, 1.0, 4.0, 16.0], "Half-lives of popularity: a feature each."
    )
    trend_half_lives: list[ShortAndLong] = option(
        [[0.15, 1.0], [0.3, 4.0]], "Short and long half-lives to compare: one feature each."
    )
    popular_half_life: float = option(
        0.3, "Half-life of popularity in the channel of popular events.", gt=0, le=MAX_WEEKS
    )
    steady_half_life: float = option(4.0, "The same for the steadily popular half of its events.", gt=0, le=MAX_WEEKS)
    affinity_half_life: float = option(
        16.0, "Half-life of the popularity that a user's habits are compared by.", gt=0, le=MAX_WEEKS
    )
    profile_half_life: float = option(
        8.0, "Half-life of a user's interactions in the user's profile.", gt=0, le=MAX_WEEKS
    )
    recent_half_life: float = option(1.0, "The same in the profile of recent interests.", gt=0, le=MAX_WEEKS)
    events_per_user: int = option(
        200, "Heaviest events of a profile: co-occurrence costs their square.", ge=1, le=10**5
    )
    neighbours: int = option(100, "Most similar events kept of each event.", ge=1, le=10**5)
    shrinkage: float = option(10.0, "Added to the cosine's denominator: rare events are less similar.", ge=0, le=1e6)
    category_half_life: float = option(1.0, "Half-life of the popularity of an event's category.", gt=0, le=MAX_WEEKS)
    category_prior: float = option(2.0, "Interactions of average behaviour added to a category's share.", gt=0, le=1e6)


class FitConfig(BaseModel, frozen=True):
    """How the ranker's networks are fitted, cold and warm."""

    pairs_per_epoch: int = option(
        400_000, "Pairs in an epoch of all networks; sets the number of networks and boosters.", ge=1, le=10**9
    )
    users_per_step: int = option(256, "Users whose lists make one step of the optimizer.", ge=1, le=10**6)
    weight_decay: float = option(1e-3, "AdamW's weight decay.", ge=0, le=1)
    warm_step: float = option(2 / 3, "Share of the learning rate in the epochs of a warm start.", gt=0, le=1)
    warm_patience: int = option(1, "Stop a warm start after this many epochs that gain too little.", ge=1, le=500)
    warm_gain: float = option(0.002, "Least relative gain of validation NDCG that counts there.", ge=0, le=1)
    many_lists: int = option(
        16_384, "Lists of an epoch from which on a cold start stops by the same two rules.", ge=1, le=10**9
    )
    newest_weeks: int = option(
        3, "Newest weeks that the final epoch learns from, the held-out one among them.", ge=1, le=104
    )
    final_step: float = option(1 / 3, "Share of the learning rate in that final epoch.", gt=0, le=1)


class LambdaRankConfig(BaseModel, frozen=True):
    """LightGBM's LambdaRank; all but `rounds` and `max_pairs` are parameters of LightGBM under its own names."""

    rounds: int = option(100, "Boosting rounds: one tree each.", ge=1, le=10**5)
    max_pairs: int = option(
        100_000, "Candidate pairs learned from; of more, negative ones are left out, seeded.", ge=1, le=10**9
    )
    learning_rate: float = option(0.1, "Shrinkage of each tree.", gt=0, le=1)
    num_leaves: int = option(15, "Leaves of a tree, at most.", ge=2, le=131072)
    max_bin: int = option(63, "Bins of a feature's histogram.", ge=2, le=65535)
    bin_construct_sample_cnt: int = option(50_000, "Pairs that the bins are chosen from.", ge=1, le=10**9)
    min_data_in_leaf: int = option(50, "Pairs in a leaf, at least.", ge=0, le=10**9)
    lambdarank_truncation_level: int = option(10, "Ranks whose order is learned.", ge=1, le=10**5)
    feature_fraction: float = option(0.5, "Share of the features drawn for each tree.", gt=0, le=1)
    bagging_fraction: float = option(0.8, "Share of the pairs drawn for each tree.", gt=0, le=1)
    bagging_freq: int = option(1, "Rounds after which the pairs are drawn again.", ge=0, le=10**5)


class BlendConfig(BaseModel, frozen=True):
    """How the networks' and LambdaRank's scores are blended."""

    tree_weight: float = option(0.4, "Weight of LambdaRank's score; that of the networks has one.", ge=0, le=1000)
    contenders: int = option(20, "First candidates of the networks, which LambdaRank scores.", ge=1, le=10**5)


class CalibrationConfig(BaseModel, frozen=True):
    """How scores become probabilities."""

    users: int = option(2048, "Users of each judged week whose lists are calibrated on.", ge=1, le=10**8)
    min_slope: float = option(
        0.05, "Least weight of a score: a better rank never gets a lower probability.", gt=0, le=100
    )
    ridge: float = option(1.0, "Ridge penalty of the logistic regressions.", gt=0, le=1e9)
    half_life: float = option(4.0, "Weeks after which a judged week counts half.", gt=0, le=1e6)


class FallbackConfig(BaseModel, frozen=True):
    """When a baseline's lists replace the ranker's for a segment of users."""

    active_weeks: int = option(4, "Newest weeks; who interacted in one of them is active.", ge=1, le=5000)
    confidence: float = option(0.9, "How certain it must be that the best baseline beats the ranker.", gt=0, lt=1)
    min_users: int = option(20, "Users below which a segment gets what is decided over all users.", ge=2, le=10**9)
    weeks: int = option(8, "Newest judged weeks that are pooled, for fallback and calibration.", ge=1, le=5000)
    half_life: float = option(4.0, "Weeks after which a judged week counts half.", gt=0, le=1e6)


class RankerConfig(BaseModel, frozen=True):
    """The ranker: a temporal Transformer and a scoring head, blended with LambdaRank."""

    preset: PresetChoice = option(
        "auto",
        "What fields that are left at their default hold (`ml/presets.py`); `auto`: those of TGN_PRESET.",
    )
    origins: int = option(8, "Cut-offs to learn from; one more, the newest, is held out at first.", ge=1, le=104)
    users_per_cutoff: int = option(
        4096, "Users that a past week is learned from; of more, a seeded sample.", ge=1, le=10**8
    )
    sequence: int = option(8, "Weekly embeddings the Transformer looks back on.", ge=1, le=104)
    dim: int = option(64, "Width of the Transformer and of its temporal embeddings.", ge=4, le=1024)
    heads: int = option(4, "Attention heads; they divide the width.", ge=1, le=1024)
    layers: int = option(1, "Transformer layers.", ge=1, le=8)
    dropout: float = option(0.2, "Share of the Transformer's activations dropped while training.", ge=0, lt=1)
    attribute_limit: float = option(5.0, "Standard deviations at which attribute features are clipped.", gt=0, le=1e6)
    networks: int = option(
        4, "Most networks averaged, and LambdaRank boosters; fewer where weeks have many pairs.", ge=1, le=16
    )
    epochs: int = option(30, "At most this many epochs over the past weeks on a cold start.", ge=1, le=500)
    warm_epochs: int = option(10, "At most this many when last week's ranker is at hand.", ge=1, le=500)
    patience: int = option(4, "Stop after this many epochs without a better validation NDCG.", ge=1, le=500)
    learning_rate: float = option(0.003, "AdamW's step size.", gt=0, le=1)
    candidates: int = option(60, "Events that each channel hands to the ranking.", ge=5, le=1000)
    seed: int = option(0, "Same seed and same data give the same bytes on the same kind of CPU.", ge=0, le=MAX_SEED)
    features: CandidateConfig = option(CandidateConfig(), "Candidates and their features.")
    fit: FitConfig = option(FitConfig(), "How the networks are fitted.")
    lambdarank: LambdaRankConfig = option(LambdaRankConfig(), "LightGBM's LambdaRank.")
    blend: BlendConfig = option(BlendConfig(), "How the two scores are blended.")
    calibration: CalibrationConfig = option(CalibrationConfig(), "How scores become probabilities.")
    fallback: FallbackConfig = option(FallbackConfig(), "When a baseline replaces the ranker.")

    @property
    def embedding_weeks(self) -> int:
        """Weeks of embeddings that training reads: the oldest cut-off is `origins` + 1 weeks before the week that has
        closed, and looks back `sequence` weeks from there."""
        return self.origins + self.sequence + 1

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} do not divide dim = {self.dim}")
        return self


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a dumped config, nested ones under dotted names.

    >>> flatten({"seed": 0, "blend": {"contenders": 30}})
    {'seed': 0, 'blend.contenders': 30}
    """
    flat = dict[str, Any]()
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
