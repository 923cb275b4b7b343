"""What the ranker learns from: closed weeks as they were known then, with the week after each as labels.

A cut-off is the close of a week. What the ranker reads of it was known at that moment: the history, and the embeddings
that the encoder of that week gave. What it learns to predict is the distinct events of each user in the week after.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
from tgn_assets.ml.candidates.retrieval import CandidateGenerator, Candidates, UserShard, user_shard
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory, entries_of
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.linalg.lookup import look_up
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.weeks import week_key, week_number

TRAINING_SHARD = 256
"""Users whose candidates one worker makes at a time."""
CHOOSING = 4
"""With a single past week, every fourth user is held out to choose the number of epochs."""

EmbeddingHistory = Mapping[str, NodeEmbeddings]
"""Week key -> the embeddings as they were known at the close of that week."""


@dataclass(frozen=True)
class Truth:
    """What happened in the week after a cut-off, by positions in the history of the cut-off."""

    user: IntArray  # [m] distinct (user, event) pairs whose user and event were known at the cut-off, ascending
    event: IntArray  # [m]
    num_relevant: IntArray  # [U] distinct events of each user, those that were not known yet included

    @cached_property
    def _start(self) -> IntArray:
        return np.searchsorted(self.user, np.arange(len(self.num_relevant) + 1))

    def of_users(self, users: IntArray) -> tuple[IntArray, IntArray]:
        """(row in the user positions `users`, event position) of the pairs of `users`."""
        row, pair = entries_of(self._start, users)
        return row, self.event[pair]


class LabelledUsers(NamedTuple):
    """Some users at a cut-off, and the pairs (row in them, event position) of the week after."""

    shard: UserShard
    row: IntArray
    event: IntArray


def labelled_candidates(shared: tuple[CandidateGenerator, int], users: LabelledUsers) -> tuple[Candidates, BoolArray]:
    """(the candidates of `users`, [p] whether the user interacted with each in the week after).

    `shared` is the event side of the cut-off, and how many events each channel gives.
    """
    generator, limit = shared
    candidates, num_events = generator.candidates(users.shard, limit), generator.catalogue.num_events
    positive = users.row * num_events + users.event
    return candidates, np.isin(candidates.row * num_events + candidates.event, positive)


@dataclass(frozen=True)
class RankingDataset:
    """Users at one cut-off with their candidates, and what they did in the week after."""

    candidates: Candidates
    sequence: Tensor  # [n, L, d] weekly embeddings of each user, oldest first
    known: Tensor  # [n, L] bool: the user had one in that week
    event_vectors: Tensor  # [E, d] embeddings of all event positions at the cut-off
    label: BoolArray  # [p] the user interacted with the event in the week after
    num_relevant: IntArray  # [n] distinct events of the user in the week after, those that are no candidates included

    @cached_property
    def has_positive(self) -> BoolArray:
        """[n] bool: the user interacted with a candidate. Users without a positive candidate carry no loss."""
        return np.bincount(self.candidates.row, self.label, len(self.num_relevant)) > 0

    def keep_candidates_with_loss(self) -> "RankingDataset":
        """The dataset without the candidates of users who have no positive one, often half of all; no user is
        dropped. All of it is a copy: the file that the dataset was read from need not stay mapped."""
        of, keep = self.candidates, self.has_positive[self.candidates.row]
        return RankingDataset(
            Candidates(of.users.copy(), of.row[keep], of.event[keep], of.features[keep], of.channels[keep]),
            self.sequence.clone(),
            self.known.clone(),
            self.event_vectors.clone(),
            self.label[keep],
            self.num_relevant.copy(),
        )

    def of_rows(self, rows: IntArray) -> "RankingDataset":
        """The dataset of the users `rows`."""
        pairs, row = self.pairs_of(rows)
        of = self.candidates
        candidates = Candidates(of.users[rows], row, of.event[pairs], of.features[pairs], of.channels[pairs])
        users = torch.as_tensor(rows)
        return RankingDataset(
            candidates,
            self.sequence[users],
            self.known[users],
            self.event_vectors,
            self.label[pairs],
            self.num_relevant[rows],
        )

    @cached_property
    def _start(self) -> IntArray:
        """[n + 1] position of each user's first candidate."""
        return np.searchsorted(self.candidates.row, np.arange(len(self.num_relevant) + 1))

    def pairs_of(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """(positions of the candidate pairs of `rows`, for each pair the index of its user in `rows`)."""
        row, pairs = entries_of(self._start, rows)
        return pairs, row


@dataclass(frozen=True)
class TrainingSet:
    """What one cut-off teaches.

    `dataset` holds users who were active in the week after; None if there were none with candidates. `user_features`
    [n, F] are those of a sample of all users at the cut-off; `active` [n] says whether they were active in the week
    after.
    """

    dataset: RankingDataset | None
    user_features: FloatArray
    active: BoolArray

    def keep_candidates_with_loss(self) -> "TrainingSet":
        """A copy of the training set without the candidates that carry no loss."""
        dataset = None if self.dataset is None else self.dataset.keep_candidates_with_loss()
        return TrainingSet(dataset, self.user_features.copy(), self.active.copy())


@dataclass(frozen=True)
class PointInTimeView:
    """What was known at the close of `past.week`, for any users: build it once, read it in blocks.

    Candidates are what `rules` allow for the week after. Of `attributes` it reads the rows that were valid then.
    """

    past: InteractionHistory
    embedding_history: EmbeddingHistory
    config: RankerConfig
    device: str = "cpu"
    rules: Rules = NO_RULES
    attributes: AttributeTables = NO_ATTRIBUTES

    @property
    def week(self) -> str:
        """The week that had just closed."""
        return week_key(self.past.week)

    @property
    def oldest_cutoff(self) -> int:
        """The first week number that a ranker learns from: `config.origins` + 1 back, or where embeddings begin."""
        now = self.past.week
        return max(min(map(week_number, self.embedding_history), default=now), now - 1 - self.config.origins)

    def as_of(self, cutoff: int) -> "PointInTimeView":
        """What was known at the close of week number `cutoff`."""
        return replace(self, past=self.past.as_of(cutoff))

    @cached_property
    def weekly(self) -> list[NodeEmbeddings | None]:
        """The embeddings of the last `config.sequence` weeks, oldest first; None where a week has none."""
        return [self.embedding_history.get(week_key(self.past.week - n)) for n in reversed(range(self.config.sequence))]

    @cached_property
    def generator(self) -> CandidateGenerator:
        """Candidates and their features, built when first asked for: the weekly embeddings alone cost little."""
        return CandidateGenerator(
            self.past,
            self.weekly[-1],
            config=self.config.features,
            device=self.device,
            rules=self.rules,
            attributes=self.attributes,
        )

    @property
    def limit(self) -> int:
        """Events that each channel of candidates gives: at least as many as a list holds."""
        return max(self.config.candidates, self.rules.k)

    def shard(self, users: IntArray) -> UserShard:
        """What `generator` makes the candidates of user positions `users` from."""
        return user_shard(self.past, self.weekly[-1], users)

    def sequence(self, users: IntArray) -> tuple[Tensor, Tensor]:
        """([n, L, d], [n, L] bool) weekly embeddings of user positions `users`, zero where a week has none."""
        none = torch.zeros(len(users), embedding_width(self.embedding_history)), torch.zeros(len(users)).bool()
        idx = self.past.user_idx[users]
        parts = [none if embeddings is None else embeddings.users_at(idx) for embeddings in self.weekly]
        vectors, known = (torch.stack(part, dim=1) for part in zip(*parts, strict=True))
        return vectors, known

    def event_vectors(self) -> Tensor:
        """[E, d] event embeddings at the cut-off, zero where the week has none."""
        newest = self.weekly[-1]
        if newest is None:
            return torch.zeros(self.past.num_events, embedding_width(self.embedding_history))
        return newest.events_at(self.past.event_idx)[0]

    def candidates(self, users: IntArray) -> Candidates:
        """The candidates of user positions `users`."""
        return self.generator.candidates(self.shard(users), self.limit)

    def labelled(self, users: IntArray, truth: Truth) -> LabelledUsers:
        """User positions `users` with what they did in the week after."""
        return LabelledUsers(self.shard(users), *truth.of_users(users))

    def dataset(self, users: IntArray, truth: Truth, workers: Workers = THREADS) -> RankingDataset:
        """User positions `users` with their candidates, labelled by `truth`."""
        shards = (self.labelled(block, truth) for block in blocks_of(users, TRAINING_SHARD))
        pairs, labels = zip(*workers.map(labelled_candidates, (self.generator, self.limit), shards), strict=True)
        row = np.concatenate([of.row + at * TRAINING_SHARD for at, of in enumerate(pairs)])
        columns = (np.concatenate([getattr(of, name) for of in pairs]) for name in ("event", "features", "channels"))
        return RankingDataset(
            Candidates(users, row, *columns),
            *self.sequence(users),
            self.event_vectors(),
            np.concatenate(labels),
            truth.num_relevant[users],
        )


def split_to_choose_epoch(datasets: Sequence[RankingDataset]) -> tuple[list[RankingDataset], RankingDataset]:
    """(what networks to be judged are fitted to, what chooses their number of epochs): the newest of `datasets`, or
    every fourth user of the only one; that is itself if it has fewer than four, or the others teach nothing."""
    *older, newest = datasets
    if older:
        return older, newest
    user = np.arange(len(newest.num_relevant))
    chooses = user % CHOOSING == CHOOSING - 1
    if not chooses.any() or not newest.has_positive[~chooses].any():
        return [newest], newest
    return [newest.of_rows(user[~chooses])], newest.of_rows(user[chooses])


def embedding_width(embedding_history: EmbeddingHistory) -> int:
    """Width of the user embeddings; 1 where there are none."""
    return next((embeddings.users.shape[1] for embeddings in embedding_history.values()), 1)


def truth_after(history: InteractionHistory, past: InteractionHistory) -> Truth:
    """What happened in the week after `past`, according to `history`."""
    user, event = history.in_week(past.week + 1)
    user, user_known = look_up(past.user_idx, history.user_idx[user])
    event, event_known = look_up(past.event_idx, history.event_idx[event])
    size = np.bincount(user[user_known], minlength=past.num_users)
    both = user_known & event_known
    return Truth(user[both], event[both], size)


def build_training_set(history: InteractionHistory, view: PointInTimeView, workers: Workers) -> TrainingSet:
    """The training set of the cut-off `view`, with the week after it as `history` has it."""
    truth, size, seed = truth_after(history, view.past), view.config.users_per_cutoff, view.config.seed
    anyone = sampled(np.arange(view.past.num_users), size, seed)
    features = view.generator.user_features(view.past.of_users(anyone))
    active = sampled(np.flatnonzero(truth.num_relevant), size, seed)
    dataset = view.dataset(active, truth, workers) if len(active) else None
    has_pairs = dataset is not None and len(dataset.label) > 0
    return TrainingSet(dataset if has_pairs else None, features, truth.num_relevant[anyone] > 0)


def sampled(users: IntArray, size: int, seed: int) -> IntArray:
    """At most `size` of `users`, in order: of more, some are drawn, by `seed`."""
    if len(users) <= size:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, size, replace=False))


def blocks_of(users: IntArray, size: int) -> Iterator[IntArray]:
    """`users` in consecutive pieces of at most `size`."""
    for low in range(0, len(users), size):
        yield users[low : low + size]
