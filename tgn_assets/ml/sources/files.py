"""A file, folder, glob or URL as a source, and what is remembered of the rows of each file.

A row's week is looked for nowhere but in the row: the date in a file's name, or of a folder dt=2024-01-05/, may be that
of another zone or of a late export. So of each file that was read it is remembered which weeks its rows are of, until
the file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from tgn_assets.ml.connectors.object_store import OF_VERSIONS, StoredFile, fetch, is_of_versions, is_url, stored_files
from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.import_closure import code_digest
from tgn_assets.ml.safe_text import holds_password, safe_text
from tgn_assets.ml.sources.csv_repair import ends_with_a_line_end
from tgn_assets.ml.sources.formats import GZIP, READABLE, SUFFIXES, format_of, open_file
from tgn_assets.ml.sources.relations import FileSummary, Opened, RowGroup, SourceKind, parts_of
from tgn_assets.ml.sources.spec import SourceError, empty_source, horizon

EDGE = 4096
"""Bytes at both ends of a file that tell whether it was appended to or written anew."""
SETTLED_NS = 2_000_000_000
"""A file whose times are not older than this may be written again without them moving: some clocks tick every 2 s."""


@dataclass(frozen=True)
class _File:
    name: str
    """As people may see it."""
    place: str | StoredFile
    key: str | None
    """Of its summary: moves whenever its rows, or what they are taken for, may have changed. None: it may not move."""


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

    def other_files(self) -> list[str]:
        """Of a folder of this machine, those whose names tell no format."""
        folder = Path(self.spec.location).expanduser()
        if is_url(self.spec.location) or not folder.is_dir():
            return []
        return sorted(file.name for file in _files_inside(folder) if not file.name.lower().endswith(SUFFIXES))

    def same_files(self) -> list[tuple[str, str]]:
        """Of this machine, those with rows."""
        if is_url(self.spec.location):
            return []
        alike, seen = defaultdict[tuple[int, bytes], list[Path]](list), dict[bytes, Path]()
        for file in map(Path, find_files(self.spec.location)):
            if size := file.stat().st_size:
                alike[size, _edges(str(file), size)].append(file)
        found = []
        for file in (file for files in alike.values() if len(files) > 1 for file in files):
            with file.open("rb") as content:
                first = seen.setdefault(hashlib.file_digest(content, "sha256").digest(), file)
            if first != file:
                found.append((first.name, file.name))
        return found

    @contextmanager
    def open(
        self, con: duckdb.DuckDBPyConnection, weeks: Sequence[str] | None, summarise: bool = False
    ) -> Iterator[Opened]:
        """All rows, but for files whose summary tells that they have none of those, or will do. What lies behind a URL
        is copied, and what is compressed unpacked.
        """
        files, known = self._files(), load_summaries(self.spec.summaries)
        unread = {
            file.key: known[file.key]
            for file in files
            if file.key in known and (summarise or not (weeks is None or known[file.key].has_any(weeks)))
        }
        with self._open(con, [file for file in files if file.key not in unread], unread) as opened:
            if len(opened.kinds_of_time) <= 1:
                yield opened
                return
        with self._open(con, files, {}) as opened:  # what their times are is to be decided for all of them together
            yield opened

    @contextmanager
    def _open(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[_File], unread: Mapping[str, FileSummary]
    ) -> Iterator[Opened]:
        with TemporaryDirectory(prefix="tgn-source-") as folder:
            objects = [file.place for file in files if isinstance(file.place, StoredFile)]
            paths = [*map(str, fetch(objects, Path(folder)))] or [str(file.place) for file in files]
            with _unchanged(paths):
                tables, keys = [], dict[str, str | None]()
                for file, path in zip(files, paths, strict=True):
                    table = open_file(con, self.spec, file.name, path, Path(folder))
                    keys[table.file if table else path] = file.key
                    tables += [table] if table else []
                if not tables and not unread:
                    raise empty_source(self.spec)
                # Half an object of JSON is rejected as it is.
                texts = [table for table in tables if table.relation.csv]
                unended = [table.name for table in texts if not ends_with_a_line_end(Path(table.file))]
                yield Opened(parts_of(self.spec, tables), unread, keys, unended)

    def _files(self) -> list[_File]:
        now, made_by = time.time_ns(), (repr(self.spec), _made_by(), self.spec.forgotten_ids.state)

        def key(*state: object) -> str:
            return hashlib.sha256(repr((made_by, state)).encode()).hexdigest()

        if is_url(self.spec.location):
            return [
                _File(safe_text(file.url), file, key(file.url, file.size, file.state) if file.has_version else None)
                for file in _find_objects(self.spec.location)
            ]
        found = []
        for file in find_files(self.spec.location):
            stat = Path(file).stat()
            # The time of the last change of its status cannot be set, as that of its content can: by cp -p, rsync, tar.
            settled = max(stat.st_mtime_ns, stat.st_ctime_ns) < now - SETTLED_NS
            state = file, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            found.append(_File(safe_text(file), file, key(*state) if settled else None))
        return found


@lru_cache(maxsize=1)
def _made_by() -> tuple[str, str]:
    """What rows are understood by, and hashed."""
    return code_digest(["tgn_assets.ml.sources.extent"]), duckdb.__version__


def load_summaries(path: Path | None) -> dict[str, FileSummary]:
    """The summaries by key, without those that the clock contradicts; none if the file is missing or damaged."""
    if path is None:
        return {}
    try:
        checksum, _, text = path.read_text("utf-8").partition("\n")
        if _checksum(text) != checksum:
            return {}
    except (OSError, UnicodeDecodeError):
        return {}
    found, end = dict[str, FileSummary](), horizon()
    for key, (numbers_weeks, groups) in json.loads(text).items():
        rows = [
            RowGroup(*group[:3], *(time and datetime.fromisoformat(time) for time in group[3:5]), *group[5:])
            for group in groups
        ]
        if all(group.last is None or group.last < end for group in rows):
            found[key] = FileSummary(numbers_weeks, rows)
    return found


def save_summaries(path: Path, summaries: Mapping[str, FileSummary]) -> None:
    """Remembers `summaries` and no others. Nothing happens where that is not possible: each file is read again."""
    text = json.dumps({key: (one.numbers_weeks, one.groups) for key, one in summaries.items()}, default=str)
    with suppress(OSError):  # two may write at once: the checksum tells a mixture
        replace_text(path, f"{_checksum(text)}\n{text}")


def _checksum(text: str) -> str:
    """Of what this code wrote: what another version wrote may mean something else."""
    return hashlib.sha256(f"{_made_by()}{text}".encode()).hexdigest()


def find_files(location: str) -> list[str]:
    """The data files at a path of this machine, sorted. SourceError if there are none, or it is a pipe or a device."""
    path = Path(location).expanduser()
    if path.is_dir():
        found = [str(file) for file in _files_inside(path) if file.name.lower().endswith(SUFFIXES)]
        _refuse_twice(found)
        lack = f"is a folder without {READABLE} files"
    elif path.is_file():
        return [str(path)]
    elif path.exists():
        raise _no_file(location, path)
    else:
        matching = [Path(file) for file in glob(str(path), recursive=True) if not Path(file).is_dir()]
        found = [str(file) for file in matching if _is_file(location, file)]
        lack = f"does not exist, seen from {Path.cwd()}"
    if not found:
        raise _no_files(location, lack)
    return sorted(set(found))


def _files_inside(folder: Path) -> Iterator[Path]:
    """The files in `folder` and below, but for hidden ones. SourceError for a link to a folder or to nothing, and for
    files of which some may be of older versions."""
    for file in folder.rglob("*"):
        if is_of_versions(str(file.relative_to(folder))):
            raise SourceError(f"TGN_SOURCE={folder} cannot be read as files: {OF_VERSIONS}")
        if any(part.startswith((".", "_")) for part in file.relative_to(folder).parts):
            continue
        if file.is_symlink() and not file.is_file():
            raise SourceError(
                f"TGN_SOURCE={folder}: {file} is a link to a folder, which is not followed, or to nothing, and its "
                "rows would be missing: move the files here, mend the link, or remove it"
            )
        of_a_format = file.name.lower().endswith(SUFFIXES)
        if not file.is_dir() and (_is_file(str(folder), file) if of_a_format else file.is_file()):
            yield file


def _is_file(location: str, path: Path) -> bool:
    """Whether `path` is a file; SourceError if it is a pipe or a device, whose rows would be missing."""
    if path.exists() and not path.is_file():
        raise _no_file(location, path)
    return path.is_file()


def _no_file(location: str, path: Path) -> SourceError:
    which = "" if str(path) == location else f": {path}"
    return SourceError(
        f"TGN_SOURCE={location}{which} is a pipe or a device, and a log is read more than once: name a file"
    )


def _refuse_twice(files: Sequence[str]) -> None:
    """SourceError if a file is there compressed and as it was."""
    in_any_case = {file.lower(): file for file in files}
    for file in files:
        if packed := in_any_case.get(f"{file}{GZIP}".lower()):
            raise SourceError(f"TGN_SOURCE: {file} is there twice, the other time as {packed}: remove one of both")


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
        raise _no_files(location, f"has no {READABLE} files")
    return found


def _no_files(location: str, lack: str) -> SourceError:
    return SourceError(
        f"TGN_SOURCE={location} {lack}; set it to a CSV, JSON lines or Parquet file, folder, glob or URL"
    )
