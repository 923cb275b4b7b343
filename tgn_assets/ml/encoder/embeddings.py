"""Embeddings of all nodes known at the close of one week."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.artifact_io import load_artifact, save_artifact
from tgn_assets.ml.encoder.linear_link_model import LinkVectors

TENSORS = ("user_idx", "users", "event_idx", "events", "link_users", "link_events")


@dataclass(frozen=True)
class NodeEmbeddings:
    """User and event vectors as of the close of `week`; rows are in ascending order of the append-only index.

    They are kept in half precision, and a file of them is mapped rather than read: a ranker holds many weeks of them.
    """

    week: str
    user_idx: Tensor  # [U] int64
    users: Tensor  # [U, d] float16
    event_idx: Tensor  # [E] int64
    events: Tensor  # [E, d] float16
    link_users: Tensor | None = None  # [U, r] float16, of `linear_link_model`; None without a history
    link_events: Tensor | None = None  # [E, r]

    def __post_init__(self) -> None:
        for name in ("users", "events", "link_users", "link_events"):
            if (vectors := getattr(self, name)) is not None:
                object.__setattr__(self, name, vectors.half())

    @cached_property
    def digest(self) -> str:
        """A hash of the tensors: equal for equal embeddings."""
        content = hashlib.blake2b(digest_size=16)
        for tensor in self.to_tensors().values():
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()

    def fits(self, user_idx: IntArray, event_idx: IntArray) -> bool:
        """Whether its nodes are those with these warehouse indices: rows that came or went since may change them."""
        both = (self.user_idx, user_idx), (self.event_idx, event_idx)
        return all(torch.equal(own, torch.as_tensor(wanted)) for own, wanted in both)

    def users_at(self, user_idx: IntArray) -> tuple[Tensor, Tensor]:
        """([n, d] float32 vectors, [n] bool known) of users by warehouse index; an unknown user's vector is zero."""
        return _rows(self.user_idx, self.users, user_idx)

    def events_at(self, event_idx: IntArray) -> tuple[Tensor, Tensor]:
        """([n, d] float32 vectors, [n] bool known) of events by warehouse index; an unknown event's vector is zero."""
        return _rows(self.event_idx, self.events, event_idx)

    def user_links_at(self, user_idx: IntArray) -> Tensor:
        """[n, r] float32 link vectors of users: zero for unknown ones, or if there are no link vectors."""
        return _links(self.user_idx, self.link_users, user_idx)

    def event_links_at(self, event_idx: IntArray) -> Tensor:
        """[m, r] float32 link vectors of events, as `user_links_at`."""
        return _links(self.event_idx, self.link_events, event_idx)

    def with_links(self, links: LinkVectors) -> "NodeEmbeddings":
        """A copy with the link vectors `links` of the same week; a node without one gets zeros."""
        users = _aligned(links.user_idx, links.users, self.user_idx)
        events = _aligned(links.event_idx, links.events, self.event_idx)
        return NodeEmbeddings(self.week, self.user_idx, self.users, self.event_idx, self.events, users, events)

    def to_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The tensors by name, each name with `prefix` before it; without link vectors where there are none."""
        return {prefix + name: tensor for name in TENSORS if (tensor := getattr(self, name)) is not None}

    @classmethod
    def from_tensors(cls, week: str, tensors: dict[str, Tensor], digest: str | None = None) -> "NodeEmbeddings":
        """The inverse of `to_tensors`; their `digest`, if it is known."""
        made = cls(week, **{name: tensors[name] for name in TENSORS if name in tensors})
        if digest is not None:
            made.__dict__["digest"] = digest
        return made

    def save(self, directory: Path) -> None:
        """Writes them to `directory`, replacing what is there; the artifact store calls it."""
        save_artifact(directory, self.to_tensors(), {"week": self.week})

    @classmethod
    def load(cls, directory: Path) -> "NodeEmbeddings":
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        tensors, meta = load_artifact(directory)
        return cls.from_tensors(meta["week"], tensors)


def _aligned(index: IntArray, vectors: Tensor, wanted: Tensor) -> Tensor:
    """The rows of `vectors`, which are of the nodes `index`, for the nodes `wanted`; zero for one without."""
    known = torch.as_tensor(index)
    return vectors if torch.equal(known, wanted) else _rows(known, vectors, wanted.numpy())[0].half()


def _links(known: Tensor, vectors: Tensor | None, wanted: IntArray) -> Tensor:
    return torch.zeros(len(wanted), 2) if vectors is None else _rows(known, vectors, wanted)[0]


def _rows(known: Tensor, vectors: Tensor, wanted: IntArray) -> tuple[Tensor, Tensor]:
    wanted_t = torch.as_tensor(wanted)
    if not len(known):
        return torch.zeros(len(wanted_t), vectors.shape[1]), torch.zeros(len(wanted_t), dtype=torch.bool)
    at = torch.searchsorted(known, wanted_t).clamp(max=len(known) - 1)
    found = known[at] == wanted_t
    return vectors[at].float() * found[:, None], found
