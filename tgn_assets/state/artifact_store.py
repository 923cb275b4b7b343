"""Artifacts by asset and week, in `<root>/<asset>/<week>/`, and the model and embeddings that belong together."""

from __future__ import annotations

import json
import pkgutil
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.weeks import is_week, shift

if TYPE_CHECKING:
    from tgn_assets.ml.data.interactions import InteractionHistory
    from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
    from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint

TYPES = {
    "weekly_snapshots": "tgn_assets.ml.graph.snapshots:Snapshot",
    "trained_gnn": "tgn_assets.ml.encoder.checkpoint:GNNCheckpoint",
    "trained_ranker": "tgn_assets.ml.ranker.checkpoint:RankerCheckpoint",
    "temporal_embeddings": "tgn_assets.ml.encoder.embeddings:NodeEmbeddings",
}
"""The type of each asset's artifacts, by name: importing the types imports torch, which takes seconds."""

MODELS = tuple(asset for asset in TYPES if asset != "weekly_snapshots")
"""The assets whose old weeks `remove_old` removes."""
PIN, KEPT_FROM = "pinned.json", "kept_from.json"
ABANDONED = 3600.0
"""Seconds after which a file that was to replace another belongs to a process that is gone."""


class ArtifactStore:
    """The artifacts under `root`. Their types have `.save(directory)` and a classmethod `.load(directory)`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def training_sets(self) -> Path:
        """The folder of `ml.ranker.training_set_cache`; it may be deleted at any time."""
        return self.root / "training_sets"

    def directory(self, asset: str, week: str) -> Path:
        """The folder of the artifact of `asset` for `week`, which need not exist."""
        return self.root / asset / week

    def scratch(self, asset: str, week: str) -> Path:
        """A folder for what a run needs while it makes the artifact; the next run's `sweep` removes it."""
        return self.root / asset / f".{week}.scratch"

    def weeks(self, asset: str) -> list[str]:
        """The weeks for which there is an artifact of `asset`, oldest first; a folder without its meta.json is none."""
        folder = self.root / asset
        there = folder.iterdir() if folder.is_dir() else ()
        return sorted(path.name for path in there if is_week(path.name) and (path / "meta.json").exists())

    def save(self, asset: str, week: str, artifact: Any) -> None:
        """Writes or replaces the artifact of `asset` for `week`, as a whole."""
        artifact.save(self.directory(asset, week))
        _remove(self.scratch(asset, week))

    def load(self, asset: str, week: str) -> Any:
        """The artifact of `asset` for `week`; ArtifactError if it is missing, damaged or outdated."""
        from tgn_assets.ml.artifact_io import as_artifact_error

        directory = self.directory(asset, week)
        with as_artifact_error(directory):
            return pkgutil.resolve_name(TYPES[asset]).load(directory)

    def sweep(self) -> None:
        """Removes what a killed process left half done, and puts back what it had moved away. Hold the run lock."""
        for left in self.root.glob("*/.*"):
            week = left.name.split(".")[1]
            if left.name.endswith(".old") and is_week(week) and not self.directory(left.parent.name, week).exists():
                left.rename(self.directory(left.parent.name, week))
            elif is_week(week):
                _remove(left)
        long_ago, home = time.time() - ABANDONED, self.root.parent
        folders = home, home / "reports", home / "dagster", self.root
        for left in (path for folder in folders for path in folder.glob("*.new")):
            with suppress(OSError):  # another process may have replaced its file by now
                if left.stat().st_mtime < long_ago:
                    left.unlink()

    def oldest_kept(self, keep: int | None) -> str | None:
        """The first of the newest `keep` weeks of models, or an earlier one that is pinned; None: all are kept."""
        trained = self.weeks("trained_ranker")
        if keep is None or not trained:
            return None
        return min(shift(trained[-1], 1 - keep), self.pinned() or trained[-1])

    def remove_old(self, keep: int | None, *, but: str | None = None) -> None:
        """Removes the models before `oldest_kept`, `but` those of the week that is being made; snapshots stay.

        Hold the run lock.
        """
        oldest = self.oldest_kept(keep) or ""
        old = [
            self.directory(asset, week)
            for asset in MODELS
            for week in self.weeks(asset)
            if week < oldest and week != but
        ]
        if old:
            self._store_week(KEPT_FROM, oldest)
        for directory in old:
            left = directory.with_name(f".{directory.name}.removed")
            directory.rename(left)  # a model is there as a whole or not at all
            _remove(left)

    def kept_from(self) -> str:
        """The first week whose models were kept when earlier ones were removed; empty if none ever was."""
        try:
            return str(json.loads((self.root / KEPT_FROM).read_text("utf-8"))["week"])
        except (OSError, ValueError, KeyError, TypeError):  # it can only tell that a missing model is no fault
            return ""

    def is_outdated(self, asset: str, week: str) -> bool:
        """Whether the artifact is there in a format of an earlier version, which this one does not read."""
        from tgn_assets.ml.artifact_io import is_outdated

        return is_outdated(self.directory(asset, week))

    def pinned(self) -> str | None:
        """The week whose ranker is pinned, if one is."""
        from tgn_assets.ml.artifact_io import ArtifactError

        try:
            if is_week(week := json.loads((self.root / PIN).read_text("utf-8"))["week"]):
                return week
            raise ValueError(week)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self.root / PIN} is damaged; run `tgn models pin` or `tgn models unpin`") from error

    def pin(self, week: str | None) -> None:
        """From now on, publish the lists of `week` and later weeks from the ranker of `week`; None: from their own."""
        if week is None:
            (self.root / PIN).unlink(missing_ok=True)
            return
        self._store_week(PIN, week)

    def _store_week(self, name: str, week: str) -> None:
        """Makes the file `name` name the `week`."""
        replace_text(self.root / name, json.dumps({"week": week}) + "\n")

    def model_week(self, week: str) -> str:
        """The week whose ranker makes the lists of `week`: its own or an earlier, pinned one."""
        pinned = self.pinned()
        return pinned if pinned is not None and pinned < week else week

    def load_weeks(self, asset: str, weeks: Iterable[str]) -> dict[str, Any]:
        """The artifacts of `asset` for those of `weeks` that have one, oldest first."""
        return {week: self.load(asset, week) for week in sorted(set(weeks).intersection(self.weeks(asset)))}


