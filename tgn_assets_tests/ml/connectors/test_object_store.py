"""Sources behind URLs: in an S3-compatible server, in fsspec's memory, and on a web server of this machine."""

import gzip
import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry
from s3fs import S3FileSystem

from tgn_assets.ml.connectors import object_store
from tgn_assets.ml.connectors.object_store import StoredFile, StoreError, fetch, put, stored_files
from tgn_assets.ml.safe_text import holds_password
from tgn_assets.ml.sources import files as files_module
from tgn_assets.ml.sources.extent import describe_source, source_digests, source_signature, survey_source
from tgn_assets.ml.sources.formats import SUFFIXES
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import (
    BAD,
    EXTENT,
    HEADER,
    ROWS,
    WEEKS,
    csv,
    load,
    parquet,
    rows,
    rows_query,
    warehouse,
)
from tgn_assets_tests.support.s3 import BUCKET, SECRET, bucket

JSON = '{"ip_address": "u1", "event_id": "e1", "timestamp": "2024-01-03 10:00:00"}\nno json\n'


@pytest.fixture(scope="module")
def s3() -> Iterator[S3FileSystem]:
    with bucket() as store:
        yield store


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def serve(folder: Path, handler: type[SimpleHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Undated(Quiet):
    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified":
            BaseHTTPRequestHandler.send_header(self, keyword, value)


class Slow(Quiet):
    """Sends the log in pieces; `stall`: waits for ever before the last one."""

    stall = False

    def do_GET(self) -> None:
        text = (HEADER + ROWS).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        for place, piece in enumerate((text[:20], text[20:40], text[40:60], text[60:])):
            self.server.stopped.wait(60 if self.stall and place == 3 else 0.2)  # type: ignore[attr-defined]
            self.wfile.write(piece)
            self.wfile.flush()


class Stalled(Slow):
    stall = True


class Mute(Quiet):
    def do_HEAD(self) -> None:
        self.server.stopped.wait(60)  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self.do_HEAD()


def test_a_log_in_s3_is_loaded_as_the_same_files_here_are(s3: S3FileSystem, tmp_path: Path) -> None:
    first, *others = ROWS.splitlines(keepends=True)
    here = tmp_path / "log"
    csv(here, HEADER + first + '"a\nvalue",e,2024-01-09\n' + "\n".join(BAD) + "\n", "2024/a.CSV")
    (here / "2024" / "b[1].csv.gz").write_bytes(gzip.compress((HEADER + "".join(others)).encode()))
    csv(here, JSON, "lines.jsonl")
    csv(here, JSON, "more.ndjson")
    parquet(here, rows_query(tmp_path), "c.parquet")
    for ignored in ("notes.txt", ".hidden.csv", "_temporary/p.csv", "2024/_SUCCESS.csv"):
        csv(here, "these are notes", ignored)
    s3.put(str(here) + "/", f"{BUCKET}/folder/", recursive=True)
    local, remote = warehouse(), warehouse()
    report = load(remote, SourceSpec(f"s3://{BUCKET}/folder/"))
    assert report == load(local, SourceSpec(str(here))) and report.rejected["unreadable_line"] == 4
    for table in ("raw_interactions", "rejected_interactions", "ingested_weeks", "users", "events"):
        assert rows(remote, table) == rows(local, table)


@pytest.mark.parametrize("pattern", ["a[1].csv", "a*.csv", "?[[]1].csv", "**/*.csv"])
def test_a_file_and_a_glob_in_s3_stand_for_what_they_name(s3: S3FileSystem, pattern: str) -> None:
    s3.pipe({f"{BUCKET}/glob/a[1].csv": (HEADER + ROWS).encode(), f"{BUCKET}/glob/notes.txt": b"not this one"})
    assert describe_source(SourceSpec(f"s3://{BUCKET}/glob/{pattern}")) == EXTENT


def test_signature_changes_with_objects_without_reading_them(s3: S3FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.pipe(f"{BUCKET}/watched/a.csv", (HEADER + ROWS).encode())
    spec = SourceSpec(f"s3://{BUCKET}/watched")

    def unread(*_: object, **__: object) -> None:
        raise AssertionError("an object was read")

    monkeypatch.setattr(S3FileSystem, "_get_file", unread)
    monkeypatch.setattr(S3FileSystem, "_open", unread)
    first = source_signature(spec, datetime(2024, 1, 1, 12))
    assert source_signature(spec, datetime(2024, 1, 1, 13)) == first
    s3.pipe(f"{BUCKET}/watched/a.csv", (HEADER + ROWS).replace("u1", "u3").encode())
    second = source_signature(spec)
    s3.pipe(f"{BUCKET}/watched/b.csv", HEADER.encode())
    assert len({first, second, source_signature(spec)}) == 3


def test_objects_that_did_not_change_are_not_fetched_again(
    s3: S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (HEADER + row for row in ROWS.splitlines(keepends=True))
    s3.pipe({f"{BUCKET}/grown/a.csv": first.encode(), f"{BUCKET}/grown/b.csv": second.encode()})
    spec = SourceSpec(f"s3://{BUCKET}/grown", summaries=tmp_path / "summaries.json")
    survey_source(spec)
    fetched = list[str]()

    def watched(files: Sequence[StoredFile], folder: Path) -> list[Path]:
        fetched.extend(file.url for file in files)
        return fetch(files, folder)

    monkeypatch.setattr(files_module, "fetch", watched)
    s3.pipe({f"{BUCKET}/grown/b.csv": second.replace("u2", "u3").encode(), f"{BUCKET}/grown/c.csv": third.encode()})
    found = survey_source(spec)
    assert fetched == [f"s3://{BUCKET}/grown/b.csv", f"s3://{BUCKET}/grown/c.csv"]
    assert found == survey_source(replace(spec, summaries=None))
    fetched.clear()
    with warehouse() as con:
        assert load(con, spec, WEEKS[:1]).rows == {WEEKS[0]: 1}
    assert fetched == [f"s3://{BUCKET}/grown/a.csv"]


def test_what_has_no_version_is_read_each_time(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.pipe("/store/a.csv", (HEADER + ROWS).encode())
    spec = SourceSpec("memory://store", summaries=tmp_path / "summaries.json")
    found = survey_source(spec)
    memory.store["/store/a.csv"].getbuffer()[len(HEADER) + 1 : len(HEADER) + 2] = b"7"  # of the same size and time
    assert survey_source(spec) != found


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"s3://{BUCKET}/nowhere.csv", r"has no \.csv"),
        (f"s3://{BUCKET}/nowhere/*.csv", r"has no \.csv"),
        ("s3://no-such-bucket/log.csv", r"has no \.csv"),
        ("memory://nowhere/*.csv", r"has no \.csv"),
        ("http://127.0.0.1:9/log.csv", "there is nothing at .*, or nothing answers"),
        ("nope://a/b.csv", "nope:// is no kind of address"),
    ],
)
def test_what_is_not_there_is_an_error_that_names_the_setting(s3: S3FileSystem, url: str, message: str) -> None:
    for use in (describe_source, source_signature, lambda spec: source_digests(spec, WEEKS)):
        with pytest.raises(SourceError, match=f"TGN_SOURCE={url.replace('*', '.*')} .*{message}"):
            use(SourceSpec(url))


def test_missing_package_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(SourceError, match=r"pip install -c constraints.txt -e '\.\[s3\]'"):
        describe_source(SourceSpec("s3://bucket/log.csv"))


def test_a_server_that_is_away_is_an_error_without_a_secret(
    s3: S3FileSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as raised:
        describe_source(SourceSpec(f"s3://{BUCKET}/log.csv"))
    assert "Could not connect" in str(raised.value) and "check the address, AWS_ACCESS_KEY_ID" in str(raised.value)
    assert "127.0.0.1:9" in caplog.text and SECRET not in caplog.text + str(raised.value)


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        ("s3://AKID:sec/ret@bucket/log.csv", True),
        ("https://user:secret@example.org/log.csv", True),
        ("https://example.org:8080/a@b.csv", False),
        ("abfs://container@account.dfs.core.windows.net/log.csv", False),
        ("s3://bucket/a:b@c.csv", False),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str, holds: bool) -> None:
    assert holds_password(url) == holds
    if holds:
        with pytest.raises(SourceError, match="TGN_SOURCE holds a password") as raised:
            source_signature(SourceSpec(url))
        assert "ret" not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (403, "HTTP 403; it may want credentials"),
        (429, "HTTP 429; try again later"),
        (500, "HTTP 500; try again later"),
        (304, "HTTP 304, which is not the whole file"),
    ],
)
def test_what_a_web_server_answers_is_said(tmp_path: Path, code: int, says: str) -> None:
    class Refusing(Quiet):
        def do_HEAD(self) -> None:
            self.send_error(code)

        do_GET = do_HEAD  # noqa: N815 (a name of the standard library)

    server = serve(tmp_path, Refusing)
    with pytest.raises(SourceError, match=rf"log.csv answers with {says}"):
        describe_source(SourceSpec(f"http://127.0.0.1:{server.server_port}/log.csv"))


