"""Training sets of past weeks on disk, for the weeks that learn from them again.

The ranker of each week learns from the same past weeks as the one before it, except for the oldest and the newest. A
training set does not change with time, so it is made once. It is looked up by week and by a key: the hash of everything
that it is made from, code included. A training set with another key is made again.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tgn_assets.ml.artifact_io import ArtifactError, load_artifact, load_meta, save_artifact
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.import_closure import ROOT, code_digest
from tgn_assets.ml.ranker.training_set import PointInTimeView, RankingDataset, TrainingSet
from tgn_assets.ml.weeks import week_key

logger = logging.getLogger(__name__)

SOURCE = ROOT
"""The source of `tgn_assets`, whose modules that make training sets are part of the key."""
LIBRARIES = ("numpy", "scipy", "torch")
"""Libraries that compute training sets: their versions are part of the key."""
NOT_IN_KEY = {
    *("origins", "dim", "heads", "layers", "dropout", "attribute_limit", "networks", "epochs", "warm_epochs"),
    *("preset", "patience", "learning_rate", "fit", "lambdarank", "blend", "calibration", "fallback"),
}
"""Fields of `RankerConfig` that no training set depends on; every other field is part of the key."""
CANDIDATE_FIELDS = ("users", "row", "event", "features", "channels")
DATASET_FIELDS = ("sequence", "known", "event_vectors", "label", "num_relevant")
"""Fields of `Candidates` and of `RankingDataset` that are kept."""


class TrainingSetCache:
    """Training sets in `folder`, one directory a week; without a folder none is kept. It may be deleted at any time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def get(self, week: str, key: str, make: Callable[[], TrainingSet]) -> TrainingSet:
        """The training set of the cut-off `week`, made and kept unless one with that `key` can be read."""
        if self.folder is None:
            return make()
        directory = self.folder / week
        try:
            if load_meta(directory)["key"] == key:
                return _load(directory)
        except ArtifactError as damaged:  # or missing; it can be made again
            logger.info("the training set of %s is made: %s", week, damaged)
        training_set = make()
        _save(directory, training_set, key)
        return training_set

    def holds(self, week: str, key: str) -> bool:
        """Whether there is a training set of the cut-off `week` with that `key`."""
        try:
            return self.folder is not None and bool(load_meta(self.folder / week)["key"] == key)
        except ArtifactError:
            return False

    def prune_before(self, week: str) -> None:
        """Removes the weeks that no later week learns from."""
        for directory in [] if self.folder is None or not self.folder.exists() else self.folder.iterdir():
            if directory.name < week and not directory.name.startswith("."):
                shutil.rmtree(directory)


def cache_keys(inputs: PointInTimeView, cutoffs: Iterable[int]) -> dict[int, str]:
    """The key of the training set of each week number in `cutoffs`.

    It is a hash of the rows up to the week after the cut-off; of the weekly embeddings, rules and attributes as of its
    close; of the configuration, but for `NOT_IN_KEY`, and the device; and of the code and the versions of `LIBRARIES`.
    """
    known, rules = inputs.past, inputs.rules
    shared: list[Any] = [code_digest([__name__], folder=SOURCE), *(version(name) for name in LIBRARIES), inputs.device]
    shared += [inputs.config.model_dump(exclude=NOT_IN_KEY), rules.k, rules.exclude_repeats]
    row_digests, keys = _row_digests(known), dict[int, str]()
    for week in cutoffs:
        users, events = known.first_week_of_user <= week, known.first_week_of_event <= week
        seen = [inputs.embedding_history.get(week_key(week - back)) for back in range(inputs.config.sequence)]
        parts = [
            *shared,
            row_digests.get(week + 1, ""),
            rules.allowed(known, week)[events].tobytes().hex(),
            ["-" if embeddings is None else embeddings.digest for embeddings in seen],
            inputs.attributes.digest(known.user_idx[users], known.event_idx[events], week),
        ]
        keys[week] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return keys


def _row_digests(known: InteractionHistory) -> dict[int, str]:
    """By week number, the hash of all rows up to that week; later weeks do not change it."""
    rows, digests = hashlib.blake2b(), dict[int, str]()
    columns = (known.user_idx[known.user], known.event_idx[known.event], known.week_no, known.count, known.since)
    weeks = range(int(known.week_no.min(initial=known.week)), known.week + 1)
    edges = np.searchsorted(known.week_no, [*weeks, known.week + 1])
    for week, (low, high) in zip(weeks, pairwise(edges), strict=True):
        for column in columns:
            rows.update(column[low:high].tobytes())
        digests[week] = rows.copy().hexdigest()
    return digests


def _save(directory: Path, training_set: TrainingSet, key: str) -> None:
    kept = {name: getattr(training_set, name) for name in ("user_features", "active")}
    dataset = training_set.dataset
    if dataset is not None:
        kept |= {name: getattr(dataset.candidates, name) for name in CANDIDATE_FIELDS}
        kept |= {name: getattr(dataset, name) for name in DATASET_FIELDS}
    save_artifact(directory, {name: torch.as_tensor(values) for name, values in kept.items()}, {"key": key})


def _load(directory: Path) -> TrainingSet:
    tensors, _ = load_artifact(directory)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    dataset = None
    if "label" in tensors:
        candidates = Candidates(*(arrays[name] for name in CANDIDATE_FIELDS))
        sequence, known, vectors, _, _ = (tensors[name] for name in DATASET_FIELDS)
        dataset = RankingDataset(candidates, sequence, known, vectors, arrays["label"], arrays["num_relevant"])
    return TrainingSet(dataset, arrays["user_features"], arrays["active"])
