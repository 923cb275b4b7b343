"""The graph encoder on disk, with the embeddings that it gave."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tgn_assets.ml.artifact_io import load_artifact, load_part, save_artifact
from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.encoder.batching import BatchingPlan
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings


@dataclass(frozen=True)
class GNNCheckpoint:
    """The encoder as trained at the close of `week`, and the embeddings it gave.

    `embeddings` maps a week to what the encoder *of that week* made of the graph of that week: always the own week,
    and on a cold start the weeks it walked through as well. They are leak-free inputs for the ranker. `batching` is how
    the encoder went through the graphs of `week`. An entry of `curve` is an epoch: the `cutoff` (a week) whose window
    was trained on, the number of the `epoch`, `loss` and `validation_loss`. `processor` is the kind that trained it
    (None: made by 0.2, which did not record it). `chain` is the week of the cold start that it goes back to: a
    week that went on from another one, and starts cold when it is run again, gets another (None: not recorded yet).
    """

    week: str
    config: GNNConfig
    batching: BatchingPlan
    warm_from: str | None
    state: dict[str, Tensor]
    node_idx: dict[str, Tensor]
    curve: list[dict[str, Any]]
    embeddings: dict[str, NodeEmbeddings]
    processor: str | None
    chain: str | None = None

    def save(self, directory: Path) -> None:
        """Writes the checkpoint to `directory`, replacing what is there."""
        tensors = {f"state.{name}": value for name, value in self.state.items()}
        tensors |= {f"node_idx.{kind}": index for kind, index in self.node_idx.items()}
        tensors |= self.embeddings[self.week].to_tensors(f"embeddings.{self.week}.")
        earlier = {week: known.to_tensors() for week, known in self.embeddings.items() if week != self.week}
        meta = {name: getattr(self, name) for name in ("week", "warm_from", "curve", "processor", "chain")}
        meta |= {"config": self.config.model_dump(), "batching": asdict(self.batching)}
        meta["embeddings"] = {week: self.embeddings[week].digest for week in sorted(self.embeddings)}
        save_artifact(directory, tensors, meta, earlier)

    @classmethod
    def load(cls, directory: Path) -> "GNNCheckpoint":
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        tensors, meta = load_artifact(directory)

        def named(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        embeddings = {
            week: NodeEmbeddings.from_tensors(week, named(f"embeddings.{week}.") or load_part(directory, week), digest)
            for week, digest in meta["embeddings"].items()
        }
        config, batching = GNNConfig(**meta["config"]), BatchingPlan(**meta["batching"])
        state, node_idx, warm_from = named("state."), named("node_idx."), meta["warm_from"]
        curve, processor = meta["curve"], meta.get("processor")
        parts = config, batching, warm_from, state, node_idx, curve, embeddings, processor
        return cls(meta["week"], *parts, meta.get("chain"))


def chained_embeddings(
    load: Callable[[str], GNNCheckpoint], week: str, limit: int, *, kept_from: str = ""
) -> dict[str, NodeEmbeddings]:
    """The encoder's embeddings of at most `limit` weeks up to `week`, each as known when that week closed.

    Checkpoints before `kept_from` are not asked for, but that of `week` itself is.

    They come from the checkpoint of `week` that `load` returns, from the one that it was warm-started from, and so on
    back to the cold start, or to a week that was started afresh since. Vectors of one such chain are comparable, those
    of two are not. Raises what `load` raises.
    """
    embedding_history: dict[str, NodeEmbeddings] = {}
    link: str | None = week
    chain: str | None = None
    while link is not None and len(embedding_history) < limit:
        checkpoint = load(link)
        if link == week:
            chain = checkpoint.chain
        elif checkpoint.chain != chain:
            break
        embedding_history = checkpoint.embeddings | embedding_history
        link = checkpoint.warm_from
        if link is not None and link < kept_from:
            break
    return {key: embedding_history[key] for key in sorted(embedding_history)[-limit:]}
