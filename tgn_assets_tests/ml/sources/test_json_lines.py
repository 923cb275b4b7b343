import gzip
import json
from pathlib import Path

import pytest

from tgn_assets.ml.sources.extent import describe_source
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import EXTENT, HEADER, ROWS, WEEKS, load, warehouse

RECORDS = [
    dict(zip(("ip_address", "event_id", "timestamp"), row.split(","), strict=True)) for row in ROWS.strip().splitlines()
]


def lines(folder: Path, text: str, name: str = "log.jsonl") -> SourceSpec:
    (folder / name).write_text(text)
    return SourceSpec(str(folder / name))


def of(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_compressed_json_lines_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "log.ndjson.gz", "wt") as file:
        file.write(of(*RECORDS))
    assert describe_source(SourceSpec(str(tmp_path / "log.ndjson.gz"))) == EXTENT


def test_a_folder_of_json_lines_and_csv_is_one_log(tmp_path: Path) -> None:
    half = len(RECORDS) // 2
    lines(tmp_path, of(*RECORDS[:half]))
    rest = [",".join(record.values()) for record in RECORDS[half:]]
    (tmp_path / "rest.csv").write_text(HEADER + "\n".join(rest))
    assert describe_source(SourceSpec(str(tmp_path))) == EXTENT


def test_key_order_other_keys_and_unicode_do_not_matter(tmp_path: Path) -> None:
    odd = {"timestamp": 1704067200, "nested": {"a": [1, "\n"]}, "event_id": 7, "ip_address": 'ü"\\n,'}
    con = warehouse()
    load(con, lines(tmp_path, of(odd)), WEEKS[:1])
    assert con.execute("SELECT user_id, event_id, ts::VARCHAR FROM raw_interactions").fetchall() == [
        ('ü"\\n,', "7", "2024-01-01 00:00:00")
    ]


def test_a_line_that_is_no_object_is_recorded_as_it_is(tmp_path: Path) -> None:
    bad = ['{"ip_address": "u", "event_id"', "[1, 2]", "null", "u,e,2024-01-01", '"text"', "a\x1fb"]
    missing = of({"ip_address": None, "event_id": "e", "timestamp": "2024-01-01"}, {"ip_address": "u", "event_id": "e"})
    spec = lines(tmp_path, of(RECORDS[0]) + "\n".join(bad) + "\n\n" + missing)
    con = warehouse()
    report = load(con, spec, WEEKS[:1])
    expected = {"unreadable_line": len(bad), "missing_user": 1, "missing_time": 1}
    assert report.rejected == expected == dict(describe_source(spec).rejected)
    kept = con.execute("SELECT user_id FROM rejected_interactions WHERE reason = 'unreadable_line'").fetchall()
    assert sorted(text for (text,) in kept) == sorted(bad)


def test_a_key_may_be_spelt_in_other_case_and_hold_quotes(tmp_path: Path) -> None:
    name = """it's "the" \\ user"""
    records = [{name: r["ip_address"], "EVENT_ID": r["event_id"], "timestamp": r["timestamp"]} for r in RECORDS]
    spec = lines(tmp_path, of(*records))
    assert describe_source(SourceSpec(spec.location, user_column=name)) == EXTENT


def test_a_missing_column_is_an_error_that_lists_the_keys(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column 'ip_address' and .*; set TGN_USER_COLUMN .* 'event_id', 'who'"):
        describe_source(lines(tmp_path, of({"who": "u", "event_id": "e"})))


def test_a_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none of the first 1000 lines .* is a JSON object"):
        describe_source(lines(tmp_path, HEADER + ROWS))


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no rows"):
        describe_source(lines(tmp_path, ""))
