"""The neural ranker: a Transformer over weekly embeddings, and a score of each (user, event) pair."""

import math

import torch
from torch import Tensor, nn

from tgn_assets.ml.linalg.pair_dot import pair_dot

ATTRIBUTE_LIMIT = 5.0
"""Standard deviations that a side feature is cut off at: a flag that training never saw set would be a thousand."""


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


class UserInteractionPredictor(nn.Module):
    """Scores (user, event) pairs for the week after an origin.

    score = pair evidence + gate * temporal tower. The evidence is a small network over a pair's features; the tower is
    the dot product of the Transformer's summary of the user's weekly embeddings and the event's projected embedding.
    The gate starts almost shut: a tower that has learnt nothing cannot hurt. The last `attributes` of the features
    come from
    side tables: where one is NaN the network is told that it is unknown, and has its mean.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        embedding: int,
        features: int,
        dim: int,
        heads: int,
        layers: int,
        length: int,
        dropout: float,
        attributes: int = 0,
    ) -> None:
        super().__init__()
        self.attributes = attributes
        self.project_user = nn.Linear(embedding + 1, dim)
        self.project_event = nn.Linear(embedding, dim)
        self.position = PositionalEncoding(dim, length)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.feature_mlp = nn.Sequential(
            nn.Linear(features + attributes, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1)
        )
        self.gate = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.gate.device

    def normalise(self, features: Tensor) -> None:
        """Takes mean and spread of the features from training pairs [p, F]: from closed weeks alone."""
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0).clamp(min=1e-3))
        for at in range(features.shape[1] - self.attributes, features.shape[1]):
            known = features[~features[:, at].isnan(), at]
            self.feature_mean[at] = known.mean() if len(known) else 0.0
            self.feature_scale[at] = known.std(correction=0).clamp(min=1e-3) if len(known) else 1.0

    def get_temporal_embeddings(self, sequence: Tensor, known: Tensor) -> Tensor:
        """[n, dim] summary of each user's weekly embeddings `sequence` [n, L, embedding], oldest first.

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
        """[m, dim] projection of event embeddings [m, embedding] into the space of the temporal ones."""
        return self.project_event(events)

    def forward(self, users: Tensor, events: Tensor, row: Tensor, column: Tensor, features: Tensor) -> Tensor:
        """[p] scores of p pairs, distinct and in order: places `row` and `column` [p] in the temporal embeddings of
        `users` [n, dim] and `events` [m, dim], and features [p, F]."""
        tower = pair_dot(users, events, row, column) / math.sqrt(users.shape[-1])
        normalised = (features - self.feature_mean) / self.feature_scale
        if self.attributes:
            attributes = normalised[:, -self.attributes :]
            bounded = attributes.nan_to_num(0.0).clamp(-ATTRIBUTE_LIMIT, ATTRIBUTE_LIMIT)
            normalised = torch.cat(
                [normalised[:, : -self.attributes], bounded, attributes.isnan().to(attributes.dtype)], dim=1
            )
        return self.feature_mlp(normalised)[:, 0] + self.gate * tower


def _newest(layer: nn.TransformerEncoderLayer, tokens: Tensor, hidden: Tensor) -> Tensor:
    """[n, dim] the newest of what `layer` makes of `tokens` [n, L, dim]; those `hidden` [n, L] are not attended to.

    Nothing else of the last layer is read, and it costs a fraction of the whole.
    """
    normed, newest = layer.norm1(tokens), tokens[:, -1]
    seen, _ = layer.self_attn(normed[:, -1:], normed, normed, key_padding_mask=hidden, need_weights=False)
    newest = newest + layer.dropout1(seen[:, 0])
    inner = layer.dropout(layer.activation(layer.linear1(layer.norm2(newest))))
    return newest + layer.dropout2(layer.linear2(inner))