@pytest.mark.parametrize("head", [200, 206, 405])
def test_a_part_of_a_file_is_not_taken_for_all_of_it(tmp_path: Path, head: int) -> None:
    class InPart(Quiet):
        def do_HEAD(self) -> None:
            self.send_response(head)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(206)
            self.send_header("Content-Length", str(len(HEADER + ROWS)))
            self.end_headers()
            self.wfile.write((HEADER + ROWS).encode())

    server = serve(tmp_path, InPart)
    with pytest.raises(SourceError, match=r"log.csv answers with HTTP 206, which is not the whole file"):
        describe_source(SourceSpec(f"http://127.0.0.1:{server.server_port}/log.csv"))


def test_web_source_counts_bad_lines_and_asks_for_changes(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    csv(tmp_path, HEADER + ROWS + "u,e\nu,e,1,2\n")
    server = serve(tmp_path, Quiet)
    spec = SourceSpec(f"http://127.0.0.1:{server.server_port}/log.csv?version=1")
    assert describe_source(spec) == replace(EXTENT, rejected={"unreadable_line": 2})
    signature = source_signature(spec)
    assert source_signature(spec) == signature
    file.write_text(HEADER)
    assert source_signature(spec) != signature
    server.shutdown()


def test_web_server_without_dates_changes_signature_hourly(tmp_path: Path) -> None:
    csv(tmp_path)
    server = serve(tmp_path, Undated)
    spec, now = SourceSpec(f"http://127.0.0.1:{server.server_port}/log.csv"), datetime(2024, 1, 1, 12)
    still, moved = datetime(2024, 1, 1, 12, 59), datetime(2024, 1, 1, 13)
    assert source_signature(spec, still) == source_signature(spec, now) != source_signature(spec, moved)
    server.shutdown()


def slow(tmp_path: Path, handler: type[SimpleHTTPRequestHandler]) -> tuple[ThreadingHTTPServer, SourceSpec]:
    csv(tmp_path)
    server = serve(tmp_path, handler)
    server.stopped = threading.Event()  # type: ignore[attr-defined]
    return server, SourceSpec(f"http://127.0.0.1:{server.server_port}/log.csv")


def test_slow_web_server_is_read_as_long_as_bytes_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "STALL_SECONDS", 0.5)
    server, spec = slow(tmp_path, Slow)
    assert describe_source(spec) == EXTENT  # after 0.8 s
    server.shutdown()


@pytest.mark.parametrize("handler", [Stalled, Mute])
def test_stalled_web_server_fails_soon(
    handler: type[SimpleHTTPRequestHandler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "STALL_SECONDS", 0.4)
    server, spec = slow(tmp_path, handler)
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"the server sent nothing for 0\.4 s"):
        describe_source(spec)
    assert time.monotonic() - start < 10
    server.stopped.set()  # type: ignore[attr-defined]
    server.shutdown()


def test_any_store_that_fsspec_knows_is_read_and_written(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    put(Path(csv(tmp_path).location), "memory://store/log.csv")
    assert describe_source(SourceSpec("memory://store")) == EXTENT
    assert describe_source(SourceSpec(f"file://{tmp_path}/*.csv")) == EXTENT


def test_object_that_shrank_after_listing_is_refused(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.pipe("/store/log.csv", (HEADER + ROWS).encode())
    listed = stored_files("memory://store", SUFFIXES)
    memory.pipe("/store/log.csv", HEADER.encode())
    with pytest.raises(StoreError, match="it changed: read it again"):
        fetch(listed, tmp_path)
