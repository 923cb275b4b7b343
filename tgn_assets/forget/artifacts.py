"""Takes forgotten users and events out of snapshots, checkpoints and embeddings.

They hold indices and no ids. An index stays, as nothing else may ever get it; what it stood for is set to zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.state.artifact_store import TYPES, ArtifactStore

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
EDGES = ("edge_index", "edge_count", "edge_time")
"""Of a snapshot; row 0 of the first are positions of users, row 1 of events."""


def zero_indices(
    store: ArtifactStore, indices: Mapping[str, Sequence[int]], unread: list[str]
) -> list[tuple[str, str]]:
    """Sets to zero what the artifacts hold of the `indices` of users and events, and removes their edges.

    Returns the asset and week of each artifact with one of these indices. One that cannot be read goes to `unread`: no
    later week reads it either. Each artifact is replaced as a whole.
    """
    from tgn_assets.ml.artifact_io import ArtifactError, load_artifact, load_part, save_artifact

    found = []
    for asset in TYPES:
        for week in store.weeks(asset):
            directory = store.directory(asset, week)
            try:
                tensors, meta = load_artifact(directory)
                parts = {name: load_part(directory, name) for name in _parts(directory)}
            except ArtifactError as error:
                unread.append(str(error))
                continue
            clean, cleaned_parts = zeroed(tensors, indices), {n: zeroed(part, indices) for n, part in parts.items()}
            if any(True for part in (tensors, *parts.values()) for _ in _found(part, indices)):
                found.append((asset, week))
            if clean is not tensors or any(part is not parts[name] for name, part in cleaned_parts.items()):
                save_artifact(directory, clean, meta, cleaned_parts)
    return found


def zeroed(tensors: Tensors, indices: Mapping[str, Sequence[int]]) -> Tensors:
    """`tensors` with zeros where they hold something of the `indices`, and without the edges; `tensors` itself if
    nothing is there.
    """
    import torch

    changed: Tensors = {}
    for kind, name, at in _found(tensors, indices):
        for of_node in _of_nodes(tensors, kind, name):
            if tensors[of_node][at].any():
                changed[of_node] = changed.get(of_node, tensors[of_node]).clone()
                changed[of_node][at] = 0
        if "edge_index" in tensors:
            index = changed.get("edge_index", tensors["edge_index"])
            stay = ~torch.isin(index[0 if kind == USER else 1], at)
            if not stay.all():
                changed |= {edge: changed.get(edge, tensors[edge])[..., stay] for edge in EDGES}
    return {**tensors, **changed} if changed else tensors


def _found(tensors: Tensors, indices: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str, Tensor]]:
    """The kind and the name of each tensor that has some of the `indices`, and where it has them."""
    import torch

    for name in tensors:
        if kind := index_kind(name):
            wanted = torch.tensor(indices.get(kind, []), dtype=torch.int64)
            if len(at := torch.isin(tensors[name], wanted).nonzero().flatten()):
                yield kind, name, at


def index_kind(name: str) -> str | None:
    """Whether the tensor `name` holds indices of users or of events; None: neither."""
    kinds = (USER, EVENT)
    ours = (kind for kind in kinds if name.endswith(f"{kind}_idx") or name in (f"{kind}.node_idx", f"node_idx.{kind}"))
    return next(ours, None)


def _of_nodes(tensors: Tensors, kind: str, index: str) -> list[str]:
    """The tensors with a row for each of the nodes in the tensor `index`."""
    if index.endswith(f"/{kind}_idx"):  # of a `JudgedWeek`
        names = [name for name in tensors if name.startswith(f"{index.removesuffix(f'{kind}_idx')}gain.")]
    elif index.endswith(f"{kind}_idx"):  # of `NodeEmbeddings`
        prefix = index.removesuffix(f"{kind}_idx")
        names = [f"{prefix}{kind}s", f"{prefix}link_{kind}s"]
    elif index == f"{kind}.node_idx":  # of a snapshot
        names = [f"{kind}.x"]
    else:  # of the encoder
        names = [f"state.ids.{kind}"]
    return [name for name in names if name in tensors]


def _parts(directory: Path) -> list[str]:
    from tgn_assets.ml.artifact_io import TENSORS

    return sorted(path.stem for path in directory.glob("*.safetensors") if path.name != TENSORS)


def kept_of(store: ArtifactStore, indices: Mapping[str, Sequence[int]]) -> Iterator[Path]:
    """The folders of artifacts that still hold something of the `indices`."""
    from tgn_assets.ml.artifact_io import ArtifactError, load_part

    for asset in TYPES:
        for week in store.weeks(asset):
            directory = store.directory(asset, week)
            for name in (None, *_parts(directory)):
                try:
                    tensors = load_part(directory, name)
                except ArtifactError:
                    continue  # nobody can read it
                if zeroed(tensors, indices) is not tensors:
                    yield directory
                    break
