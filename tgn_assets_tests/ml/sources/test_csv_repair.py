import csv
import os
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgn_assets.ml.sources import csv_repair
from tgn_assets.ml.sources.csv_repair import LINE_SHOWN, count_lines, split_lines, split_records
from tgn_assets.ml.sources.spec import SourceError


def split(tmp_path: Path, text: str) -> tuple[str, list[str]]:
    source, copy = tmp_path / "log.csv", tmp_path / "copy.csv"
    source.write_bytes(text.encode())
    bad = split_records(source, copy, ",", 3)
    assert bad.count == len(bad.first)
    return copy.read_bytes().decode(), bad.first


def test_lines_count_with_any_line_end_and_empty_ones_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.csv"
    for chunk in (1, 2, 3, 1 << 24):
        monkeypatch.setattr(csv_repair, "CHUNK", chunk)
        for text, lines in [("", 0), ("a", 1), ("a\nb", 2), ("a\r\nbc\r\n\r\n", 2), ("\n\na\rb\n\n", 2)]:
            file.write_bytes(text.encode())
            assert count_lines(file) == lines, (chunk, text)


def test_well_formed_records_are_copied_and_the_others_returned(tmp_path: Path) -> None:
    good, bad = split(tmp_path, "a,b,c\n1,2,3\n4,5\n6,7,8,9\n10,11,12\n")
    assert (good, bad) == ("a,b,c\n1,2,3\n10,11,12\n", ["4,5", "6,7,8,9"])


def test_a_record_may_have_fewer_fields_down_to_the_least(tmp_path: Path) -> None:
    source, copy = tmp_path / "log.csv", tmp_path / "copy.csv"
    source.write_text("a,b,c\n1,2,3\n4,5\n6\n7,8,9,10\n")
    assert split_records(source, copy, ",", 3, 2).first == ["6", "7,8,9,10"]
    assert copy.read_text() == "a,b,c\n1,2,3\n4,5\n"


def test_a_stray_quote_spoils_its_own_line_only(tmp_path: Path) -> None:
    good, bad = split(tmp_path, 'a,b,c\n1,"2,3\n4,5,6\n7,"8,9\n10,11,12')
    assert (good, bad) == ("a,b,c\n4,5,6\n10,11,12\n", ['1,"2,3', '7,"8,9'])


def test_quoted_values_keep_line_ends(tmp_path: Path) -> None:
    good, bad = split(tmp_path, 'a,b,c\r\n"1\r\n1","2""",3\r\n4,5,6\n7,8,9\r')
    assert (good, bad) == ('a,b,c\n"1\r\n1","2""",3\n4,5,6\n7,8,9\n', [])


def test_a_quote_inside_a_bare_value_is_a_character(tmp_path: Path) -> None:
    assert split(tmp_path, 'a,b,c\n1"x,2"y,3\n') == ('a,b,c\n1"x,2"y,3\n', [])


def test_a_file_without_a_record_has_none(tmp_path: Path) -> None:
    assert split(tmp_path, "") == ("", [])
    assert split(tmp_path, "a,b,c") == ("a,b,c\n", [])


def test_an_unreadable_line_is_shown_in_part(tmp_path: Path) -> None:
    _, bad = split(tmp_path, "a,b,c\n" + "x" * 5000)
    assert bad == ["x" * LINE_SHOWN]


def test_records_are_split_alike_whatever_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["1,2,3", '4,"5\n5""",6', "7,8", '9,"10,11', "x" * 300, "é,é,é", "", '12,"",13', '14,"15"x,16']
    text = "a,b,c\n" + "\r\n".join(lines * 20) + '\n17,"18,19'
    whole = split(tmp_path, text)
    assert len(whole[1]) == 4 * 20 + 1 and whole[0].count("é,é,é\n") == 20
    monkeypatch.setattr(csv_repair, "LONGEST_RECORD", 40)
    for chunk in (1, 7, 64):
        monkeypatch.setattr(csv_repair, "CHUNK", chunk)
        good, bad = split(tmp_path, text)
        assert (good.split(), [line[:40] for line in bad]) == (whole[0].split(), [line[:40] for line in whole[1]])


def test_unreadable_lines_are_counted_and_the_first_ones_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b,c\n" + b"1,2,3,4\n" * 1500 + b"\xff,2,3\n1,2,3\n")
    bad = split_records(tmp_path / "log.csv", tmp_path / "copy.csv", ",", 3)
    assert (bad.count, bad.first) == (1501, ["1,2,3,4"] * 1000)
    assert (tmp_path / "copy.csv").read_text() == "a,b,c\n1,2,3\n"


def test_lines_that_are_no_text_are_split_off(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"a": 1}\n\xff\r\nno json')
    bad = split_lines(tmp_path / "log.jsonl", tmp_path / "copy")
    assert (bad.count, bad.first, (tmp_path / "copy").read_text()) == (1, ["\ufffd"], '{"a": 1}\nno json\n')


def test_file_that_is_truncated_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_repair, "CHUNK", 10_000)
    file = tmp_path / "log.csv"
    file.write_text("a,b,c\n" + "1,2,3\n" * 100_000)
    with file.open("rb", buffering=0) as opened:
        chunks = csv_repair._chunks(opened)
        next(chunks)
        os.truncate(file, 30)
        with pytest.raises(SourceError, match=r"log\.csv became shorter"):
            list(chunks)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(*[st.text(st.sampled_from('ab",\n\r é'), max_size=4)] * 3), max_size=8))
def test_what_a_csv_writer_writes_is_well_formed(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    text = StringIO(newline="")
    csv.writer(text).writerows([("a", "b", "c"), *rows])
    good, bad = split(tmp_path, text.getvalue())
    assert not bad
    assert Counter(map(tuple, csv.reader(StringIO(good, newline="")))) - Counter([()]) == Counter(
        [("a", "b", "c"), *rows]
    )
