"""What a source is, and the files that it is made of."""

from __future__ import annotations

import csv
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob
from pathlib import Path

import duckdb

from tgn_assets.ml.connectors.credentials import holds_password
from tgn_assets.ml.connectors.object_store import StoredFile, StoreError, fetch, is_url, stored_files
from tgn_assets.ml.connectors.postgres import PostgresError, answer, is_postgres
from tgn_assets.ml.weeks import shift, week_of

SYNTHETIC = "synthetic"
WEEK_NUMBER = "week_number"
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = CSV_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES


class SourceError(ValueError):
    """The source cannot be used as it is; the message names the setting (TGN_SOURCE, ...) and says what to do."""


@dataclass(frozen=True)
class SourceSpec:
    """An interaction log: `synthetic`, a file, folder, glob or URL of CSV, JSON lines or Parquet, or a query of
    PostgreSQL; and its columns.
    """

    location: str
    user_column: str = "ip_address"
    event_column: str = "event_id"
    timestamp_column: str = "timestamp"
    week_number_anchor: tuple[int, str] | None = None
    """Where the log has a column `week_number` and no timestamps: one number and the Monday that it stands for."""
    start_week: str | None = None
    """First week of a synthetic source; None: 26 weeks before the current one."""
    seed: int = 0
    """Of a synthetic source."""
    row_filter: str | None = None
    """An SQL condition on the columns of the source: other rows are as if they were not there."""
    query: str | None = None
    """Of PostgreSQL: a table or a SELECT."""


def source_signature(spec: SourceSpec, now: datetime | None = None) -> str:
    """Moves when the source may have changed: no file is opened, only names, sizes and times of change are looked at.

    Of what lies behind a URL, the store is asked; PostgreSQL, and a web server that does not tell when a file was
    written, have a new signature every hour. A synthetic source has one every week, as it grows by one. SourceError if
    there is no file.
    """
    now = now or datetime.now(UTC)
    if spec.location == SYNTHETIC:
        state: object = week_of(now)
    elif is_postgres(spec.location):
        state = f"{now:%Y-%m-%d %H}"
    elif is_url(spec.location):
        with source_errors(spec):
            objects = _find_objects(spec.location)
        state = objects, None if all(file.state for file in objects) else f"{now:%Y-%m-%d %H}"
    else:
        with source_errors(spec):
            stats = {file: Path(file).stat() for file in find_files(spec.location)}
        state = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()]
    return hashlib.sha256(repr((spec, state)).encode()).hexdigest()


def local_files(location: str, folder: Path) -> list[tuple[str, str]]:
    """The data files at `location`, sorted: the name of each and where it is on this machine.

    What lies behind a URL is copied into `folder`. SourceError if there are none.
    """
    if not is_url(location):
        return [(file, file) for file in find_files(location)]
    objects = _find_objects(location)
    return [(file.url, str(copy)) for file, copy in zip(objects, fetch(objects, folder), strict=True)]


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


def is_json(name: str) -> bool:
    """By the name alone: another file is CSV, or Parquet."""
    return _name(name).endswith(JSON_SUFFIXES)


def is_packed(name: str) -> bool:
    return _name(name).endswith(".gz")


def is_parquet(name: str, file: str) -> bool:
    """By the name, or else by how the `file` of this machine begins; OSError if it cannot be opened."""
    if _name(name).endswith(SUFFIXES):
        return _name(name).endswith(PARQUET_SUFFIXES)
    with open(file, "rb") as opened:
        return opened.read(4) == b"PAR1"


def last_ended_week(now: datetime | None = None) -> str:
    """The newest calendar week that is over at `now` (default: the current time, UTC)."""
    return shift(week_of(now or datetime.now(UTC)), -1)


def empty_source(spec: SourceSpec) -> SourceError:
    return SourceError(f"TGN_SOURCE={spec.location} has no rows; check that the export that writes it has run")


@contextmanager
def source_errors(spec: SourceSpec) -> Iterator[None]:
    """Turns what DuckDB or the file system say of a source that cannot be read into a SourceError."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except StoreError as error:
        raise SourceError(f"TGN_SOURCE={spec.location} cannot be read: {error}") from error
    except PostgresError as error:
        raise SourceError(f"TGN_SOURCE={spec.location} cannot be read ({error}); {error.remedy}") from error
    except (duckdb.Error, OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        reason = answer(error) if is_postgres(spec.location) else str(error).splitlines()[0]
        if spec.row_filter and isinstance(error, (duckdb.ConversionException, duckdb.BinderException)):
            raise SourceError(
                f"TGN_SOURCE={spec.location} cannot be read with TGN_ROW_FILTER={spec.row_filter} ({reason}); the "
                "columns of CSV and JSON lines are text: write TRY_CAST(amount AS DOUBLE) > 5 for a number"
            ) from error
        remedy = "check that it is whole, CSV or JSON lines in UTF-8, or Parquet, and that you may read it"
        if is_postgres(spec.location):
            remedy = "check TGN_SOURCE_QUERY, and that the server let it come to an end"
        raise SourceError(f"TGN_SOURCE={spec.location} cannot be read ({reason}); {remedy}") from error


def _name(file: str) -> str:
    name = file.lower()
    return name.split("?")[0] if name.startswith(("http://", "https://")) else name


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
