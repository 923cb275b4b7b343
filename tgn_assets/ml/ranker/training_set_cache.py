"""What a closed week taught the ranker, kept for the weeks that learn from it again.

The ranker of each week learns from the same past weeks as the one before it, but for the oldest and the newest. What
they teach does not change with time, so it is made once. It is never looked up by week alone: the name says what it was
made from, down to the code, and whatever is made otherwise is made anew.
"""

import hashlib
import inspect
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.artifact_io import ArtifactError, load_artifact, load_meta, save_artifact
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Rules
from tgn_assets.ml.parallel import map_threaded
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView, RankingDataset, blocks_of, next_week
from tgn_assets.ml.weeks import week_key, week_number

logger = logging.getLogger(__name__)

USERS_PER_ORIGIN = 4096
"""Users learnt from per origin; a week with more of them is sampled, seeded, so that the cost of a week is bounded."""
USERS_PER_BLOCK = 256
"""Users of an origin whose candidates one thread makes at a time."""
MADE_BY = """
candidates.attribute_features candidates.pair_features candidates.pair_tables candidates.retrieval
data.attributes data.interactions data.policy encoder.embeddings
evaluation.baselines linalg.pair_dot linalg.per_user linalg.sparse ranker.training_set
"""
CODE = [import_module(f"tgn_assets.ml.{name}") for name in MADE_BY.split()]
"""The modules that a lesson is made by."""
CANDIDATES = ("users", "row", "event", "features", "channels")


@dataclass(frozen=True)
class TrainingSet:
    """One origin and the week after it. `dataset` holds the users who were then active, None if there were none to
    learn
    from; `user_features` [n, F] are those of users at the origin, active or not, and `active` [n] whether they were."""

    dataset: RankingDataset | None
    user_features: np.ndarray
    active: np.ndarray


def build_training_set(known: InteractionHistory, view: PointInTimeView, seed: int) -> TrainingSet:
    """The lesson of `view`, with the week after it as `known` has it."""
    truth = next_week(known, view.past)
    users = np.flatnonzero(truth[2])
    dataset = _dataset(view, sampled(users, seed), truth) if len(users) else None
    anyone = sampled(np.arange(view.past.num_users), seed)
    features = view.candidate_generator.pair_features.user_features[anyone]
    return TrainingSet(dataset if dataset is not None and len(dataset.label) else None, features, truth[2][anyone] > 0)


def sampled(users: np.ndarray, seed: int, size: int = USERS_PER_ORIGIN) -> np.ndarray:
    """At most `size` of `users`, in order."""
    if len(users) <= size:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, size, replace=False))


