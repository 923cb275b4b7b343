import gzip
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.sources import formats
from tgn_assets.ml.sources.extent import describe_source, smallest_week_number, source_digests, source_signature
from tgn_assets.ml.sources.reader import kind_of
from tgn_assets.ml.sources.relations import Column, Relation, Table
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import EXTENT, HEADER, ROWS, WEEKS, csv, parquet, rows_query


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_the_one_that_splits_the_header(tmp_path: Path, delimiter: str, line_end: str) -> None:
    text = "\ufeff" + (HEADER + ROWS).replace(",", delimiter).replace("\n", line_end)
    assert describe_source(csv(tmp_path, text)) == EXTENT


def test_columns_are_found_among_others_in_any_case_and_quoted(tmp_path: Path) -> None:
    text = 'x, "Event_ID" ,x,TIMESTAMP,ip_address\n1,e,2,2024-01-21 10:00:00,u\n'
    assert describe_source(csv(tmp_path, text)).newest_row == EXTENT.newest_row


def test_compressed_and_oddly_named_files_are_read(tmp_path: Path) -> None:
    packed = tmp_path / "log[1].csv.gz"
    packed.write_bytes(gzip.compress((HEADER + ROWS).encode()))
    csv(tmp_path, HEADER + "u,e,1990-01-01\n", "log1.csv")
    assert describe_source(SourceSpec(str(packed))) == EXTENT
    assert describe_source(csv(tmp_path, name="a*'b[2]?.csv")) == EXTENT
    plain = parquet(tmp_path, rows_query(tmp_path))
    for name in ("log", "log.gz"):  # Parquet by its first bytes, whatever its name
        plain = SourceSpec(str(Path(plain.location).rename(tmp_path / name)))
        assert describe_source(plain) == EXTENT


def test_folder_and_glob_read_all_files_of_every_format(tmp_path: Path) -> None:
    first, *others = ROWS.splitlines(keepends=True)
    log = tmp_path / "log"
    csv(log, HEADER + first, "2024/a.CSV")
    csv(log, "timestamp;event_id;ip_address\n2024-01-09 10:00:00;e1;u2\n", "2024/b.csv")
    parquet(log, "SELECT 'u1' AS ip_address, 'e2' AS event_id, 1705831200 AS timestamp", "c.parquet")
    csv(log, "", "empty.csv")
    csv(log, "these are notes", "notes.txt")
    csv(log, "u", ".hidden.csv")
    csv(log, "u", "_temporary/p.csv")
    assert describe_source(SourceSpec(str(log))) == EXTENT
    csv(log, HEADER + "".join(others), "2024/b.csv")
    assert describe_source(SourceSpec(str(log / "2024" / "?.[Cc]*"))) == EXTENT
    assert source_digests(SourceSpec(str(log)), WEEKS)["2024-01-15"].startswith("2-")


