"""A file, folder, glob or URL as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from tgn_assets.ml.connectors.object_store import StoredFile, fetch, is_url, stored_files
from tgn_assets.ml.safe_text import holds_password, safe_text
from tgn_assets.ml.sources.formats import SUFFIXES, format_of, open_file
from tgn_assets.ml.sources.relations import Part, SourceKind, parts_of
from tgn_assets.ml.sources.spec import SourceError, empty_source

EDGE = 4096
"""Bytes at both ends of a file that tell whether it was appended to or written anew."""


class FileSource(SourceKind):
    """Files of this machine, of an object store or of the web."""

    reads_all = True
    remedy = "check that it is whole, CSV or JSON lines in UTF-8, or Parquet, and that you may read it"

    def state(self, now: datetime) -> object:
        """Names, sizes and times of change, and the hour if a web server does not tell when a file was written."""
        if is_url(self.spec.location):
            objects = _find_objects(self.spec.location)
            return objects, None if all(file.state for file in objects) else super().state(now)
        stats = {file: Path(file).stat() for file in find_files(self.spec.location)}
        return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()]

    @contextmanager
    def open(self, con: duckdb.DuckDBPyConnection, _weeks: Sequence[str] | None) -> Iterator[list[Part]]:
        """All rows. What lies behind a URL is copied, and what is compressed unpacked."""
        with TemporaryDirectory(prefix="tgn-source-") as folder:
            if is_url(self.spec.location):
                objects = _find_objects(self.spec.location)
                copies = map(str, fetch(objects, Path(folder)))
                files = [(safe_text(file.url), copy) for file, copy in zip(objects, copies, strict=True)]
            else:
                files = [(safe_text(file), file) for file in find_files(self.spec.location)]
            with _unchanged([copy for _, copy in files]):
                tables = [table for file in files if (table := open_file(con, self.spec, *file, Path(folder)))]
                if not tables:
                    raise empty_source(self.spec)
                yield parts_of(self.spec, tables)


def find_files(location: str) -> list[str]:
    """The data files at a path of this machine, sorted. SourceError if there are none."""
    path = Path(location).expanduser()
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        found = [str(file) for file in inside if file.name.lower().endswith(SUFFIXES)]
        lack = f"is a folder without {', '.join(SUFFIXES)} files"
    elif path.exists():
        return [str(path)]
    else:
        found = [file for file in glob(str(path), recursive=True) if Path(file).is_file()]
        lack = f"does not exist, seen from {Path.cwd()}"
    if not found:
        raise _no_files(location, lack)
    return sorted(found)


@contextmanager
def _unchanged(files: Sequence[str]) -> Iterator[None]:
    """SourceError if one of `files` is written to within, unless text is appended to it: what was read may be a mixture
    of old and new.
    """
    before = [(file, Path(file).stat(), _edges(file, Path(file).stat().st_size)) for file in files]
    try:
        yield
    except Exception as error:
        _check_unchanged(before, error)
        raise
    _check_unchanged(before)


def _check_unchanged(before: Sequence[tuple[str, os.stat_result, bytes]], error: Exception | None = None) -> None:
    for file, then, edges in before:
        try:
            now = Path(file).stat()
            same = (now.st_ino, now.st_size, now.st_mtime_ns) == (then.st_ino, then.st_size, then.st_mtime_ns)
            grown = now.st_ino == then.st_ino and now.st_size > then.st_size and format_of(file, file).is_text
            if same or (grown and _edges(file, then.st_size) == edges):
                continue
        except FileNotFoundError:
            pass
        raise SourceError(
            f"TGN_SOURCE: {file} changed while it was read, and nothing was taken from it: run it again once it is "
            "written; an export should write to another name and rename the file at the end"
        ) from error


def _edges(file: str, size: int) -> bytes:
    """The beginning and the end of the first `size` bytes."""
    with open(file, "rb") as opened:
        begin = opened.read(min(EDGE, size))
        opened.seek(max(size - EDGE, 0))
        return begin + opened.read(min(EDGE, size))


def _find_objects(location: str) -> list[StoredFile]:
    if holds_password(location):
        raise SourceError("TGN_SOURCE holds a password; take it out: credentials are read from the environment alone")
    if not (found := stored_files(location, SUFFIXES)):
        raise _no_files(location, f"has no {', '.join(SUFFIXES)} files")
    return found


def _no_files(location: str, lack: str) -> SourceError:
    return SourceError(
        f"TGN_SOURCE={location} {lack}; set it to a CSV, JSON lines or Parquet file, folder, glob or URL"
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
