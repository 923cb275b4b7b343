"""Artifacts on disk: a directory with `tensors.safetensors` and `meta.json`, replaced as a whole, never pickled.

`meta.json` names the version of the format and that of the package that wrote it.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EBUSY, EXDEV
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from tgn_assets.ml.safe_text import SafeError

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, META = "tensors.safetensors", "meta.json"

FORMAT_VERSION = 2
"""To be raised with every change after which this code cannot read what earlier code wrote, or reads it wrongly."""


class ArtifactError(SafeError, FileNotFoundError):
    """An artifact that is missing or cannot be read; the message says which one and what to do."""


class OutdatedArtifactError(ArtifactError):
    """An artifact in a format before `FORMAT_VERSION`."""


class UnreadableArtifactError(ArtifactError):
    """An artifact that this user may not read."""


class TrainingError(SafeError, ArithmeticError):
    """Training without a usable result; the message says what to change."""


def require_finite(loss: float, phase: str) -> float:
    """`loss`; TrainingError if it is NaN or infinite: nothing may be published from such a model."""
    if not math.isfinite(loss):
        raise TrainingError(f"{phase} diverged (its loss is {loss}); lower its learning_rate and run the week again")
    return loss


def load_file(path: Path) -> dict[str, Tensor]:
    """As that of safetensors. The sensor and `tgn status` look at the meta of artifacts, without torch."""
    from safetensors.torch import load_file

    return load_file(path)


def save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """As that of safetensors; OSError for what the operating system refuses, such as a file on a full disk."""
    from safetensors.torch import save_file

    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if refusal := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(refusal[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def save_artifact(
    directory: Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Writes `tensors` and JSON-able `meta` as the new content of `directory`, and `parts` as files of their own.

    A reader finds the old content or the new, never a mixture, even if this process is killed. The same input gives
    the same bytes. Writing a file takes as much memory as its tensors.
    """
    meta = {"format_version": FORMAT_VERSION, "package_version": version("tgn_assets"), **meta}
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, part in {
            TENSORS: tensors,
            **{f"{name}.safetensors": part for name, part in (parts or {}).items()},
        }.items():
            save_file({key: part[key].contiguous() for key in sorted(part)}, fresh / name)
        (fresh / META).write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")
        # A temporary folder, and what safetensors writes, is for its owner alone: as the umask wants it, like the meta.
        mode = stat.S_IMODE((fresh / META).stat().st_mode)
        for path in fresh.iterdir():
            path.chmod(mode)
        fresh.chmod(mode | (mode & 0o444) >> 2)
        replace_directory(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def replace_directory(fresh: Path, directory: Path) -> None:
    """Moves `fresh` to `directory`, and removes what was there only afterwards.

    Both lie in one folder, which may be a link to another device. ArtifactError if `directory` itself is a mount, or
    comes from a lower layer of a container's image: it cannot be moved.
    """
    if not directory.exists():
        fresh.rename(directory)
        return
    retired = fresh.with_name(fresh.name + ".old")
    try:
        directory.rename(retired)
    except OSError as error:
        if error.errno in (EXDEV, EBUSY):
            raise ArtifactError(
                f"{directory} cannot be replaced: it is on another device than {directory.parent}; copy TGN_HOME to "
                "one volume, or link the whole folder artifacts to the other device"
            ) from error
        raise
    try:
        fresh.rename(directory)
    except OSError:
        retired.rename(directory)
        raise
    if retired.is_symlink():
        retired.unlink()
    else:
        shutil.rmtree(retired)


def load_artifact(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the meta of `directory`; loading cannot execute code.

    ArtifactError if they are missing, damaged or of another format version.
    """
    meta = load_meta(directory)
    return load_part(directory), meta


def load_part(directory: Path, name: str | None = None) -> dict[str, Tensor]:
    """The memory-mapped tensors of `directory`, or of its part `name`; ArtifactError as of `load_artifact`."""
    with as_artifact_error(directory):
        return load_file(directory / (TENSORS if name is None else f"{name}.safetensors"))


def load_meta(directory: Path) -> dict[str, Any]:
    """The meta of `directory` without its tensors; ArtifactError as of `load_artifact`."""
    with as_artifact_error(directory):
        if not (directory / META).exists():
            lack = f"{directory} has no {META}" if directory.exists() else f"there is no {directory}"
            raise ArtifactError(f"{lack}; {remedy(directory)} makes it again")
        meta = json.loads((directory / META).read_text("utf-8"))
        made_in = meta.get("format_version")
        if isinstance(made_in, int) and made_in > FORMAT_VERSION:
            raise ArtifactError(_newer(directory, meta))
        if made_in != FORMAT_VERSION:
            raise OutdatedArtifactError(_outdated(directory, meta))
    return meta


def is_outdated(directory: Path) -> bool:
    """Whether `directory` has an artifact in a format before `FORMAT_VERSION`: one of a newer version is not to be
    made again, or left out, without a word."""
    try:
        load_meta(directory)
    except ArtifactError as error:
        return isinstance(error, OutdatedArtifactError)
    return False


def count_numbers(directory: Path, prefix: str = "") -> int:
    """The number of values in those tensors of `directory` whose name begins with `prefix`; reads shapes only."""
    with as_artifact_error(directory), safe_open(directory / TENSORS, framework="numpy") as tensors:
        names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a mapping)
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)


def _outdated(directory: Path, meta: Mapping[str, Any]) -> str:
    asset, week = directory.parent.name, directory.name
    maker = f"tgn_assets {meta['package_version']}" if "package_version" in meta else "an earlier version of tgn_assets"
    return f"the {asset} of week {week} was made by {maker}, in another format: {remedy(directory)} makes it again"


def _newer(directory: Path, meta: Mapping[str, Any]) -> str:
    asset, week = directory.parent.name, directory.name
    return (
        f"the {asset} of week {week} was made by tgn_assets {meta.get('package_version', 'of a later date')}, in a "
        f"newer format than this version ({version('tgn_assets')}) reads: install that version; to stay with this one, "
        f"move {directory} away, and `tgn refresh --week {week}` makes it anew"
    )


def remedy(directory: Path) -> str:
    """What makes the artifact in `directory` again."""
    asset, week = directory.parent.name, directory.name
    # `tgn refresh` ingests all weeks again whose snapshot is missing or outdated.
    return "remove it, and `tgn refresh`" if asset == "weekly_snapshots" else f"`tgn refresh --week {week}`"


@contextmanager
def as_artifact_error(directory: Path) -> Iterator[None]:
    """Turns what goes wrong while the artifact in `directory` is read into an ArtifactError with its name."""
    try:
        yield
    except ArtifactError:
        raise
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        if denied := _denied(directory, error):
            raise UnreadableArtifactError(f"{denied} may not be read; give this user the right to") from error
        reason = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{directory} is damaged ({reason}); {remedy(directory)} makes it again") from error


def _denied(directory: Path, error: Exception) -> str | None:
    """What this user may not read of the artifact in `directory`, if that is the reason of `error`."""
    if isinstance(error, PermissionError):
        return str(error.filename or directory)
    # Of such a file, safetensors says that it is not found.
    return next((str(path) for path in sorted(directory.glob("*")) if not os.access(path, os.R_OK)), None)
