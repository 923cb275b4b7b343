"""The neural ranker: a Transformer over weekly embeddings, and a score of each (user, event) pair."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tgn_assets.ml.arrays import FloatArray, IntArray, NodePositions
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.interactions import dense
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.linalg.pair_dot import pair_dot
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.schema import K

PAIRS_PER_SUM = 65_536
"""Pairs whose features are summed at once, in double precision: those of all pairs are a large part of the memory."""
PAIRS_PER_PASS = 4096
"""Pairs whose features pass the network at once where nothing is learned: what is between layers stays in the cache."""
WITHOUT_BOUND = torch.finfo(torch.float32).max
"""The end of the range of a feature that is known of no training pair."""

Rescore = Callable[[Candidates, FloatArray], FloatArray]
"""Turns the networks' scores [p] of candidates into the scores [p] that they are ranked by, such as `blend_scores`."""


class TopK(NamedTuple):
    """The best candidates of n users, and the scores of all p candidates."""

    pairs: IntArray  # [n, k] positions among the candidates, best first; -1 where a user has fewer
    score: FloatArray  # [p] by which they were ranked
    network_score: FloatArray  # [p] of the networks alone


class PairScorer(nn.Module):
    """What scores (user, event) pairs by temporal embeddings and pair features: a network, or an ensemble of them."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @torch.no_grad()
    def predict_top_k(
        self,
        candidates: Candidates,
        embeddings: NodeEmbeddings,
        *,
        event_order: IntArray,
        k: int = K,
        rescore: Rescore | None = None,
    ) -> TopK:
        """The `k` best `candidates` of each of their users: published lists are made by this.

        `embeddings` are the temporal embeddings of all nodes as of the same week. `event_order` [E] breaks ties between
        equal scores: the event with the smaller value comes first. Candidates are ranked by the score of `forward`, or
        by what `rescore` makes of it.
        """
        events, event_row = dense(candidates.event)
        vectors = (embeddings.users[torch.as_tensor(candidates.users)], embeddings.events[torch.as_tensor(events)])
        scores = self(
            *(x.to(self.device).float() for x in vectors),
            *(torch.as_tensor(x, device=self.device) for x in (candidates.row, event_row, candidates.features)),
        )
        network_score = scores.cpu().numpy()
        score = network_score if rescore is None else rescore(candidates, network_score)
        tie, users = event_order[candidates.event], len(candidates.users)
        return TopK(grouped_top_k(candidates.row, score, tie, users, k), score, network_score)

    def predict_top_k_for_user(
        self,
        user: int,
        embeddings: NodeEmbeddings,
        candidates: Candidates,
        *,
        event_order: IntArray,
        k: int = K,
        rescore: Rescore | None = None,
    ) -> tuple[NodePositions, FloatArray]:
        """(positions of the at most `k` best events of the user at position `user`, their scores), best first.

        `predict_top_k` for one of the users of `candidates`; ValueError if `user` is not among them. To get the
        published list where the ranker has a booster, pass `partial(blend_scores, boosters=..., k=..., config=...)` as
        `rescore`. Published lists may differ in three ways: popular events fill up a list of fewer than `k` candidates,
        the fallback may publish a baseline's list, and published scores are calibrated probabilities.
        """
        if user not in candidates.users:
            raise ValueError(f"there are no candidates of user {user}")
        own = candidates.row == int((candidates.users == user).argmax())
        of_user = Candidates(
            users=candidates.users[candidates.users == user],
            row=candidates.row[own] * 0,
            event=candidates.event[own],
            features=candidates.features[own],
            channels=candidates.channels[own],
        )
        top, score, _ = self.predict_top_k(of_user, embeddings, event_order=event_order, k=k, rescore=rescore)
        pairs = top[0][top[0] >= 0]
        return NodePositions(of_user.event[pairs]), score[pairs]


class PositionalEncoding(nn.Module):
    """Sinusoids of the position in a sequence, added to it (arXiv 1706.03762, section 3.5)."""

    table: Tensor

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        position = torch.arange(length)[:, None]
        frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
        table = torch.zeros(length, dim)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency[: dim // 2])
        self.register_buffer("table", table, persistent=False)

    def forward(self, sequence: Tensor) -> Tensor:
        """[n, L, dim] -> [n, L, dim] for L up to `length`."""
        return sequence + self.table[: sequence.shape[1]]


class UserInteractionPredictor(PairScorer):
    """Scores (user, event) pairs for the week after a cut-off.

    score = MLP of the pair features + gate * similarity, the scaled dot product of the Transformer's summary of the
    user's weekly embeddings and the event's projected embedding. The gate starts almost shut: an
    untrained Transformer cannot hurt. Weekly embeddings are `width` wide, pairs have `features` features. The last
    `attributes` of these come from attributes: where one is NaN the network is told that it is unknown, and reads its
    mean.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    feature_low: Tensor
    feature_high: Tensor

    def __init__(self, config: RankerConfig, *, width: int, features: int, attributes: int = 0) -> None:
        super().__init__()
        self.attributes, self.attribute_limit, dim = attributes, config.attribute_limit, config.dim
        self.project_user = nn.Linear(width + 1, dim)
        self.project_event = nn.Linear(width, dim)
        self.position = PositionalEncoding(dim, config.sequence)
        layer = nn.TransformerEncoderLayer(
            dim, config.heads, 2 * dim, config.dropout, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.feature_mlp = nn.Sequential(
            nn.Linear(features + attributes, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1)
        )
        self.gate = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.register_buffer("feature_low", torch.full((features,), -WITHOUT_BOUND))
        self.register_buffer("feature_high", torch.full((features,), WITHOUT_BOUND))

    def normalise(self, features: Sequence[Tensor]) -> None:
        """Sets mean, standard deviation and range of the features that are known, by training pairs (parts of
        [p, F])."""
        parts = [some for part in features for some in part.split(PAIRS_PER_SUM)]
        known = torch.stack([(~part.isnan()).sum(0) for part in parts]).sum(0)
        mean = torch.stack([part.nansum(0, dtype=torch.float64) for part in parts]).sum(0) / known.clamp(min=1)
        squares = torch.stack([(part.double() - mean).square().nansum(0) for part in parts]).sum(0)
        self.feature_mean.copy_(mean)
        scale = (squares / known.clamp(min=1)).sqrt().clamp(min=1e-3)
        self.feature_scale.copy_(torch.where(known > 0, scale, 1.0))
        for bound, of_pairs in zip((self.feature_low, self.feature_high), _range(features), strict=True):
            bound.copy_(of_pairs)

    def widen_range(self, features: Sequence[Tensor]) -> None:
        """Widens the range of each feature to that of training pairs (parts of [p, F]).

        What lies outside is scored as what lies at its edge: of it nothing was learned, and a network extrapolates.
        """
        low, high = (bound.to(self.device) for bound in _range(features))
        self.feature_low.copy_(torch.minimum(self.feature_low, low))
        self.feature_high.copy_(torch.maximum(self.feature_high, high))

    def get_temporal_embeddings(self, sequence: Tensor, known: Tensor) -> Tensor:
        """[n, dim] summary of each user's weekly embeddings `sequence` [n, L, width], oldest first.

        `known` [n, L] bool says in which weeks the user existed; the other weeks are not attended to. The newest week
        always is, so that a row is never empty.
        """
        known = torch.cat([known[:, :-1], torch.ones_like(known[:, -1:])], dim=1)
        tokens = self.position(self.project_user(torch.cat([sequence, known[..., None].to(sequence.dtype)], dim=-1)))
        *before, last = self.transformer.layers
        for layer in before:
            tokens = layer(tokens, src_key_padding_mask=~known)
        return self.norm(_newest(last, tokens, ~known))

    def event_embeddings(self, events: Tensor) -> Tensor:
        """[m, dim] projection of event embeddings [m, width] into the space of the temporal ones."""
        return self.project_event(events)

    def forward(self, users: Tensor, events: Tensor, row: Tensor, column: Tensor, features: Tensor) -> Tensor:
        """[p] scores of p pairs, distinct and in order: rows `row` and `column` [p] of the temporal embeddings of
        `users` [n, dim] and `events` [m, dim], and features [p, F]."""
        similarity = self._compute_similarity_scores(users, events, row, column)
        parts = (features,) if torch.is_grad_enabled() else features.split(PAIRS_PER_PASS)
        of_features = torch.cat([self.feature_mlp(self._normalised(part))[:, 0] for part in parts])
        return of_features + self.gate * similarity

    def _compute_similarity_scores(self, users: Tensor, events: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """[p] dot products of the temporal embeddings of each pair, divided by the square root of their width."""
        return pair_dot(users, events, row, column) / math.sqrt(users.shape[-1])

    def _normalised(self, features: Tensor) -> Tensor:
        """[p, F + attributes] standardised features. Attribute features are clipped; NaN becomes zero and sets a
        flag."""
        within = features.clamp(self.feature_low, self.feature_high)
        normalised = (within - self.feature_mean) / self.feature_scale
        if not self.attributes:
            return normalised
        attributes = normalised[:, -self.attributes :]
        clipped = attributes.nan_to_num(0.0).clamp(-self.attribute_limit, self.attribute_limit)
        return torch.cat([normalised[:, : -self.attributes], clipped, attributes.isnan().to(attributes.dtype)], dim=1)


def _range(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """([F] the least, [F] the largest value of each feature in the parts [p, F]; without bound where none is known)."""
    ends = []
    for farther, bound in ((np.fmin, -WITHOUT_BOUND), (np.fmax, WITHOUT_BOUND)):  # which pass over NaN
        end = farther.reduce([farther.reduce(part.numpy(), axis=0) for part in features if len(part)], axis=0)
        ends.append(torch.from_numpy(np.nan_to_num(end, nan=bound)))
    return ends[0], ends[1]


def _newest(layer: nn.TransformerEncoderLayer, tokens: Tensor, hidden: Tensor) -> Tensor:
    """[n, dim] the newest of what `layer` makes of `tokens` [n, L, dim]; those `hidden` [n, L] are not attended to.

    Nothing else of the last layer is read, and it costs a fraction of the whole.
    """
    normed, newest = layer.norm1(tokens), tokens[:, -1]
    # The same as a `key_padding_mask`, for which torch imports SymPy.
    mask = hidden.repeat_interleave(layer.self_attn.num_heads, dim=0)[:, None]
    seen, _ = layer.self_attn(normed[:, -1:], normed, normed, attn_mask=mask, need_weights=False)
    newest = newest + layer.dropout1(seen[:, 0])
    inner = layer.dropout(layer.activation(layer.linear1(layer.norm2(newest))))
    return newest + layer.dropout2(layer.linear2(inner))
