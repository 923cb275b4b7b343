"""Lists on disk: safetensors and JSON with a format version, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgn_assets.ml.artifact_io import (
    META,
    ArtifactError,
    UnreadableArtifactError,
    load_artifact,
    load_meta,
    save_artifact,
)
from tgn_assets.ml.recommend.published import PublishedLists

KIND = "recommender"


def save_lists(directory: Path, lists: PublishedLists, meta: Mapping[str, Any]) -> None:
    """Writes `lists` and JSON-able `meta` to `directory`, replacing an earlier recommender, and nothing else.

    FileExistsError if there is anything else.
    """
    if directory.exists() and not _is_recommender(directory) and not _is_empty(directory):
        raise FileExistsError(f"{directory} holds something else than a recommender: name another folder")
    tensors, columns = dict[str, Tensor](), dict[str, list[tuple[str, bool]]]()
    for name, frame in vars(lists).items():
        columns[name] = []
        for column in frame.columns:
            key = f"{name}.{column}"
            is_text = not pd.api.types.is_numeric_dtype(frame[column].dtype)
            columns[name].append((column, is_text))
            if is_text:
                codes, texts = pd.factorize(frame[column].astype(object))
                tensors |= {key: torch.tensor(codes), **_packed(key, texts)}
            else:
                tensors[key] = torch.tensor(frame[column].to_numpy())
    save_artifact(directory, tensors, {"kind": KIND, "columns": columns, **meta})


def load_lists(directory: Path) -> tuple[PublishedLists, dict[str, Any]]:
    """What `save_lists` wrote to `directory`; ArtifactError if there is nothing, or nothing that can be read."""
    try:
        tensors, meta = load_artifact(directory)
        if meta["kind"] != KIND:
            raise KeyError("kind")
        frames = {
            name: pd.DataFrame({column: _column(tensors, f"{name}.{column}", is_text) for column, is_text in columns})
            for name, columns in meta["columns"].items()
        }
    except UnreadableArtifactError:
        raise
    except (ArtifactError, KeyError, IndexError, TypeError, ValueError) as error:
        reason = "is no recommender that this version of tgn_assets can read: fit one and save it again"
        raise ArtifactError(f"{directory} {reason}") from error
    return PublishedLists(**frames), meta


def _packed(key: str, texts: np.ndarray | pd.Index) -> dict[str, Tensor]:
    """The UTF-8 of all `texts`, one after the other, and where each of them ends."""
    encoded = [str(text).encode() for text in texts]
    return {
        f"{key}.utf8": torch.tensor(np.frombuffer(b"".join(encoded), np.uint8)),
        f"{key}.ends": torch.tensor(np.cumsum([len(text) for text in encoded], dtype=np.int64)),
    }


def _column(tensors: Mapping[str, Tensor], key: str, is_text: bool) -> Any:
    values = tensors[key].numpy()
    if not is_text:
        return values
    utf8, ends = tensors[f"{key}.utf8"].numpy().tobytes(), tensors[f"{key}.ends"].tolist()
    texts = [utf8[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return pd.Categorical.from_codes(values, pd.Index(texts, dtype=object))


def _is_recommender(directory: Path) -> bool:
    try:
        return (directory / META).exists() and load_meta(directory).get("kind") == KIND
    except ArtifactError:
        return False


def _is_empty(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.iterdir())