class TrainingSetCache:
    """Lessons in `folder`, one directory a week; without a folder none is kept. It may be deleted at any time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def get(self, week: str, name: str, make: Callable[[], TrainingSet]) -> TrainingSet:
        """The lesson of the origin `week`, made and kept unless one of that `name` is there and can be read."""
        if self.folder is None:
            return make()
        directory = self.folder / week
        try:
            if load_meta(directory)["name"] == name:
                return _load(directory)
        except ArtifactError as damaged:  # or not there: what can be made again is no reason to fail
            logger.info("the lesson of %s is made: %s", week, damaged)
        training_set = make()
        _save(directory, training_set, name)
        return training_set

    def holds(self, week: str, name: str) -> bool:
        """Whether the lesson of the origin `week` is there under `name`, and `get` need not make it."""
        if self.folder is None:
            return False
        try:
            return bool(load_meta(self.folder / week)["name"] == name)
        except ArtifactError:
            return False

    def forget_before(self, week: str) -> None:
        """Removes what no later week learns from."""
        for directory in [] if self.folder is None or not self.folder.exists() else self.folder.iterdir():
            if directory.name < week and not directory.name.startswith("."):
                shutil.rmtree(directory)


def cache_keys(
    known: InteractionHistory,
    weeks: Iterable[int],
    embedding_history: EmbeddingHistory,
    config: RankerConfig,
    device: str,
    rules: Rules,
    attributes: AttributeTables = NO_ATTRIBUTES,
) -> dict[int, str]:
    """What the lesson of each origin in `weeks` is made from, as a digest: the rows up to the week after it, the weekly
    embeddings, rules and side tables as of its close, the settings that matter, and the code."""
    made_by = [inspect.getsource(module) for module in CODE] + [np.__version__, torch.__version__, device]
    made_by += [str(x) for x in (config.sequence, config.candidates, config.features, config.seed, USERS_PER_ORIGIN)]
    made_by += [str(rules.k), str(rules.exclude_own)]
    digests, found = _row_digests(known), dict[int, str]()
    for week in weeks:
        users, events = known.first_week_of_user <= week, known.first_week_of_event <= week
        seen = [embedding_history.get(week_key(week - back)) for back in range(config.sequence)]
        parts = [*made_by, digests.get(week + 1, ""), rules.allowed(known, week)[events].tobytes().hex()]
        parts += ["-" if embeddings is None else embeddings.digest for embeddings in seen]
        parts.append(attributes.digest(known.user_idx[users], known.event_idx[events], week))
        found[week] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return found


def _row_digests(known: InteractionHistory) -> dict[int, str]:
    """By week number, the digest of all rows up to the week: taken week by week, so that it does not depend on how many
    weeks follow."""
    rows, digests = hashlib.blake2b(), dict[int, str]()
    columns = (known.user_idx[known.user], known.event_idx[known.event], known.week_no, known.count, known.since)
    weeks = range(int(known.week_no.min(initial=known.week)), known.week + 1)
    edges = np.searchsorted(known.week_no, [*weeks, known.week + 1])
    for week, (low, high) in zip(weeks, pairwise(edges), strict=True):
        for column in columns:
            rows.update(column[low:high].tobytes())
        digests[week] = rows.copy().hexdigest()
    return digests


def oldest_cutoff(embedding_history: EmbeddingHistory, now: int, config: RankerConfig) -> int:
    """The first week whose lesson the ranker of week number `now` learns."""
    return max(min((week_number(key) for key in embedding_history), default=now), now - 1 - config.origins)


def _dataset(
    view: PointInTimeView, users: np.ndarray, truth: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> RankingDataset:
    """`view.frame` of `users`, made in blocks side by side."""
    view.ready()
    parts = list(map_threaded(lambda block: view.dataset(block, truth), blocks_of(users, USERS_PER_BLOCK)))
    return RankingDataset(
        Candidates(
            users,
            np.concatenate([part.candidates.row + at * USERS_PER_BLOCK for at, part in enumerate(parts)]),
            *(np.concatenate([getattr(part.candidates, name) for part in parts]) for name in CANDIDATES[2:]),
        ),
        torch.cat([part.sequence for part in parts]),
        torch.cat([part.known for part in parts]),
        parts[0].event_vectors,
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.num_relevant for part in parts]),
    )


def _save(directory: Path, training_set: TrainingSet, name: str) -> None:
    tensors: dict[str, Tensor] = {
        "user_features": torch.from_numpy(training_set.user_features),
        "active": torch.from_numpy(training_set.active),
    }
    dataset = training_set.dataset
    if dataset is not None:
        tensors |= {column: torch.from_numpy(getattr(dataset.candidates, column)) for column in CANDIDATES}
        tensors |= {"sequence": dataset.sequence, "known": dataset.known, "event_vectors": dataset.event_vectors}
        tensors |= {"label": torch.from_numpy(dataset.label), "num_relevant": torch.from_numpy(dataset.num_relevant)}
    save_artifact(directory, tensors, {"name": name})


def _load(directory: Path) -> TrainingSet:
    tensors, _ = load_artifact(directory)
    arrays = {column: tensor.numpy() for column, tensor in tensors.items()}
    dataset = None
    if "label" in tensors:
        dataset = RankingDataset(
            Candidates(*(arrays[column] for column in CANDIDATES)),
            tensors["sequence"],
            tensors["known"],
            tensors["event_vectors"],
            arrays["label"],
            arrays["num_relevant"],
        )
    return TrainingSet(dataset, arrays["user_features"], arrays["active"])
