"""What a file is that cannot be read, and what to do about it."""

import bz2
import errno
import gzip
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest

from tgn_assets.ml.sources import formats
from tgn_assets.ml.sources.extent import describe_source, source_digests
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import EXTENT, HEADER, ROWS, WEEKS, csv

LOG = HEADER + ROWS
LATIN = LOG.replace("u1", "Müller").encode("latin-1")
RECORDS = [dict(zip(HEADER.strip().split(","), row.split(","), strict=True)) for row in ROWS.split("\n") if row]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("log.csv", LOG)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", LOG.encode("utf-16"), "UTF-16, .*iconv -f UTF-16"),
        ("log.csv", LOG.encode("utf-16-le"), "UTF-16, .*iconv -f UTF-16"),
        ("log.csv.gz", gzip.compress(LOG.encode("utf-16"), mtime=0), "UTF-16, .*iconv -f UTF-16"),
        ("log.csv", LOG.encode("utf-32"), "UTF-32, .*iconv -f UTF-32"),
        ("log.csv", LOG.encode("utf-32-be"), "UTF-32, .*iconv -f UTF-32"),
        ("log.csv", LATIN, r"not text in UTF-8 \(line 2\); .*Latin-1.* iconv"),
        ("log.jsonl", LATIN, r"not text in UTF-8 \(line 2\)"),
        ("log.csv", "größe,a\n".encode("latin-1") + b"1,2\n" * 999, r"not text in UTF-8 \(line 1\)"),
        ("log.csv", b"sep=;\n" + LOG.encode(), "first line of .* is 'sep=;'.*remove what comes before"),
        ("log.csv", b"# made on Monday\n" + LOG.encode(), "is '# made on Monday'.*remove what comes before"),
        ("log.csv.zst", b"\x28\xb5\x2f\xfd...", "compressed by zstd, .*zstd -d"),
        ("log.zip", zipped(), "a ZIP archive or a workbook, .*unpack it"),
        ("log", gzip.compress(LOG.encode(), mtime=0), r"compressed by gzip, .*ends in \.csv\.gz"),
        ("log.csv", b"log.csv".ljust(257, b"\0") + b"ustar", "an archive, .*unpack it"),
        ("log.csv", b'\xef\xbb\xbf<?xml version="1.0"?>', "XML, .*write it as CSV"),
        ("log.csv", b"<rows>\n  <row/>", "XML, .*write it as CSV"),
        ("log.csv", b"%PDF-1.7\n", "a document, .*as CSV"),
        ("log.csv", b"RDX3\nX\n\0", "no text, .*write its table"),
        ("log.csv", json.dumps(RECORDS).encode(), r"JSON by its content: .*ends in \.jsonl"),
        ("log.csv", b"PAR1\x15\x04\0", r"Parquet by its content, .*ends in \.parquet"),
        ("log.tgz", gzip.compress(LOG.encode(), mtime=0), "compressed by gzip, .*unpack it if it is an archive"),
        ("log.csv", b"user^item^ts\n", "separated by commas, semicolons, tabs"),
        ("log.csv", b"ARROW1\0\0", "is Arrow, ORC or Avro, .*Parquet"),
        ("log.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not text in UTF-8"),
    ],
)
def test_a_format_that_is_not_read_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        describe_source(SourceSpec(str(tmp_path / name)))


def test_a_new_binary_format_claims_its_files_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object, spec: object, name: str, file: str) -> None:
        raise SourceError("the workbook was opened")

    workbook = formats.FileFormat((".xlsx",), refuse, magic=rb"PK\x03\x04", is_text=False)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, workbook))
    for name, message in (("log.xlsx", "was opened"), ("log", "was opened"), ("log.csv", "a ZIP archive")):
        (tmp_path / name).write_bytes(zipped())
        with pytest.raises(SourceError, match=message):
            describe_source(SourceSpec(str(tmp_path / name)))


