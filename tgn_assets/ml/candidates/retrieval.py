"""Candidates: the few events per user that are worth ranking, from several channels, and their features.

`CHANNEL_REGISTRY` holds every channel. To add one, write a function of the same kind and add an entry there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.attribute_features import AttributeFeatures, feature_names
from tgn_assets.ml.candidates.pair_features import PairFeatures, pair_feature_registry
from tgn_assets.ml.candidates.user_tables import UserTables
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeColumn, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory, UserPast
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.linalg.lookup import key_type
from tgn_assets.ml.linalg.pair_dot import pair_dot
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.linalg.sparse import only_columns, row_of, top_n_per_row
from tgn_assets.ml.linalg.topk import top_products

LINKS = ("next_week", "co_occurrence")
"""The two regressions of the linear link model, in the order of their vectors in `NodeEmbeddings`."""
EMBEDDING_FEATURES = ("encoder_logit", "encoder_known", *(f"link_{name}" for name in LINKS))
"""The encoder's logit, whether it has one, and the scores of the linear link model. A raw score means something else
each week, so scores are z-scores among the user's candidates."""


def candidate_feature_names(config: CandidateConfig, attributes: Sequence[AttributeColumn] = ()) -> tuple[str, ...]:
    """Names of the columns of `Candidates.features`, in order, where the attribute tables have those columns."""
    return (*pair_feature_registry(config).names, *EMBEDDING_FEATURES, *feature_names(attributes))


@dataclass(frozen=True)
class Candidates:
    """Pairs to rank: user `users[row]` with event position `event`; sorted by row, then event."""

    users: IntArray  # [n] user positions
    row: IntArray  # [p]
    event: IntArray  # [p]
    features: FloatArray  # [p, len(candidate_feature_names(…))] float32
    channels: BoolArray  # [p, len(CHANNELS)]: which channels brought the pair


class RetrievedPairs(NamedTuple):
    """Pairs (row in the users, event position), sorted, and which channels brought each."""

    row: IntArray  # [p]
    event: IntArray  # [p]
    channels: BoolArray  # [p, len(CHANNELS)]


class UserShard(NamedTuple):
    """What is known of some users [n] at a cut-off, all that their candidates are made from beside the event side."""

    past: UserPast
    vectors: torch.Tensor  # [n, d] the newest embedding of each, zero where there is none
    known: BoolArray  # [n] there is one
    links: torch.Tensor  # [n, r] the link vectors


def user_shard(history: InteractionHistory, embeddings: NodeEmbeddings | None, users: IntArray) -> UserShard:
    """The shard of user positions `users` [n] at the close of `history`, whose `embeddings` are those of its week."""
    past, none = history.of_users(users), torch.zeros(len(users), len(LINKS))
    if embeddings is None:
        return UserShard(past, none, np.zeros(len(users), bool), none)
    idx = history.user_idx[users]
    vectors, known = embeddings.users_at(idx)
    return UserShard(past, vectors, known.numpy(), embeddings.user_links_at(idx))


class Request(NamedTuple):
    """What a channel is asked for: up to `limit` events for each user [n] of `tables`."""

    tables: UserTables
    limit: int
    links: list[torch.Tensor]  # [n, r] the users' vectors of each of `LINKS`