def load_embedding_history(store: ArtifactStore, week: str, limit: int) -> dict[str, NodeEmbeddings]:
    """`chained_embeddings` of the checkpoints in `store`, as far back as they are kept (`ArtifactStore.remove_old`).

    ArtifactError if a link is missing.
    """
    from tgn_assets.ml.encoder.checkpoint import chained_embeddings

    return chained_embeddings(partial(store.load, "trained_gnn"), week, limit, kept_from=store.kept_from())


class TrainedModel(NamedTuple):
    """A ranker, and its temporal embeddings of the week whose lists it makes."""

    ranker: RankerCheckpoint
    embeddings: NodeEmbeddings


def publishing_model(
    store: ArtifactStore, history: InteractionHistory, week: str, model_week: str, device: str
) -> TrainedModel:
    """The ranker of `model_week` for the lists of `week`, neither trained nor changed.

    Its embeddings are of the nodes of `history`, which may have changed since those of `week` were made.
    ArtifactError if it is missing, or was trained on another chain of embeddings than that of `week`.
    """
    from tgn_assets.ml.ranker.checkpoint import temporal_embeddings

    ranker = store.load("trained_ranker", model_week)
    if model_week == week:
        made = store.load("temporal_embeddings", week)
        if made.fits(history.user_idx, history.event_idx):
            return TrainedModel(ranker, made)
    _check_chain(store, week, model_week)
    embedding_history = load_embedding_history(store, week, ranker.config.sequence)
    return TrainedModel(ranker, temporal_embeddings(ranker, history, embedding_history, device=device))


def check_publishable(store: ArtifactStore, week: str, model_week: str) -> None:
    """ArtifactError unless the ranker of `model_week` can make the lists of `week`, which has an encoder."""
    from tgn_assets.ml.ranker.checkpoint import load_model

    load_model(store.load("trained_ranker", model_week))
    store.load("trained_gnn", model_week)
    _check_chain(store, week, model_week)


def _check_chain(store: ArtifactStore, week: str, model_week: str) -> None:
    """ArtifactError unless the encoders of `model_week` and `week` are of one chain of warm starts, which one of them
    leaves if it is run again and starts cold.
    """
    from tgn_assets.ml.artifact_io import ArtifactError, load_meta

    link: str | None = week
    while link is not None and link > model_week:
        link = load_meta(store.directory("trained_gnn", link))["warm_from"]
    chains = {load_meta(store.directory("trained_gnn", of)).get("chain") for of in (week, model_week)}
    if link != model_week or len(chains) > 1:
        raise ArtifactError(
            f"the ranker of {model_week} cannot make the lists of {week}: the encoder had a cold start since, so that "
            f"its embeddings are not comparable with those of then; run `tgn models unpin`, or pin a later week"
        )


def _remove(left: Path) -> None:
    """Removes a folder, or a link to one, as far as it can be."""
    if left.is_symlink():
        left.unlink(missing_ok=True)
    else:
        shutil.rmtree(left, ignore_errors=True)