def test_a_full_disk_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(LOG.encode(), mtime=0))
    monkeypatch.setattr(shutil, "copyfileobj", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(SourceError, match=r"the disk of the temporary folder .* is full: make room, or set TMPDIR"):
        describe_source(SourceSpec(str(tmp_path / "log.csv.gz")))


def test_packed_files_of_a_folder_are_not_passed_over(tmp_path: Path) -> None:
    csv(tmp_path)
    (tmp_path / "more.csv.zip").write_bytes(zipped())
    with pytest.raises(SourceError, match=r"more\.csv\.zip is a ZIP archive"):
        describe_source(SourceSpec(str(tmp_path)))


def test_a_damaged_line_among_many_is_rejected_by_itself(tmp_path: Path) -> None:
    lines = [b"u,e,2024-01-03\n"] * 200
    (tmp_path / "log.csv").write_bytes(HEADER.encode() + b"".join(lines) + b"\xff,e,2024-01-03\n")
    assert describe_source(SourceSpec(str(tmp_path / "log.csv"))).rejected == {"unreadable_line": 1}


def test_what_a_server_unpacked_is_read_whatever_its_name(tmp_path: Path) -> None:
    assert describe_source(csv(tmp_path, name="log.csv.gz")) == EXTENT


def test_a_header_may_have_angle_brackets(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("<user>,<item>,timestamp\nu,e,2024-01-03\n")
    assert describe_source(SourceSpec(str(tmp_path / "log.csv"), "<user>", "<item>")).first_week == "2024-01-01"


def test_a_header_may_begin_with_a_hash(tmp_path: Path) -> None:
    assert describe_source(csv(tmp_path, LOG.replace("ip_address", "#ip,ip_address").replace("\nu", "\n1,u"))) == EXTENT


def test_a_json_array_is_the_same_log_as_csv(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    expected = source_digests(csv(tmp_path / "csv"), WEEKS)
    for text in (json.dumps(RECORDS), json.dumps(RECORDS, indent=1), "\n".join(map(json.dumps, RECORDS))):
        for name in ("log.json", "log.jsonl", "events"):
            (tmp_path / name).write_text(text)
            assert source_digests(SourceSpec(str(tmp_path / name)), WEEKS) == expected
    file.write_text(json.dumps([*RECORDS, 5, None, {"event_id": "e", "timestamp": "2024-01-03"}]))
    assert describe_source(SourceSpec(str(file))).rejected == {"unreadable_line": 2, "missing_user": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no rows"),
        ("[1]", "is a JSON object"),
        ('["u"]\n["v"]\n', "is a JSON object"),
        ('[{"ip_address": "u"', "cannot be read .*Malformed JSON"),
    ],
)
def test_a_json_array_without_objects_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        describe_source(SourceSpec(str(tmp_path / "log.json")))


TEXT = "ip_address,event_id,timestamp\nann,tea,2024-01-01\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one file."""
    (tmp_path / "jan.csv").write_text(TEXT)
    return tmp_path


def look(source: Path) -> str:
    """The first week of what is read."""
    return describe_source(SourceSpec(str(source))).first_week


def test_links_that_lead_to_no_file_are_an_error(folder: Path) -> None:
    (link := folder / "feb.csv").symlink_to(folder / "unmounted.csv")
    with pytest.raises(SourceError, match=r"feb\.csv is a link to a folder, which is not followed, or to nothing"):
        look(folder)
    link.unlink()
    link.symlink_to(folder.parent, target_is_directory=True)
    with pytest.raises(SourceError, match="mend the link, or remove it"):
        look(folder)
    link.unlink()
    link.symlink_to(folder / "jan.csv")
    assert look(folder) == "2024-01-01"


@pytest.mark.parametrize("kept", ["_delta_log/0.json", ".hoodie/hoodie.properties", "metadata/v1.metadata.json"])
def test_tables_with_files_of_older_versions_are_refused(folder: Path, kept: str) -> None:
    (folder / kept).parent.mkdir()
    (folder / kept).write_text("{}")
    with pytest.raises(SourceError, match="older versions"):
        describe_source(SourceSpec(str(folder)))
    assert describe_source(SourceSpec(str(folder / "*.csv"))).rejected == {}


def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(SourceError, match=r"log\.csv is a pipe or a device"):
        look(tmp_path / "log.csv")


def test_a_pipe_among_files_is_not_passed_over(folder: Path) -> None:
    os.mkfifo(folder / "more.lock")
    look(folder)
    os.mkfifo(folder / "more.csv")
    for source in (folder, folder / "*.csv"):
        with pytest.raises(SourceError, match=r": .*more\.csv is a pipe or a device"):
            look(source)


@pytest.mark.parametrize("packed", ["jan.csv.gz", "Jan.CSV.GZ"])
def test_a_file_that_is_there_compressed_as_well_is_an_error(folder: Path, packed: str) -> None:
    (folder / packed).write_bytes(gzip.compress(TEXT.encode()))
    with pytest.raises(SourceError, match=rf"jan\.csv is there twice, the other time as .*{packed}: remove one"):
        look(folder)


def test_a_compression_that_is_not_read_is_an_error(folder: Path) -> None:
    (folder / "feb.csv.bz2").write_bytes(bz2.compress(TEXT.encode()))
    with pytest.raises(SourceError, match=r"feb\.csv\.bz2 is compressed by bzip2, which is not read: unpack it"):
        look(folder)


def test_names_of_columns_in_another_order_are_an_error(tmp_path: Path) -> None:
    (log := tmp_path / "log.csv").write_text(TEXT + TEXT)  # the same names again are a line that cannot be read
    assert look(log) == "2024-01-01"
    log.write_text(TEXT + "event_id,ip_address,timestamp\nrye,bob,2024-01-02\n")
    with pytest.raises(SourceError, match="columns' names in another order"):
        look(log)