def test_an_entry_alone_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks between columns, no header: found by name, unpacked, its lines counted and rejected as those of CSV."""
    names = {"ip_address": "u", "event_id": "e", "timestamp": "t"}
    sql = f"""read_csv($files, auto_detect = false, header = false, delim = ' ', store_rejects = true,
                       columns = {dict.fromkeys(names.values(), "VARCHAR")})"""
    columns = {name: Column(short, "VARCHAR") for name, short in names.items()}
    blanks = formats.FileFormat((".log",), lambda _, __, name, file: Table(name, file, columns, Relation(sql, 0)))
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, blanks))
    file = tmp_path / "web.log.gz"
    file.write_bytes(gzip.compress(b"u1 e1 2024-01-14T23:59:59\nu1 e1\nu2 e1 2024-01-21T10:00:00\n"))
    extent = describe_source(SourceSpec(str(file)))
    assert (extent.first_week, extent.closed_by_rows, extent.rejected) == (
        "2024-01-08",
        "2024-01-15",
        {"unreadable_line": 1},
    )


def test_unreadable_lines_are_counted_across_file_shapes(tmp_path: Path) -> None:
    csv(tmp_path, HEADER + ROWS + "u,e\n")
    csv(tmp_path, "event_id\ttimestamp\tip_address\ne\n", "log.tsv")
    csv(tmp_path, HEADER + "u,e\n", "more.csv")
    parquet(tmp_path, rows_query(tmp_path / "other"))
    assert describe_source(SourceSpec(str(tmp_path))).rejected == {"unreadable_line": 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "TGN_SOURCE=.*missing.csv does not exist"),
        ("*.csv", r"TGN_SOURCE=.*\*.csv does not exist"),
        ("", "TGN_SOURCE=.* is a folder without ((?!zst).)*, .pq files"),
    ],
)
def test_missing_source_names_the_setting(tmp_path: Path, name: str, message: str) -> None:
    for use in (describe_source, smallest_week_number, source_signature, lambda spec: source_digests(spec, WEEKS)):
        with pytest.raises(SourceError, match=message):
            use(SourceSpec(str(tmp_path / name)))


@pytest.mark.parametrize(
    ("column", "setting"),
    [
        ("user_column", "TGN_USER_COLUMN"),
        ("event_column", "TGN_EVENT_COLUMN"),
        ("timestamp_column", "TGN_TIMESTAMP_COLUMN"),
    ],
)
def test_missing_column_names_setting_and_lists_columns(tmp_path: Path, column: str, setting: str) -> None:
    wrong: dict[str, Any] = {column: "nope"}
    with pytest.raises(
        SourceError, match=rf"log.csv has no column 'nope'.*{setting}.*'ip_address', 'event_id', 'times"
    ):
        describe_source(replace(csv(tmp_path), **wrong))
    spec = parquet(tmp_path, rows_query(tmp_path))
    with pytest.raises(SourceError, match=rf"has no column 'nope'.*{setting}.*'ip_address', 'event_id', 'timestamp'"):
        describe_source(replace(spec, **wrong))


@pytest.mark.parametrize(
    ("text", "message"), [("", "has no rows"), (HEADER, "has no rows"), ("\n" + HEADER, "is empty")]
)
def test_an_empty_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        describe_source(csv(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.parquet", b"PAR1 but not really"),
        ("log.csv.gz", gzip.compress(ROWS.encode() * 100, mtime=0)[:-20]),
    ],
)
def test_a_damaged_file_is_an_error_with_its_reason(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=r"TGN_SOURCE=.*cannot be read \(.+\); check"):
        describe_source(SourceSpec(str(tmp_path / name)))


def test_a_truncated_parquet_file_is_an_error(tmp_path: Path) -> None:
    query = "SELECT i::VARCHAR AS ip_address, i AS event_id, 1704100000 + i AS timestamp FROM range(9999) AS t(i)"
    file = Path(parquet(tmp_path, query).location)
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes(5000) + whole[5200:])
    with pytest.raises(SourceError, match="cannot be read"):
        describe_source(SourceSpec(str(file)))


def test_sql_in_a_column_or_file_name_is_a_name(tmp_path: Path) -> None:
    nasty = 'a"; DROP TABLE x; --'
    query = f"""SELECT 'u' AS "{nasty.replace('"', '""')}", 'e' AS event_id, DATE '2024-01-21' AS timestamp"""
    spec = SourceSpec(parquet(tmp_path, query, "x'; DROP TABLE y; --.parquet").location, nasty)
    assert describe_source(spec).first_week == "2024-01-15"


