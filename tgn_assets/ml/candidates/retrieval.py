"""Candidates: the few events per user that are worth ranking, from several recall channels, and their features.

`CHANNEL_REGISTRY` holds every channel. To add one, write a function of the same kind and add an entry there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.attribute_features import AttributeFeatures, feature_names
from tgn_assets.ml.candidates.pair_features import PairFeatures, pair_feature_registry
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import AttributeColumn
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.linalg.pair_dot import pair_dot
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.linalg.sparse import only_columns, row_of, top_n_per_row
from tgn_assets.ml.linalg.topk import top_products

LINKS = ("next_week", "co_occurrence")
"""The two linear link models, in the order of their vectors in `NodeEmbeddings`."""
EMBEDDING_FEATURES = ("encoder_logit", "encoder_known", *(f"link_{name}" for name in LINKS))
"""The encoder's logit, whether it has one, and the scores of the link models. A raw score means something else each
week, so scores are z-scores among the user's candidates."""


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
    similar: csr_array  # [n, E] `PairTables.co_occurrence` of the users


class Request(NamedTuple):
    """What a channel is asked for: up to `limit` events for each of the user positions `users` [n]."""

    users: IntArray
    limit: int
    similar: csr_array  # [n, E] `PairTables.co_occurrence` of the users


class CandidateGenerator:
    """Candidates as of one cut-off, from the history of `pair_features` and the `embeddings` known then (None: none).

    What `rules` do not allow is no candidate. Dot products are computed on `device`.
    """

    def __init__(
        self,
        pair_features: PairFeatures,
        embeddings: NodeEmbeddings | None,
        *,
        device: str = "cpu",
        rules: Rules = OPEN,
        attributes: AttributeFeatures | None = None,
    ) -> None:
        history = pair_features.history
        self.pair_features, self.rules = pair_features, rules
        self.attributes = attributes or AttributeFeatures(history)
        self.allowed = rules.allowed(history)
        self.user_vectors = self.event_vectors = torch.zeros(0, 0)
        self.user_known = np.zeros(history.num_users, bool)
        self.event_known = np.zeros(history.num_events, bool)
        self.links = [(torch.zeros(history.num_users, 1), torch.zeros(history.num_events, 1)) for _ in LINKS]
        if embeddings is not None:
            user_vectors, user_known = embeddings.users_at(history.user_idx)
            event_vectors, event_known = embeddings.events_at(history.event_idx)
            self.user_vectors, self.event_vectors = user_vectors.to(device), event_vectors.to(device)
            self.user_known, self.event_known = user_known.numpy(), event_known.numpy()
            links = (x.to(device) for x in embeddings.links_at(history.user_idx, history.event_idx))
            self.links = list(zip(*(vectors.chunk(len(LINKS), dim=1) for vectors in links), strict=True))
        users, events = self.links[LINKS.index("next_week")]
        self.linked_users = users.any(1).cpu().numpy()
        self.linked_events = np.flatnonzero(events.any(1).cpu().numpy() & self.allowed)

    def candidates(self, users: IntArray, limit: int) -> Candidates:
        """The pairs of `retrieve` for user positions `users` [n], with their features."""
        row, event, channels, similar = self.retrieve(users, limit)
        features = [
            self.pair_features.features(users, row, event, similar),
            self._encoder_features(users, row, event),
            *(group_zscore(row, _dot_products(of[users], to, row, event)).astype(np.float32) for of, to in self.links),
            self.attributes.features(users[row], event),
        ]
        return Candidates(users, row, event, np.column_stack(features), channels)

    def retrieve(self, users: IntArray, limit: int) -> RetrievedPairs:
        """The union of the channels for user positions `users` [n].

        Up to `limit` events from each channel; `popular` adds half as many of the steadily popular ones.
        """
        size = self.pair_features.history.num_events
        request = Request(users, limit, self.pair_features.tables.co_occurrence(users))
        retrieved = [channel(self, request) for channel in CHANNEL_REGISTRY.values()]
        keys = [row * size + event for row, event in retrieved]
        ordered = np.sort(np.concatenate(keys))
        union = ordered[np.flatnonzero(np.diff(ordered, prepend=-1))]
        channels = np.zeros((len(union), len(keys)), bool)
        for channel, key in enumerate(keys):
            channels[np.searchsorted(union, key), channel] = True
        row, event = np.divmod(union, max(size, 1))
        permitted = self.allowed[event]
        if self.rules.exclude_own:
            permitted &= ~np.isin(users[row] * size + event, self.pair_features.tables.pair_key)
        return RetrievedPairs(row[permitted], event[permitted], channels[permitted], request.similar)

    def _encoder_features(self, users: IntArray, row: IntArray, event: IntArray) -> FloatArray:
        """[p, 2] float32: the encoder's logit, standardized for each user, and whether both nodes have an embedding."""
        user = users[row]
        known = self.user_known[user] & self.event_known[event]
        logit = np.zeros(len(user), np.float32)
        if known.any():
            both = np.flatnonzero(known)
            raw = _dot_products(self.user_vectors[users], self.event_vectors, row[both], event[both])
            logit[both] = group_zscore(row[both], raw)
        return np.column_stack([logit, known.astype(np.float32)])


def _repeat(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The user's own events of the largest weight."""
    return generator.pair_features.tables.repeats(request.users, request.limit)


def _co_occurrence(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The events that are most similar to those of the user's profile."""
    similar = only_columns(request.similar.real, generator.allowed)
    similar.eliminate_zeros()  # what is similar to recent interests alone
    similar = top_n_per_row(similar, request.limit)
    return row_of(similar), similar.indices.astype(np.int64)


def _popular(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The most popular events now, and half as many of the steadily popular ones: the same for everyone."""
    tables, users = generator.pair_features.tables, len(request.users)
    now, steady = (order[generator.allowed[order]] for order in (tables.by_popularity, tables.by_steady_popularity))
    popular = np.union1d(now[: request.limit], steady[: request.limit // 2])
    return np.repeat(np.arange(users), len(popular)), np.tile(popular, users)


def _next_week(generator: CandidateGenerator, request: Request) -> tuple[IntArray, IntArray]:
    """The events that the link model expects most in the next week, by exact search, where it has vectors."""
    rows, events = np.flatnonzero(generator.linked_users[request.users]), generator.linked_events
    if not len(rows) or not len(events):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    of_users, of_events = generator.links[LINKS.index("next_week")]
    top = top_products(of_users[request.users[rows]], of_events[events], request.limit).cpu().numpy()
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


def _dot_products(users: torch.Tensor, events: torch.Tensor, row: IntArray, event: IntArray) -> FloatArray:
    """[p] float64 `pair_dot`."""
    places = (torch.as_tensor(place, device=users.device) for place in (row, event))
    return pair_dot(users, events, *places).double().cpu().numpy()
