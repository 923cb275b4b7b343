"""How ids are read, the same from every kind of file."""

import gzip
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tgn_assets.ml.data.source_check import check_source
from tgn_assets.ml.sources.extent import describe_source
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import HEADER, csv, load, parquet, rows, warehouse

MONDAY = "DATE '2024-01-01' AS timestamp"
NESTED = "of .* is of type .*: set TGN_USER_COLUMN"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with warehouse() as con:
        yield con


def users(con: duckdb.DuckDBPyConnection, spec: SourceSpec) -> list[str]:
    load(con, spec)
    return [user for user, *_ in rows(con, "raw_interactions")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("17850::DOUBLE", "17850"),
        ("1.5::DOUBLE", "1.5"),
        ("17850::DECIMAL(38, 18)", "17850"),
        ("1.50::DECIMAL(9, 2)", "1.50"),
        ("'17850.0'", "17850"),
        ("'-7.000'", "-7"),
        ("'10.0.0.0'", "10.0.0.0"),
        ("'007'", "007"),
        ("'v1.0'", "v1.0"),
        ("'\\x00\\x11\\x22\\x33\\x44\\x55\\x66\\x77\\x88\\x99\\xAA\\xBB\\xCC\\xDD\\xEE\\xFF'::BLOB",
         "00112233-4455-6677-8899-aabbccddeeff"),
    ],
)  # fmt: skip
def test_whole_numbers_are_integers_and_uuid_bytes_are_text(
    value: str, text: str, tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    assert users(con, parquet(tmp_path, f"SELECT {value} AS ip_address, 'e' AS event_id, {MONDAY}")) == [text]


def test_a_user_is_the_same_in_files_of_every_type(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    csv(tmp_path, HEADER + "5.0,e,2024-01-01\n5,e,2024-01-01\n")
    parquet(tmp_path, f"SELECT 5 AS ip_address, 'e' AS event_id, {MONDAY}", "int.parquet")
    parquet(tmp_path, f"SELECT 5e0 AS ip_address, 'e' AS event_id, {MONDAY}", "float.parquet")
    (tmp_path / "log.jsonl").write_text('{"ip_address": 5.0, "event_id": "e", "timestamp": "2024-01-01"}')
    assert users(con, SourceSpec(str(tmp_path))) == ["5"] * 5


def test_null_values_are_missing_and_said_once(
    tmp_path: Path, con: duckdb.DuckDBPyConnection, caplog: pytest.LogCaptureFixture
) -> None:
    values = ["NULL", "null", "NaN", "nan", "None", "\\N", ""]
    text = "".join(f"{value},e,2024-01-01\nu,{value},2024-01-01\nu,e,{value}\n" for value in values)
    text += ",e,2024-01-01\n" * 2 + "u,,2024-01-01\n"
    spec = csv(tmp_path, HEADER + text + "NA, e,2024-01-01\nnull ,e,2024-01-01\nu\u00a0,e,2024-01-01\nu,e,2024-01-01\n")
    with caplog.at_level(logging.WARNING):
        report = load(con, spec)
        assert report.rejected == {"missing_user": 9, "missing_event": 8, "missing_time": 7}
        assert [user for user, *_ in rows(con, "raw_interactions")] == ["NA", "null ", "u", "u\u00a0"]
        assert [record.getMessage().removeprefix(spec.location) for record in caplog.records] == [
            ": rejected rows: missing_user 9, missing_event 8, missing_time 7 (see the table rejected_interactions)",
            ": 86 % of the rows lack a user, an event or a time: empty, or one of "
            "TGN_NULL_VALUES=NULL,null,NaN,nan,NaT,<NA>,None,\\N",
            ": 75 % of the rows have ids with blanks at their ends, which are kept",
        ]
        caplog.clear()
        load(con, spec, ["2024-01-15"])
        assert not caplog.records  # no row of that week, and those without a week are known


def test_null_values_can_be_chosen(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    spec = csv(tmp_path, HEADER + "0,e,2024-01-01\n0.0,e,2024-01-01\nu,e,-1\nNULL,e,2024-01-01\n")
    assert load(con, replace(spec, null_values=("0", "-1"))).rejected == {"missing_user": 2, "missing_time": 1}
    assert [user for user, *_ in rows(con, "raw_interactions")] == ["NULL"]
    query = "SELECT 'u' AS ip_address, 0 AS event_id, -1 AS timestamp UNION ALL SELECT 'u', 1, -1"
    assert load(con, replace(parquet(tmp_path, query), null_values=("0", "-1"))).rejected == {
        "missing_event": 1,
        "missing_time": 1,
    }


def test_an_id_may_have_a_thousand_characters(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    long = "é" * 1000
    text = f"{long},e,2024-01-01\n{long}x,e,2024-01-01\nu,{long}x,2024-01-01\n"
    assert load(con, csv(tmp_path, HEADER + text)).rejected == {"id_too_long": 2}
    assert [len(row[2]) for row in rows(con, "rejected_interactions")] == [1, 1000]
    assert [row[0] for row in rows(con, "raw_interactions")] == [long]


def test_the_column_of_a_file_goes_before_that_of_its_folder(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    query = f"SELECT 'own' AS ip_address, 'e' AS event_id, {MONDAY}"
    parquet(tmp_path, query, "d/ip_address=zz/a.parquet")
    parquet(tmp_path, f"SELECT 'e' AS event_id, {MONDAY}", "d/ip_address=007/shop=a%20b/a.parquet")
    assert users(con, SourceSpec(str(tmp_path / "d"))) == ["007", "own"]
    parquet(tmp_path, query, "d/ip_address=zz/shop=c/a.parquet")
    (tmp_path / "d/ip_address=zz/a.parquet").unlink()
    assert users(con, SourceSpec(str(tmp_path / "d"), row_filter="shop = 'a b'")) == ["007"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.json"])
@pytest.mark.parametrize("column", ["c0", "line", "readable", "json", "filename"])
def test_a_folder_named_like_a_column_of_ours_changes_nothing(tmp_path: Path, name: str, column: str) -> None:
    (folder := tmp_path / f"{column}=zz").mkdir()
    lines = ["ip_address,event_id,timestamp\n", *(f"u{n},e,2024-01-03\n" for n in range(2))]
    objects = [json.dumps({"ip_address": f"u{n}", "event_id": "e", "timestamp": "2024-01-03"}) for n in range(2)]
    text = {"a.jsonl": "\n".join(objects), "a.json": f"[{','.join(objects)}]"}.get(name, "".join(lines)).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    found = check_source(SourceSpec(str(tmp_path)))
    assert (found.rows, found.users, found.rejected) == (2, 2, [])


def test_a_member_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    (file := tmp_path / "log.jsonl").write_text(
        '{"ip_address": "u", "event_id": "e", "a": 1, "a": 2, "timestamp": "2024-01-03", "ip_address": "v"}\n'
    )
    with pytest.raises(SourceError, match="the column 'ip_address' is there twice"):
        describe_source(SourceSpec(str(file)))
    file.write_text(file.read_text().replace(', "ip_address": "v"', ""))
    assert describe_source(SourceSpec(str(file))).first_week == "2024-01-01"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((value, NESTED) for value in ("['u1']", "{'id': 1}", "map {'id': 1}", "'{}'::JSON")),
        *((f"'{text}'::BLOB", "holds bytes that are no UUID") for text in ("abc", "user-00000000001")),
    ],
)
def test_values_that_are_no_ids_are_an_error_that_names_the_column(value: str, said: str, tmp_path: Path) -> None:
    spec = parquet(tmp_path, f"SELECT {value} AS ip_address, 'e' AS event_id, {MONDAY}")
    with pytest.raises(SourceError, match=f"the column 'ip_address' {said}"):
        describe_source(spec)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("20240103::FLOAT", "32-bit floats, which round times"),
        ("'10:00'::TIME", "values of type TIME"),
        ("['2024-01-03']", r"values of type VARCHAR\[\]"),
    ],
)
def test_a_column_that_holds_no_times_is_an_error(tmp_path: Path, value: str, fault: str) -> None:
    spec = parquet(tmp_path, f"SELECT 'u' AS ip_address, 'e' AS event_id, {value} AS timestamp")
    with pytest.raises(SourceError, match=f"'timestamp' of TGN_SOURCE=.* has {fault}: write it as a timestamp"):
        describe_source(spec)


@pytest.mark.parametrize(("dtype", "exact"), [("DOUBLE", 2**53), ("FLOAT", 2**24)])
def test_numbers_that_may_be_rounded_are_no_ids(
    tmp_path: Path, con: duckdb.DuckDBPyConnection, dtype: str, exact: int
) -> None:
    assert users(con, parquet(tmp_path, f"SELECT {exact}::{dtype} AS ip_address, 'e' AS event_id, {MONDAY}")) == [
        str(exact)
    ]
    spec = parquet(tmp_path, f"SELECT {2 * exact}::{dtype} AS ip_address, 'e' AS event_id, {MONDAY}")
    with pytest.raises(SourceError, match=f"'ip_address' holds {dtype} numbers too large to be exact"):
        describe_source(spec)


def test_a_member_of_a_struct_can_be_named(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    spec = parquet(tmp_path, f"SELECT {{'id': 3.0::DOUBLE, 'in': {{'x y': 'v'}}}} AS u, 'e' AS event_id, {MONDAY}")
    assert users(con, replace(spec, user_column="u.id")) == ["3"]
    assert users(con, replace(spec, user_column="u.in.x y")) == ["v"]
    spec = parquet(tmp_path, f"SELECT {{'id': 3}} AS u, 'own' AS \"u.id\", 'e' AS event_id, {MONDAY}")
    assert users(con, replace(spec, user_column="u.id")) == ["own"]


def test_a_member_of_a_json_object_can_be_named(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    file = tmp_path / "log.jsonl"
    records: list[dict[str, object]] = [{"user": {"id": 3.0}}, {"user": {"id": [1]}}, {"user": "u"}]
    file.write_text("".join(json.dumps(r | {"event_id": "e", "timestamp": "2024-01-01"}) + "\n" for r in records))
    spec = SourceSpec(str(file), user_column="user.id")
    assert load(con, spec).rejected == {"nested_id": 1, "missing_user": 1}
    assert [user for user, *_ in rows(con, "raw_interactions")] == ["3"]
    assert load(con, replace(spec, user_column="user")).rejected == {"nested_id": 2}
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(SourceError, match=r"the column 'user' of .* is of type JSON OBJECT.*such as user\.id"):
        describe_source(replace(spec, user_column="user"))


@pytest.mark.parametrize(("one", "other"), [("USER", "EVENT"), ("USER", "TIMESTAMP"), ("EVENT", "TIMESTAMP")])
def test_one_column_for_two_things_is_an_error(tmp_path: Path, one: str, other: str) -> None:
    columns: dict[str, Any] = {"user_column": "user", "event_column": "item", "timestamp_column": "ts"}
    columns[f"{other.lower()}_column"] = columns[f"{one.lower()}_column"].title()
    spec = replace(csv(tmp_path, "user,item,ts\nu,e,2024-01-01\n"), **columns)
    with pytest.raises(SourceError, match=f"TGN_{one}_COLUMN and TGN_{other}_COLUMN name the same column"):
        describe_source(spec)


def test_a_file_without_a_header_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="its first line is a row, it seems"):
        describe_source(csv(tmp_path, "u,e,2024-01-01\nv,e,2024-01-02\n"))


@pytest.mark.parametrize("header", ["user,item,user,ts", "User,item,USER,ts"])
def test_a_column_that_is_there_twice_is_an_error(header: str, tmp_path: Path) -> None:
    log = csv(tmp_path, f"{header},kind\nu,e,v,2024-01-01,k\n")
    spec = replace(log, event_column="item", timestamp_column="ts")
    with pytest.raises(SourceError, match="the column 'user' is there twice"):
        describe_source(replace(spec, user_column="user"))
    if "user" in header:
        with pytest.raises(SourceError, match=r"the column 'user' is there twice.*TGN_ROW_FILTER"):
            describe_source(replace(spec, user_column="item", event_column="kind", row_filter="user = 'u'"))
    else:
        assert describe_source(replace(spec, user_column="USER")).rejected == {}


def test_a_column_that_parquet_has_twice_is_an_error(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = ["event_id", "timestamp", "user", "User", "a"]
    values = [*map(pyarrow.array, (["e"], ["2024-01-01"], ["u"], ["v"], [{"event_id": 1}]))]
    parquet.write_table(pyarrow.Table.from_arrays(values, names=names), tmp_path / "log.parquet")
    spec = SourceSpec(str(tmp_path / "log.parquet"), user_column="user")
    with pytest.raises(SourceError, match="the column 'user' is there twice"):
        describe_source(spec)
    assert describe_source(replace(spec, user_column="a.event_id")).rejected == {}


@pytest.mark.parametrize("quoted", ["x", '"a\nb"'])  # the second one is read line by line
def test_a_row_may_lack_trailing_columns_nobody_asked_for(
    quoted: str, tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    text = f"kind,{HEADER.strip()},shop,note\nk,u,e,2024-01-01\nk,v,e,2024-01-01,s\n\nk,w,e,2024-01-01,s,{quoted}\n"
    spec = csv(tmp_path, text + "k,u,e\nk,u,e,\nk,u,e,2024-01-01,s,n,more\nk\n")
    report = load(con, spec)
    assert report.rejected == {"unreadable_line": 3, "missing_time": 1}
    assert [user for user, *_ in rows(con, "raw_interactions")] == ["u", "v", "w"]
    # A row that lacks a column that the filter looks at cannot be judged.
    report = load(con, replace(spec, row_filter="shop IS NOT NULL"))
    assert (report.rejected, report.filtered) == ({"unreadable_line": 5}, 0)
