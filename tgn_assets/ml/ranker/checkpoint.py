"""The ranker on disk, the networks that are read from it, and their temporal embeddings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.artifact_io import ArtifactError, load_artifact, load_part, save_artifact
from tgn_assets.ml.candidates.attribute_features import feature_names
from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import AttributeColumn, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.judged_week import JudgedWeek, judged_from_tensors, judged_tensors
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import BaselineFallback
from tgn_assets.ml.ranker.calibration import Calibration
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.network import UserInteractionPredictor
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView, blocks_of, embedding_width

JUDGED = "judged"
"""The file of the judged weeks."""
USERS_EMBEDDED_TOGETHER = 512
"""Users whose temporal embeddings one worker computes at a time."""


@dataclass(frozen=True)
class RankerCheckpoint:
    """The ranker as of the close of `week`.

    `curve` has a row per network and epoch (loss, validation_ndcg), `fallback` says whose list each segment of users
    gets, `validation` holds metrics on the newest closed week, `judged` what was found on this week and earlier ones.
    `trained` is False where the history was too short to learn from: then every list comes from a baseline, and nothing
    reads the weights. `booster` is the text of LightGBM's boosters; `calibration` turns the softmax of blended scores
    into probabilities. `k` is the length of the lists that it was validated with, `features` names the columns of the
    pair features and `attributes` the attributes among them, `warm_from` is the week of the ranker that it was
    warm-started from, `embeddings` the digest of those of its week (None: there were none), `processor` the kind that
    trained it (None: made by 0.2, which did not record it).
    """

    week: str
    config: RankerConfig
    trained: bool
    state: dict[str, Tensor]
    booster: str
    curve: list[dict[str, Any]]
    fallback: BaselineFallback
    calibration: Calibration | None
    validation: dict[str, float]
    k: int
    features: tuple[str, ...]
    attributes: tuple[AttributeColumn, ...]
    warm_from: str | None
    embeddings: str | None
    processor: str | None
    judged: tuple[JudgedWeek, ...]

    def save(self, directory: Path) -> None:
        """Writes the checkpoint to `directory`, replacing what is there."""
        save_artifact(directory, self.state, self.meta(), {JUDGED: judged_tensors(self.judged)})

    def meta(self) -> dict[str, Any]:
        """All of it but the weights and the judged weeks, for JSON."""
        meta = asdict(replace(self, state={}, judged=())) | {"config": self.config.model_dump()}
        del meta["judged"]
        return meta

    @classmethod
    def load(cls, directory: Path) -> "RankerCheckpoint":
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        state, meta = load_artifact(directory)
        parts = {
            "config": RankerConfig(**meta["config"]),
            "state": state,
            "judged": judged_from_tensors(load_part(directory, JUDGED)),
            "fallback": BaselineFallback(**meta["fallback"]),
            "calibration": Calibration.from_meta(meta["calibration"]) if meta["calibration"] else None,
            "features": tuple(meta["features"]),
            "attributes": tuple(AttributeColumn(*column) for column in meta["attributes"]),
            "processor": meta.get("processor"),
        }
        return cls(**{field.name: (meta | parts)[field.name] for field in fields(cls)})


def new_ensemble(config: RankerConfig, *, width: int, attributes: Sequence[AttributeColumn], networks: int) -> Ensemble:
    """`networks` untrained ones, for weekly embeddings `width` wide and pairs with features from `attributes`."""
    features, extra = len(candidate_feature_names(config.features, attributes)), len(feature_names(attributes))
    return Ensemble(
        UserInteractionPredictor(config, width=width, features=features, attributes=extra) for _ in range(networks)
    )


def is_incompatible(ranker: RankerCheckpoint) -> bool:
    """Whether it learned from other pair features than those that candidates have now, or does not know their range."""
    known = candidate_feature_names(ranker.config.features, ranker.attributes)
    return ranker.features != known or "members.0.feature_low" not in ranker.state


def load_model(ranker: RankerCheckpoint, device: str = "cpu") -> Ensemble:
    """The networks of a checkpoint, ready to score on `device`; ArtifactError if it is `is_incompatible`."""
    if is_incompatible(ranker):
        raise ArtifactError(
            f"the ranker of {ranker.week} was trained by a version of tgn_assets with other pair features or weights; "
            "materialize trained_gnn and trained_ranker of that week again, and if it is pinned, run `tgn models unpin`"
        )
    width = ranker.state["members.0.project_event.weight"].shape[1]
    model = new_ensemble(ranker.config, width=width, attributes=ranker.attributes, networks=_num_networks(ranker))
    model.load_state_dict(ranker.state)
    return model.to(device).eval()


def temporal_embeddings(
    ranker: RankerCheckpoint,
    history: InteractionHistory,
    embedding_history: EmbeddingHistory,
    *,
    device: str = "cpu",
    progress: LogFn = no_log,
    workers: Workers = THREADS,
) -> NodeEmbeddings:
    """The ranker's embeddings of all users and events of `history` as of its week, in half precision.

    `embedding_history` are the encoder's of the last `sequence` weeks. Events have their projection
    (`event_embeddings`): its dot product with a user's embedding says how similar they are. ArtifactError if the ranker
    is `is_incompatible`.
    """
    model, view = load_model(ranker, device), PointInTimeView(history, embedding_history, ranker.config)
    reporter, users = ProgressReporter(progress, "embeddings", history.num_users, "user"), list[Tensor]()
    shards = map(view.sequence, blocks_of(np.arange(history.num_users), USERS_EMBEDDED_TOGETHER))
    for block in workers.map(_embedded, model, shards):
        users.append(block)
        reporter.add(len(block))
    with torch.no_grad():
        events = model.event_embeddings(view.event_vectors().to(device)).half().cpu()
    user_idx, event_idx = torch.as_tensor(history.user_idx), torch.as_tensor(history.event_idx)
    return NodeEmbeddings(view.week, user_idx, torch.cat([events[:0], *users]), event_idx, events)


@torch.no_grad()
def _embedded(model: Ensemble, sequence: tuple[Tensor, Tensor]) -> Tensor:
    """The temporal embeddings of users with the weekly embeddings `sequence`, as `PointInTimeView.sequence` gives it;
    half precision, as they are kept."""
    return model.get_temporal_embeddings(*(x.to(model.device) for x in sequence)).half().cpu()


def can_warm_start_ranker(earlier: RankerCheckpoint, inputs: PointInTimeView) -> bool:
    """Whether training on `inputs` can go on from the ranker `earlier`.

    It needs the same shape and features, and its weekly embeddings must be those of `inputs`, not of an encoder that
    has had a cold start since.
    """
    config, attributes = inputs.config, inputs.attributes.columns
    shapes = [(c.dim, c.heads, c.layers, c.sequence, c.features) for c in (earlier.config, config)]
    if not earlier.trained or shapes[0] != shapes[1] or earlier.attributes != attributes or is_incompatible(earlier):
        return False
    width = embedding_width(inputs.embedding_history)
    fresh = new_ensemble(config, width=width, attributes=attributes, networks=_num_networks(earlier)).state_dict()
    if {name: value.shape for name, value in fresh.items()} != {n: v.shape for n, v in earlier.state.items()}:
        return False
    embeddings = inputs.embedding_history.get(earlier.week)
    return embeddings is not None and embeddings.digest == earlier.embeddings


def attributes_of(ranker: RankerCheckpoint, attributes: AttributeTables) -> AttributeTables:
    """The columns of `attributes` that the ranker learned from; ArtifactError if one is missing."""
    if lacking := attributes.lacking(ranker.attributes):
        raise ArtifactError(
            f"the ranker of {ranker.week} learned from attributes that the files do not have now "
            f"({'; '.join(map(str, lacking))}); bring them back or materialize trained_ranker of that week again, "
            "and if it is pinned, run `tgn models unpin` or pin a later week"
        )
    return attributes.only(ranker.attributes)


def _num_networks(ranker: RankerCheckpoint) -> int:
    return len({name.split(".")[1] for name in ranker.state})