class CandidateGenerator:
    """Candidates of any users as of one cut-off: the event side, made once and shared by all shards of users.

    It is made from `history` and the `embeddings` known at its close (None: none). What `rules` do not allow is no
    candidate. Dot products are computed on `device`.
    """

    def __init__(
        self,
        history: InteractionHistory,
        embeddings: NodeEmbeddings | None,
        *,
        config: CandidateConfig | None = None,
        device: str = "cpu",
        rules: Rules = NO_RULES,
        attributes: AttributeTables = NO_ATTRIBUTES,
    ) -> None:
        self.pair_features, self.rules = PairFeatures(history, config), rules
        self.attributes = AttributeFeatures(history, attributes, config)
        self.catalogue, self.device, self.allowed = history.catalogue, device, rules.allowed(history)
        self.event_vectors, self.event_known = torch.zeros(0, 0), np.zeros(history.num_events, bool)
        self.event_links = [torch.zeros(history.num_events, 1)] * len(LINKS)
        if embeddings is not None:
            vectors, known = embeddings.events_at(history.event_idx)
            self.event_vectors, self.event_known = vectors.to(device), known.numpy()
            self.event_links = _parts(embeddings.event_links_at(history.event_idx).to(device))
        linked = self.event_links[LINKS.index("next_week")].any(1)
        self.linked_events = np.flatnonzero(linked.cpu().numpy() & self.allowed)

    def candidates(self, shard: UserShard, limit: int) -> Candidates:
        """The pairs of `retrieve`, with their features."""
        request = self._request(shard, limit)
        row, event, channels = self._retrieve(request)
        links = zip(request.links, self.event_links, strict=True)
        features = [
            *self.pair_features.families(request.tables, row, event),
            self._encoder_features(shard, row, event),
            *(group_zscore(row, _dot_products(of, to, row, event)).astype(np.float32) for of, to in links),
            self.attributes.features(shard.past, row, event),
        ]
        return Candidates(shard.past.users, row, event, np.column_stack(features), channels)

    def user_features(self, past: UserPast) -> FloatArray:
        """[n, F] the features of the users of `past`: `user_columns` of their candidates' features."""
        return self.pair_features.user_features(self.pair_features.tables(past))

    @property
    def user_columns(self) -> slice:
        """The columns of `Candidates.features` that depend on the user only."""
        return self.pair_features.registry.user_columns

    def retrieve(self, shard: UserShard, limit: int) -> RetrievedPairs:
        """The union of the channels for the users of `shard`.

        Up to `limit` events from each channel; `popular` adds half as many of the steadily popular ones.
        """
        return self._retrieve(self._request(shard, limit))

    def _request(self, shard: UserShard, limit: int) -> Request:
        return Request(self.pair_features.tables(shard.past), limit, _parts(shard.links.to(self.device)))

    def _retrieve(self, request: Request) -> RetrievedPairs:
        size, number = self.catalogue.num_events, len(CHANNELS)
        retrieved = (channel(self, request) for channel in CHANNEL_REGISTRY.values())
        keys = [(row * size + event) * number + channel for channel, (row, event) in enumerate(retrieved)]
        key: Any = key_type(request.tables.size * size * number)
        pair, channel = np.divmod(np.sort(np.concatenate(keys, dtype=key)), key(number))
        is_first = np.diff(pair, prepend=-1) > 0
        union = pair[is_first].astype(np.int64)
        channels = np.zeros((len(union), number), bool)
        channels[np.cumsum(is_first) - 1, channel] = True
        row, event = np.divmod(union, max(size, 1))
        permitted = self.allowed[event]
        if self.rules.exclude_repeats:
            permitted &= ~np.isin(union, request.tables.pairs.key)
        return RetrievedPairs(row[permitted], event[permitted], channels[permitted])

    def _encoder_features(self, shard: UserShard, row: IntArray, event: IntArray) -> FloatArray:
        """[p, 2] float32: the encoder's logit, standardised for each user, and whether both nodes have an embedding."""
        logit, known = np.zeros(len(row), np.float32), shard.known[row] & self.event_known[event]
        if known.any():
            both = np.flatnonzero(known)
            raw = _dot_products(shard.vectors.to(self.device), self.event_vectors, row[both], event[both])
            logit[both] = group_zscore(row[both], raw)
        return np.column_stack([logit, known.astype(np.float32)])


def _repeat(_: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The user's own events of the largest weight."""
    return request.tables.repeats(request.limit)


def _co_occurrence(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The events that are most similar to those of the user's profile."""
    similar = only_columns(request.tables.co_occurrence.real, generator.allowed)
    similar.eliminate_zeros()  # what is similar to recent interests alone
    similar = top_n_per_row(similar, request.limit)
    return row_of(similar), similar.indices.astype(np.int64)


def _popular(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The most popular events now, and half as many of the steadily popular ones: the same for everyone."""
    events, users = generator.pair_features.events, request.tables.size
    now, steady = (order[generator.allowed[order]] for order in (events.by_popularity, events.by_steady_popularity))
    popular = np.union1d(now[: request.limit], steady[: request.limit // 2])
    return np.repeat(np.arange(users), len(popular)), np.tile(popular, users)


def _next_week(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The events that the linear link model expects most in the next week, by exact search, where it has vectors."""
    of_users, of_events = (links[LINKS.index("next_week")] for links in (request.links, generator.event_links))
    rows, events = np.flatnonzero(of_users.any(1).cpu().numpy()), generator.linked_events
    if not len(rows) or not len(events):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    top = top_products(of_users[rows], of_events[events], request.limit).cpu().numpy()
    return np.repeat(rows, top.shape[1]), events[top.ravel()]


Channel = Callable[[CandidateGenerator, Request], tuple[IntArray, IntArray]]
"""Gives (row in the users, event position) of distinct pairs, in any order; pairs that the rules forbid are dropped."""
CHANNEL_REGISTRY: Mapping[str, Channel] = {
    "repeat": _repeat,
    "co_occurrence": _co_occurrence,
    "popular": _popular,
    "next_week": _next_week,
}
CHANNELS = tuple(CHANNEL_REGISTRY)
"""Names of the columns of `Candidates.channels`."""


def _parts(vectors: torch.Tensor) -> list[torch.Tensor]:
    """The vectors of each of `LINKS`, which lie side by side in `NodeEmbeddings`."""
    return list(vectors.chunk(len(LINKS), dim=1))


def _dot_products(users: torch.Tensor, events: torch.Tensor, row: IntArray, event: IntArray) -> FloatArray:
    """[p] float64 `pair_dot`."""
    pairs = (torch.as_tensor(position, device=users.device) for position in (row, event))
    return pair_dot(users, events, *pairs).double().cpu().numpy()