def test_dirty_file_read_in_chunks_keeps_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LINE_LIMIT", "buffer_size = 4000, max_line_size = 1000")
    luck = random.Random(0)
    kinds = ["u,e,2024-01-0{}\n"] * 20 + [
        "u,e\n",
        "u,e,1,2\n",
        '"u"u,e,1\n',
        '"u\n{}",e,2024-01-08\n',
        'u,"e,1\n',
        "\n",
    ]
    drawn = [luck.choice(kinds) for _ in range(3000)]
    spec = csv(tmp_path, HEADER + "".join(kind.format(luck.randint(1, 7)) for kind in drawn))
    first, second = source_digests(spec, WEEKS[:2]).values()
    assert int(first.split("-")[0]) == sum(kind == kinds[0] for kind in drawn)
    assert int(second.split("-")[0]) == sum(kind == '"u\n{}",e,2024-01-08\n' for kind in drawn)
    bad = sum(kind in ("u,e\n", "u,e,1,2\n", '"u"u,e,1\n', 'u,"e,1\n') for kind in drawn)
    assert describe_source(spec).rejected == {"unreadable_line": bad}


@pytest.mark.parametrize("quoted", [False, True])
def test_dirty_file_with_short_rows_keeps_every_row_once(
    quoted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LINE_LIMIT", "buffer_size = 4000, max_line_size = 1000")
    good = ["u,e,2024-01-0{}\n"] * 9 + ["u,e,2024-01-0{},a\n", "u,e,2024-01-0{},a,b\n", "u,e,2024-01-0{},,\n"]
    good += ['u,e,2024-01-0{},"a\nb",\n'] * quoted
    bad = ["u,e\n", "u\n", "u,e,1,2,3,4\n"] + ['u,"e,1\n'] * quoted
    luck = random.Random(0)
    drawn = [luck.choice([*good, *bad, "\n"]) for _ in range(3000)]
    text = "".join(kind.format(luck.randint(1, 7)) for kind in drawn)
    spec = csv(tmp_path, HEADER.strip() + ",shop,note\n" + text)
    assert int(source_digests(spec, WEEKS)[WEEKS[0]].split("-")[0]) == sum(kind in good for kind in drawn)
    assert describe_source(spec).rejected == {"unreadable_line": sum(kind in bad for kind in drawn)}


def test_mixed_line_ends_do_not_stop_the_reading(tmp_path: Path) -> None:
    mixed = HEADER + "u,e,2024-01-03\r\nu,e,2024-01-04\nu,e\rx,2024-01-05\nu,e,2024-01-06\r"
    assert source_digests(csv(tmp_path, mixed), WEEKS)[WEEKS[0]].startswith("3-")
    assert describe_source(csv(tmp_path, mixed)).rejected == {"unreadable_line": 2}


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    spec = SourceSpec(csv(tmp_path, "who,event_id,at\nu,e,2024-01-03\n").location)
    with pytest.raises(SourceError) as raised:
        describe_source(spec)
    text = "has no column 'ip_address' and no column 'timestamp' and none named 'week_number'; "
    text += "set TGN_USER_COLUMN and TGN_TIMESTAMP_COLUMN to some of its columns: 'who', 'event_id', 'at'"
    assert text in str(raised.value)


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_file_written_anew_while_it_is_read_is_an_error(name: str, tmp_path: Path) -> None:
    spec = csv(tmp_path) if name == "log.csv" else parquet(tmp_path, rows_query(tmp_path), name)
    file = Path(spec.location)
    content = file.read_bytes()

    def read_while(change: Callable[[], object]) -> None:
        with connect() as con, kind_of(spec).open(con, None):
            change()

    read_while(lambda: None)
    for change in (lambda: os.truncate(file, 30), lambda: file.write_bytes(b"x" * 9999), file.unlink):
        with pytest.raises(SourceError, match=f"{name} changed while it was read, and nothing was taken"):
            read_while(change)
        file.write_bytes(content)


def test_text_that_is_appended_while_it_is_read_is_no_error(tmp_path: Path) -> None:
    spec = csv(tmp_path)
    with connect() as con, kind_of(spec).open(con, None), Path(spec.location).open("a") as file:
        file.write("u,e,2024-01-03\n")
