"""Candidates: the few events per user that are worth ranking, from several recall channels, and their features."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array

from tgn_assets.ml.candidates.attribute_features import AttributeFeatures
from tgn_assets.ml.candidates.pair_features import FEATURES, PairFeatures
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.linalg.pair_dot import pair_dot
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.linalg.sparse import only_columns, top_n_per_row
from tgn_assets.ml.linalg.topk import top_products

CHANNELS = ("repeat", "co_occurrence", "popular", "next_week")
LINKS = ("follows", "together")
PAIR_FEATURES = (*FEATURES, "tower", "tower_known", *LINKS)
"""Columns of `Candidates.features`: the pair evidence, then the graph encoder's logit and whether it has one, then what
its linear part expects (`link_regression`). Both are standard deviations above the mean of the user's candidates: a raw
logit means something else each week. What side tables say comes after them."""


@dataclass(frozen=True)
class Candidates:
    """Pairs to rank: user `users[row]` with event position `event`; sorted by row, then event."""

    users: np.ndarray  # [n] user positions
    row: np.ndarray  # [p]
    event: np.ndarray  # [p]
    features: np.ndarray  # [p, len(PAIR_FEATURES), and the side tables'] float32
    channels: np.ndarray  # [p, len(CHANNELS)] bool: which channels brought the pair


class RetrievedPairs(NamedTuple):
    """Pairs (row in the users, event position), sorted, and which channels brought each; `near` is what
    `PairFeatures` has
    as `cooccurring` of the users."""

    row: np.ndarray  # [p]
    event: np.ndarray  # [p]
    channels: np.ndarray  # [p, len(CHANNELS)] bool
    near: csr_array


class CandidateGenerator:
    """Candidates as of one origin: `pair_features` of its history and the `embeddings` known then (None: no tower).

    What `rules` do not allow is no candidate. Logits are computed on `device`.
    """

    def __init__(
        self,
        pair_features: PairFeatures,
        embeddings: NodeEmbeddings | None,
        device: str = "cpu",
        rules: Rules = OPEN,
        attributes: AttributeFeatures | None = None,
    ) -> None:
        self.pair_features, self.rules, self.attributes = (
            pair_features,
            rules,
            attributes or AttributeFeatures(pair_features.history),
        )
        self.allowed = rules.allowed(pair_features.history)
        history = pair_features.history
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
        follows_users, follows_events = self.links[0]
        self.followers = follows_users.any(1).cpu().numpy()
        self.followed = np.flatnonzero(follows_events.any(1).cpu().numpy() & self.allowed)

    def candidates(self, users: np.ndarray, limit: int) -> Candidates:
        """What is `found` for user positions `users` [n], with its features."""
        row, event, channels, near = self.retrieve(users, limit)
        features = [self.pair_features.features(users, row, event, near), self._tower(users, row, event)]
        features.append(self._links(users, row, event))
        features.append(self.attributes.features(users[row], event))
        return Candidates(users, row, event, np.column_stack(features), channels)

    def retrieve(self, users: np.ndarray, limit: int) -> RetrievedPairs:
        """The union of the channels for user positions `users` [n], up to `limit` events from each channel."""
        pair_features, size = self.pair_features, self.pair_features.history.num_events
        near = pair_features.cooccurring(users)
        closest = only_columns(near.real, self.allowed)
        closest.eliminate_zeros()  # what is near the latest events alone is no candidate of this channel
        closest = top_n_per_row(closest, limit)
        now, steady = (
            order[self.allowed[order]] for order in (pair_features.by_popularity, pair_features.by_steady_popularity)
        )
        popular = np.union1d(now[:limit], steady[: limit // 2])
        everyone = np.arange(len(users))
        brought = [
            pair_features.own(users, limit),
            (np.repeat(everyone, np.diff(closest.indptr)), closest.indices.astype(np.int64)),
            (np.repeat(everyone, len(popular)), np.tile(popular, len(users))),
            self._follows_top(users, limit),
        ]
        keys = [row * size + event for row, event in brought]
        ordered = np.sort(np.concatenate(keys))
        union = ordered[np.flatnonzero(np.diff(ordered, prepend=-1))]
        channels = np.zeros((len(union), len(keys)), bool)
        for channel, key in enumerate(keys):
            channels[np.searchsorted(union, key), channel] = True
        permitted = self._permitted(users, union)
        row, event = np.divmod(union[permitted], max(size, 1))
        return RetrievedPairs(row, event, channels[permitted], near)

    def _permitted(self, users: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """bool: the rules leave the pair, given as row * events + event."""
        row, event = np.divmod(keys, max(self.pair_features.history.num_events, 1))
        kept = self.allowed[event]
        if self.rules.exclude_own:
            kept &= ~np.isin(users[row] * self.pair_features.history.num_events + event, self.pair_features.pair_key)
        return kept

    def _follows_top(self, users: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, event) of the `limit` events that are most expected to follow, exactly, for the users and among the
        events of which something is known."""
        (of_users, of_events), rows = self.links[0], np.flatnonzero(self.followers[users])
        if not len(rows) or not len(self.followed):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        top = top_products(of_users[users[rows]], of_events[self.followed], limit).cpu().numpy()
        return np.repeat(rows, top.shape[1]), self.followed[top.ravel()]

    def _links(self, users: np.ndarray, row: np.ndarray, event: np.ndarray) -> np.ndarray:
        """[p, len(LINKS)] float32"""
        columns = [group_zscore(row, _products(of[users], to, row, event)) for of, to in self.links]
        return np.column_stack(columns).astype(np.float32)

    def _tower(self, users: np.ndarray, row: np.ndarray, event: np.ndarray) -> np.ndarray:
        user = users[row]
        known = self.user_known[user] & self.event_known[event]
        logit = np.zeros(len(user), np.float32)
        if known.any():
            both = np.flatnonzero(known)
            raw = _products(self.user_vectors[users], self.event_vectors, row[both], event[both])
            logit[both] = group_zscore(row[both], raw)
        return np.column_stack([logit, known.astype(np.float32)])


def _products(users: torch.Tensor, events: torch.Tensor, row: np.ndarray, event: np.ndarray) -> np.ndarray:
    """[p] float64 `pair_dot`."""
    places = (torch.as_tensor(place, device=users.device) for place in (row, event))
    return pair_dot(users, events, *places).double().cpu().numpy()
