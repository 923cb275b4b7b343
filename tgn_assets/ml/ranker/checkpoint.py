"""The ranker on disk, and the networks that can be read from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tgn_assets.ml.artifact_io import ArtifactError, load_artifact, save_artifact
from tgn_assets.ml.candidates.attribute_features import feature_names
from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import AttributeColumn, AttributeTables
from tgn_assets.ml.ranker.baseline_fallback import BaselineFallback
from tgn_assets.ml.ranker.calibration import Calibration
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.schema import K

MEMBER = "members."
"""What the names of a committee's weights begin with."""


@dataclass(frozen=True)
class RankerCheckpoint:
    """The ranker as of the close of `week`.

    `curve` has a row per network and epoch (loss, validation_ndcg), `fallback` says whose list each segment of users is
    published from, `validation` holds numbers about the newest closed week. `trained` is False where history was too
    short to learn from: then every list comes from a baseline, and nothing reads the weights. `trees` is LightGBM's
    text; `calibration` turns the blend's shares into probabilities. `k` is the length of the lists that it was tried
    with, `attributes` the columns of side tables that it learnt from, `warm_from` the week of the ranker that it
    went on
    from, `embeddings` the digest of those of its week (None: there were none).
    """

    week: str
    config: RankerConfig
    trained: bool
    state: dict[str, Tensor]
    trees: str
    curve: list[dict[str, Any]]
    fallback: BaselineFallback
    calibration: Calibration | None
    validation: dict[str, float]
    k: int = K
    attributes: tuple[AttributeColumn, ...] = ()
    warm_from: str | None = None
    embeddings: str | None = None

    def save(self, directory: Path) -> None:
        """Writes the checkpoint to `directory`, replacing what is there."""
        save_artifact(directory, self.state, self.meta())

    def meta(self) -> dict[str, Any]:
        """All of it but the weights, for JSON."""
        return {
            "week": self.week,
            "config": self.config.model_dump(),
            "trained": self.trained,
            "trees": self.trees,
            "curve": self.curve,
            "gate": self.fallback.to_meta(),
            "calibration": self.calibration.to_meta() if self.calibration else None,
            "validation": self.validation,
            "k": self.k,
            "warm_from": self.warm_from,
            "embeddings": self.embeddings,
            **({"side": self.attributes} if self.attributes else {}),
        }

    @classmethod
    def load(cls, directory: Path) -> "RankerCheckpoint":
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        state, meta = load_artifact(directory)
        return cls(
            week=meta["week"],
            config=RankerConfig(**meta["config"]),
            trained=meta["trained"],
            # Checkpoints of before there were several networks hold the one.
            state={name if name.startswith(MEMBER) else f"{MEMBER}0.{name}": value for name, value in state.items()},
            trees=_text(meta["trees"]),
            curve=meta["curve"],
            fallback=BaselineFallback.from_meta(meta["gate"]),
            calibration=Calibration.from_meta(meta["calibration"]) if meta["calibration"] else None,
            validation=meta["validation"],
            k=meta.get("k", K),  # checkpoints of before lists had a length of their own
            attributes=tuple(AttributeColumn(*column) for column in meta.get("side", ())),
            warm_from=meta.get("warm_from"),  # in older checkpoints there is neither of these two
            embeddings=meta.get("embeddings"),
        )


def new_model(config: RankerConfig, width: int, attributes: Sequence[AttributeColumn], networks: int) -> Ensemble:
    """`networks` fresh ones, for weekly embeddings `width` wide and pairs that have the columns of `attributes` as
    well."""
    features, extra = len(candidate_feature_names(config.features, attributes)), len(feature_names(attributes))
    shape = width, features, config.dim, config.heads, config.layers, config.sequence
    return Ensemble(UserInteractionPredictor(*shape, config.dropout, extra) for _ in range(networks))


def is_incompatible(ranker: RankerCheckpoint) -> bool:
    """Whether it learnt from other features than candidates have now: a version ago there were others."""
    names = candidate_feature_names(ranker.config.features, ranker.attributes)
    return len(ranker.state[f"{MEMBER}0.feature_mean"]) != len(names)


def load_model(ranker: RankerCheckpoint, device: str = "cpu") -> Ensemble:
    """The networks of a checkpoint, ready to score on `device`; ArtifactError if it is `is_incompatible`."""
    if is_incompatible(ranker):
        raise ArtifactError(
            f"the ranker of {ranker.week} was trained by a version of tgn_assets that knew other features; materialize "
            "trained_gnn and trained_ranker of that week again, and if it is pinned, run `tgn models unpin`"
        )
    width = ranker.state[f"{MEMBER}0.project_event.weight"].shape[1]
    model = new_model(ranker.config, width, ranker.attributes, _networks(ranker))
    model.load_state_dict(ranker.state)
    return model.to(device).eval()


def can_warm_start_from(
    earlier: RankerCheckpoint,
    config: RankerConfig,
    width: int,
    embedding_history: EmbeddingHistory,
    attributes: tuple[AttributeColumn, ...],
) -> bool:
    """Whether the ranker `earlier` can read this week's lessons: it has the same shape and features, and the weekly
    embeddings that it learnt from are those of `embedding_history`, not of an encoder that has been started afresh
    since."""
    shapes = [(c.dim, c.heads, c.layers, c.sequence) for c in (earlier.config, config)]
    if not earlier.trained or shapes[0] != shapes[1] or earlier.attributes != attributes:
        return False
    fresh = new_model(config, width, attributes, _networks(earlier)).state_dict()
    if {name: value.shape for name, value in fresh.items()} != {n: v.shape for n, v in earlier.state.items()}:
        return False
    learnt_from = embedding_history.get(earlier.week)
    return learnt_from is not None and learnt_from.digest == earlier.embeddings


def attributes_of(ranker: RankerCheckpoint, attributes: AttributeTables) -> AttributeTables:
    """The columns of `attributes` that the ranker learnt from; ArtifactError if one is not there."""
    if lacking := attributes.lacking(ranker.attributes):
        raise ArtifactError(
            f"the ranker of {ranker.week} learnt from columns that the side tables do not have now "
            f"({'; '.join(map(str, lacking))}); bring them back or materialize trained_ranker of that week again, "
            "and if it is pinned, run `tgn models unpin` or pin a later week"
        )
    return attributes.only(ranker.attributes)


def _networks(ranker: RankerCheckpoint) -> int:
    return len({name.split(".")[1] for name in ranker.state})


def _text(trees: str | list[str]) -> str:
    """Of a checkpoint; one of an older version has several texts, of which the first is as good as any."""
    return trees if isinstance(trees, str) else next(iter(trees), "")
