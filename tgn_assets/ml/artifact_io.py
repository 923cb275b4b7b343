"""Artifacts on disk: a directory with `tensors.safetensors` and `meta.json`, replaced as a whole, never pickled."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, META = "tensors.safetensors", "meta.json"


class ArtifactError(FileNotFoundError):
    """An artifact that is not there, or that cannot be read; the message says which and what to do."""


class TrainingError(ArithmeticError):
    """Training that came to nothing usable; the message says what to change."""


def finite(loss: float, phase: str) -> float:
    """`loss`, or a TrainingError if it is no number any more: a model like that must never be published from."""
    if not math.isfinite(loss):
        raise TrainingError(f"{phase} diverged (its loss is {loss}); lower its learning_rate and run the week again")
    return loss


def save_artifact(directory: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes `tensors` and JSON-able `meta` as the new content of `directory`.

    A reader, or a process killed half-way, finds the old content or the new, never a mixture. Same input, same bytes.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, fresh / TENSORS)
        (fresh / META).write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")
        fresh.chmod(0o755)
        replace_directory(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def replace_directory(fresh: Path, directory: Path) -> None:
    """Puts `fresh` in the place of `directory`, whose old content is removed only after the swap."""
    if not directory.exists():
        fresh.rename(directory)
        return
    retired = fresh.with_name(fresh.name + ".old")
    os.rename(directory, retired)
    try:
        os.rename(fresh, directory)
    except OSError:
        os.rename(retired, directory)
        raise
    shutil.rmtree(retired)


def load_artifact(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the meta of `directory`.

    Raises ArtifactError if they are missing or damaged. Loading cannot execute code: the formats have none.
    """
    meta = load_meta(directory)
    with _readable(directory):
        return load_file(directory / TENSORS), meta


def load_meta(directory: Path) -> dict[str, Any]:
    """The meta of `directory` without its tensors; ArtifactError if it is missing or damaged."""
    if not (directory / META).exists():
        raise ArtifactError(
            f"there is no {directory.parent.name} of week {directory.name} at {directory}; materialize it first"
        )
    with _readable(directory):
        return json.loads((directory / META).read_text())


def count_numbers(directory: Path, prefix: str = "") -> int:
    """How many numbers the tensors of `directory` hold whose name begins with `prefix`; reads their shapes only."""
    with _readable(directory), safe_open(directory / TENSORS, framework="numpy") as tensors:
        names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a mapping)
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{directory} is damaged ({error}); materialize that week again") from error
