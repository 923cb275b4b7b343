"""One origin as the ranker sees it: candidates with their evidence, weekly embeddings, and the week after as labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.candidates.attribute_features import AttributeFeatures
from tgn_assets.ml.candidates.pair_features import PairFeatures
from tgn_assets.ml.candidates.retrieval import CandidateGenerator, Candidates, RetrievedPairs
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.weeks import week_key

EmbeddingHistory = Mapping[str, NodeEmbeddings]
"""Week key -> the embeddings as they were known at the close of that week."""


@dataclass(frozen=True)
class RankingDataset:
    """Users of one origin with their candidates, and what they did in the week after."""

    candidates: Candidates
    sequence: Tensor  # [n, L, d] weekly embeddings of each user, oldest first
    known: Tensor  # [n, L] bool: the user had one in that week
    event_vectors: Tensor  # [E, d] embeddings of all event positions at the origin
    label: np.ndarray  # [p] bool: the pair was touched in the week after
    num_relevant: np.ndarray  # [n] distinct events of the user in the week after, unreachable ones included

    @cached_property
    def has_positive(self) -> np.ndarray:
        """[n] bool: the user touched a candidate. Of the others nothing can be learnt: no order of theirs is better."""
        return np.bincount(self.candidates.row, self.label, len(self.num_relevant)) > 0

    @cached_property
    def _start(self) -> np.ndarray:
        """[n + 1] position of each user's first candidate."""
        return np.searchsorted(self.candidates.row, np.arange(len(self.num_relevant) + 1))

    def pairs_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the candidate pairs of `rows`, for each pair the place of its row in `rows`)."""
        size = np.diff(self._start)[rows]
        place = np.repeat(np.arange(len(rows)), size)
        offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        return self._start[rows][place] + offset, place


class PointInTimeView:
    """What the close of `past.week` knew, ready to be asked for any users: build it once, read it in blocks.

    Candidates are what `rules` allow for the week after. Of `attributes` the rows are read that counted then.
    """

    def __init__(
        self,
        past: InteractionHistory,
        embedding_history: EmbeddingHistory,
        config: RankerConfig,
        device: str = "cpu",
        rules: Rules = OPEN,
        attributes: AttributeTables = NO_ATTRIBUTES,
    ) -> None:
        self.past, self.config, self.rules, self.attributes, self.device = past, config, rules, attributes, device
        self.week = week_key(past.week)
        weeks = [week_key(past.week - back) for back in reversed(range(config.sequence))]
        self.weekly = [embedding_history.get(week) for week in weeks]
        self.width = next((e.users.shape[1] for e in embedding_history.values()), 1)

    @cached_property
    def candidate_generator(self) -> CandidateGenerator:
        """Candidates and their features; who only asks for the weekly embeddings does not pay for them."""
        return CandidateGenerator(
            PairFeatures(self.past, self.config.features),
            self.weekly[-1],
            device=self.device,
            rules=self.rules,
            attributes=AttributeFeatures(self.past, self.attributes, self.config.features),
        )

    def ready(self) -> "PointInTimeView":
        """Itself with `candidate_generator` built, by all threads there are, before blocks of users share it."""
        _ = self.candidate_generator
        return self

    def sequence(self, users: np.ndarray) -> tuple[Tensor, Tensor]:
        """([n, L, d], [n, L] bool) weekly embeddings of user positions `users`, zero where a week has none."""
        parts = []
        for embeddings in self.weekly:
            if embeddings is None:
                parts.append((torch.zeros(len(users), self.width), torch.zeros(len(users), dtype=torch.bool)))
            else:
                parts.append(embeddings.users_at(self.past.user_idx[users]))
        return torch.stack([vectors for vectors, _ in parts], dim=1), torch.stack([known for _, known in parts], dim=1)

    def event_vectors(self) -> Tensor:
        """[E, d] event embeddings at the origin, zero where the week has none."""
        newest = self.weekly[-1]
        if newest is None:
            return torch.zeros(self.past.num_events, self.width)
        return newest.events_at(self.past.event_idx)[0]

    def candidates(self, users: np.ndarray) -> Candidates:
        """What there is to rank for user positions `users`; each channel gives no less than a list holds."""
        return self.candidate_generator.candidates(users, self._limit)

    def retrieve(self, users: np.ndarray) -> RetrievedPairs:
        """The pairs of `candidates`, for who only counts them: without their features."""
        return self.candidate_generator.retrieve(users, self._limit)

    @property
    def _limit(self) -> int:
        return max(self.config.candidates, self.rules.k)

    def dataset(self, users: np.ndarray, truth: tuple[np.ndarray, np.ndarray, np.ndarray]) -> RankingDataset:
        """The frame of user positions `users` with `truth` from `next_week`."""
        candidates = self.candidates(users)
        user, event, size = truth
        touched = user * self.past.num_events + event
        label = np.isin(users[candidates.row] * self.past.num_events + candidates.event, touched)
        return RankingDataset(candidates, *self.sequence(users), self.event_vectors(), label, size[users])


def next_week(history: InteractionHistory, past: InteractionHistory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(user, event) positions in `past` of the pairs touched in the week after it, and [U] how many each user touched.

    Pairs with a user or event that `past` does not know are left out; an unknown event still counts in the last array.
    """
    user, event = history.in_week(past.week + 1)
    user, user_known = _position(past.user_idx, history.user_idx[user])
    event, event_known = _position(past.event_idx, history.event_idx[event])
    size = np.bincount(user[user_known], minlength=past.num_users)
    both = user_known & event_known
    return user[both], event[both], size


def blocks_of(users: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`users` in consecutive pieces of at most `size`."""
    for low in range(0, len(users), size):
        yield users[low : low + size]


def _position(known: np.ndarray, idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.searchsorted(known, idx).clip(max=max(len(known) - 1, 0))
    return at, known[at] == idx if len(known) else np.zeros(len(idx), bool)
