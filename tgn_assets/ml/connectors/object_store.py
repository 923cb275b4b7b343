"""Files behind a URL, in an object store or on a web server, through fsspec: what there is, copies, and uploads.

Nothing is read in place: of a copy it can be told whether every line is accounted for (`csv_repair`), and DuckDB may
hang where it reads Parquet through Python (issue 16501 of duckdb/duckdb). Credentials come from the environment, as
each store's own client reads them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from http import HTTPStatus
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from tgn_assets.ml.safe_text import SafeError, first_line, safe_error

WEB = ("http", "https")
STATES = {"etag", "generation", "content-md5", "md5hash", "lastmodified", "last_modified", "last-modified"} | {
    *("mtime", "modified", "updated", "created")
}
"""What stores call the fields that move when a file is written."""
VERSIONS = {"etag", "generation", "content-md5", "md5hash"}
"""Those that move even if it is written twice at the same time."""


STALL_SECONDS = 30
"""A server that sends no byte for so long is given up; how long a file takes as a whole does not matter."""


class StoreError(SafeError, OSError):
    """A store that does not do what it is asked; the message says what to do."""


@dataclass(frozen=True)
class StoredFile:
    """A file behind a URL."""

    url: str
    path: str
    """What its store calls it."""
    size: int | None
    """Bytes; None where the store does not say."""
    state: tuple[str, ...]
    """Moves when the file is written; empty where the store says nothing of it."""

    @property
    def has_version(self) -> bool:
        """Whether `state` moves with every change: the ETag of a web server may not."""
        return _scheme(self.url) not in WEB and any(field.split()[0].lower() in VERSIONS for field in self.state)


OF_VERSIONS = (
    "it is a table of Delta Lake, Hudi or Iceberg, whose folder has the files of its older versions as well: write its "
    "rows as Parquet to another folder, or name the files by a glob if the rows of all of them count"
)
"""Of a folder: what it is, and what to do."""


def is_url(location: str) -> bool:
    """Whether `location` is a URL, not a path."""
    return "://" in location


def stored_files(location: str, suffixes: tuple[str, ...]) -> list[StoredFile]:
    """The file at the URL `location`, those that it matches as a glob, or those below it that end in `suffixes`.

    Sorted by name, without opening any. What begins with a dot or an underscore is left out of a folder, and a URL of
    the web is one file, whatever it looks like. Empty if there are none; StoreError if the store cannot be asked.
    """
    with _store(location) as (fs, path):
        found = {path: fs.info(path)} if _scheme(location) in WEB else _find(fs, path, suffixes)
        return [
            StoredFile(str(fs.unstrip_protocol(name)), name, info.get("size"), _state(info))
            for name, info in sorted(found.items())
        ]


def fetch(files: Sequence[StoredFile], folder: Path) -> list[Path]:
    """Copies of `files`, all of one store, in `folder`. StoreError if one cannot be had as it was listed."""
    if not files:
        return []
    copies = [folder / hashlib.sha256(file.url.encode()).hexdigest() for file in files]
    with _store(files[0].url) as (fs, _):
        fs.get([file.path for file in files], [str(copy) for copy in copies])
    for file, copy in zip(files, copies, strict=True):
        there = copy.stat().st_size
        # A web server may send a compressed body and tell its length.
        if file.size not in (None, there) and _scheme(file.url) not in WEB:
            raise StoreError(f"{file.url} came with {there} bytes instead of {file.size}; it changed: read it again")
    return copies


def is_of_versions(file: str) -> bool:
    """Whether the path is of what Delta Lake, Hudi or Iceberg keep about the files of a table."""
    return re.search(r"(?:^|/)(?:_delta_log|\.hoodie)(?:/|$)|\.metadata\.json$", file) is not None


def put(file: Path, url: str) -> None:
    """Makes the object at `url` a copy of `file`: as a whole, as object stores do. StoreError if it cannot be."""
    with _store(url) as (fs, path):
        fs.put_file(str(file), path)


def _find(fs: Any, path: str, suffixes: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    try:
        itself = fs.info(path)
    except FileNotFoundError:
        found: dict[str, Mapping[str, Any]] = fs.glob(path, detail=True)
        return {name: info for name, info in found.items() if info["type"] == "file"}
    if itself["type"] == "file":
        return {path: itself}
    below = fs.find(path, detail=True)
    if any(map(is_of_versions, (name[len(path) :] for name in below))):
        raise StoreError(OF_VERSIONS)
    shown = {name: info for name, info in below.items() if not re.search(r"(?:^|/)[._]", name[len(path) :])}
    return {name: info for name, info in shown.items() if name.lower().endswith(suffixes)}


def _state(info: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name} {info[name]}" for name in sorted(info) if name.lower() in STATES)


@contextmanager
def _store(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of `url`, which remembers no listing, and the path in it. Any error within becomes a StoreError:
    each client has kinds of its own.
    """
    scheme = _scheme(url)
    try:
        fs, path = url_to_fs(url, **_options(scheme))
        fs.invalidate_cache()
        yield fs, path
    except StoreError:
        raise
    except ImportError as error:
        package = "-c constraints.txt -e '.[s3]'" if scheme in ("s3", "s3a") else "what fsspec names"
        raise StoreError(f"{scheme}:// needs a package ({error}): pip install {package}") from safe_error(error)
    except Exception as error:  # noqa: BLE001 (raised again)
        if is_full(error):
            raise StoreError(full_disk()) from safe_error(error)
        if _has_stalled(error):
            said = f"the server sent nothing for {STALL_SECONDS:g} s; try again later"
            raise StoreError(said) from safe_error(error)
        status = next((code for one in _causes(error) if (code := getattr(one, "status", None))), None)
        if isinstance(error, FileNotFoundError) or (scheme in WEB and status and status < HTTPStatus.BAD_REQUEST):
            said = _of_status(url, status) if status else f"there is nothing at {url}, or nothing answers there"
            raise StoreError(said) from safe_error(error)
        said = f"{first_line(error)}; {_remedy(scheme)}"
        if scheme not in {*fsspec.available_protocols(), *fsspec.registry}:
            known = "s3, gs, az, https and what else fsspec knows"
            said = f"{scheme}:// is no kind of address that can be read; there are {known}"
        raise StoreError(said) from safe_error(error)


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is the reason of `error`."""
    return any(getattr(one, "errno", None) == ENOSPC for one in _causes(error))


def full_disk() -> str:
    """What to do where what is read has no room in the temporary folder."""
    return (
        f"the disk of the temporary folder {gettempdir()} is full: make room, or set TMPDIR to a larger one; a file "
        "that never ends fits nowhere"
    )


def _has_stalled(error: BaseException | None) -> bool:
    """Whether a time limit is the reason of `error`; botocore has classes of its own for it."""
    names = ("ReadTimeoutError", "ConnectTimeoutError")
    return any(isinstance(one, TimeoutError) or type(one).__name__ in names for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def _options(scheme: str) -> dict[str, Any]:
    if scheme in WEB:
        from aiohttp import ClientTimeout

        stalled = ClientTimeout(total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS)
        return {"client_kwargs": {"timeout": stalled, "raise_for_status": _refuse_other_than_whole}}
    if scheme not in ("s3", "s3a"):
        return {}
    # botocore itself reads AWS_DEFAULT_REGION only. The endpoint is named so that a store of another is another one.
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return {
        "endpoint_url": endpoint or None,
        "client_kwargs": {"region_name": region} if region else {},
        "config_kwargs": {"connect_timeout": STALL_SECONDS, "read_timeout": STALL_SECONDS},
    }


async def _refuse_other_than_whole(response: Any) -> None:
    """ClientResponseError for an answer without an error that is not the whole file: 204, 206, 304."""
    from aiohttp import ClientResponseError

    if response.status < HTTPStatus.BAD_REQUEST and response.status != HTTPStatus.OK:
        raise ClientResponseError(response.request_info, response.history, status=response.status)


def _of_status(url: str, status: int) -> str:
    """What an answer of the web means."""
    said = f"{url} answers with HTTP {status}"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"{said}; it may want credentials, or the address has expired"
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"{said}; try again later"
    return said if status >= HTTPStatus.BAD_REQUEST else f"{said}, which is not the whole file"


def _remedy(scheme: str) -> str:
    if scheme not in ("s3", "s3a"):
        return "check the address, and the credentials in the environment"
    return "check the address, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, off Amazon, AWS_ENDPOINT_URL"


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()
