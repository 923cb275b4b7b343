"""Side tables out of CSV and Parquet files."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.data.attribute_files import MAX_COLUMNS, AttributeTableError, read_attribute_tables
from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.weeks import week_number

WEEK = "2024-01-15"  # closes on 2024-01-22
KNOWN = pd.DataFrame({"idx": [3, 5, 7], "id": ["tea", "jam", "7"]})
IDX = KNOWN.idx.to_numpy()


def read(folder: Path, text: str, name: str = "events.csv", **how: Any) -> AttributeTables:
    (folder / name).write_text(text, encoding="utf-8-sig")
    return read_attribute_tables(str(folder / name), None, KNOWN[:0], KNOWN, WEEK, **how)


def kinds(tables: AttributeTables) -> dict[str, str]:
    return {column.name: column.kind for column in tables.columns}


def test_without_settings_there_are_no_tables() -> None:
    tables = read_attribute_tables(None, None, KNOWN, KNOWN, WEEK)
    assert (tables.columns, tables.notes, len(tables.coverage(IDX, IDX, WEEK))) == ((), (), 0)


def test_text_is_taken_for_what_all_of_it_can_be_read_as(tmp_path: Path) -> None:
    tables = read(
        tmp_path,
        "event_id;price;new;made;shelf;note\n"
        "tea;2.5;true;2024-01-08;drinks;\njam;;false;2024-01-08T12:00:00Z;\"jars; big\";\n7;-1e3;;;drinks;\n",
    )  # fmt: skip
    assert kinds(tables) == {"price": "number", "new": "number", "made": "time", "shelf": "category"}
    values = tables.event.at(IDX, week_number(WEEK))
    made = week_number("2024-01-08")
    np.testing.assert_array_equal(values[:, :3], [[2.5, 1, made], [np.nan, 0, made + 1 / 14], [-1000, np.nan, np.nan]])
    assert values[0, 3] == values[2, 3] != values[1, 3]


@pytest.mark.parametrize("seven", ["7", "7.0"])
def test_whole_ids_are_those_of_the_log(seven: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"event_id,size\ntea,1\n{seven},2\n").event.idx.tolist() == [3, 7]
    file = tmp_path / "events.parquet"
    duckdb.execute(f"COPY (SELECT {seven}::DOUBLE AS event_id, 2 AS size) TO '{file}'")
    assert read_attribute_tables(str(file), None, KNOWN[:0], KNOWN, WEEK).event.idx.tolist() == [7]
    with pytest.raises(AttributeTableError, match="more than one row of 7"):
        read(tmp_path, "event_id,size\n7,1\n7.0,2\n")


def test_parquet_brings_its_types(tmp_path: Path) -> None:
    file = tmp_path / "events"
    duckdb.execute(
        f"""COPY (SELECT 7::BIGINT AS event_id, 2::UTINYINT AS size, 1.5::DECIMAL(4, 2) AS price, true AS new,
        '12' AS shelf, 'a'::ENUM('a', 'b') AS grade, DATE '2024-01-22' AS ends, 'nan'::DOUBLE AS weight,
        TIMESTAMP_NS '2024-01-08 00:00:00' AS made) TO '{file}' (FORMAT parquet)"""
    )
    tables = read_attribute_tables(str(file), None, KNOWN[:0], KNOWN, WEEK)
    assert kinds(tables) == {
        "size": "number",
        "price": "number",
        "new": "number",
        "shelf": "category",
        "grade": "category",
        "ends": "time",
        "made": "time",
    }
    ends, made = week_number("2024-01-22"), week_number("2024-01-08")
    assert tables.event.at(np.array([7]), week_number(WEEK)).tolist() == [[2, 1.5, 1, 0, 0, ends, made]]


def test_data_frame_is_read_like_a_parquet_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "event_id": ["tea", "jam"],
            "price": [2.5, None],
            "shelf": ["drinks", None],
            "made": pd.Timestamp("2024-01-08"),
        }
    )
    duckdb.from_df(frame).write_parquet(str(tmp_path / "events.parquet"))
    of_file, of_frame = (
        read_attribute_tables(given, None, KNOWN[:0], KNOWN, WEEK)
        for given in (str(tmp_path / "events.parquet"), frame)
    )
    assert of_frame.columns == of_file.columns
    assert of_frame.digest(IDX[:0], IDX, week_number(WEEK)) == of_file.digest(IDX[:0], IDX, week_number(WEEK))
    assert of_frame.notes[0].startswith("TGN_EVENT_FEATURES has no column valid_from")


def test_of_each_id_the_newest_row_before_the_close_counts(tmp_path: Path) -> None:
    rows = ["tea,1,2024-01-08", "tea,2,2024-01-22T00:59:59+01:00", "tea,3,2024-01-22", "jam,,2024-01-01"]
    table = read(tmp_path, "\n".join(["event_id,price,valid_from", *rows])).event
    assert table.at(IDX, week_number(WEEK))[0, 0] == 2
    assert table.at(IDX, week_number("2024-01-08"))[0, 0] == 1
    assert np.isnan(table.at(IDX, week_number("2024-01-01"))).all()
    assert table.covered(IDX) == 2 / 3


def test_unknown_ids_are_ignored_with_a_note_if_none_is_known(tmp_path: Path) -> None:
    tables = read(tmp_path, "event_id,price\nTEA,1\n")
    assert tables.columns == () and tables.event.covered(IDX) == 0
    assert "has no row for any event known at the close of 2024-01-15" in tables.notes[0]


def test_a_table_without_times_says_what_that_means_for_the_past(tmp_path: Path) -> None:
    assert "no column valid_from" in read(tmp_path, "event_id,price\ntea,1\n").notes[0]
    assert read(tmp_path, "event_id,price,valid_from\ntea,1,2024-01-01\n").notes == ()


def test_coverage_is_the_share_of_known_nodes_with_a_value(tmp_path: Path) -> None:
    tables = read(tmp_path, "event_id,price,shelf\ntea,1,\njam,2,jars\n")
    assert tables.coverage(IDX[:0], IDX, WEEK).to_numpy().tolist() == [
        ["event", "price", "number", 2 / 3],
        ["event", "shelf", "category", 1 / 3],
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,price\ntea,1\n", "has no column event_id; its columns are 'id', 'price'"),
        ("event_id,valid_from\ntea,2024-01-01\n", "has 0 feature columns"),
        ("event_id,price\ntea,1\njam,2\ntea,1\n", "more than one row of tea; keep one, or say in a column valid_from"),
        (
            "event_id,price,valid_from\ntea,1,2024-01-01\ntea,2,2024-01-01T00:00:00\n",
            "more than one row of tea with the same valid_from; give them different times",
        ),
        ("event_id,price,event_id\ntea,1,jam\n", "has the column event_id twice"),
        ("event_id,note\ntea," + "x" * 3_000_000, "cannot be read .{,700}$"),
        ("event_id,price,valid_from\ntea,1,\n", "the row of tea has no valid_from"),
        ("event_id,price,valid_from\ntea,1\n", "the row of tea has no valid_from"),
        ("event_id,price,valid_from\ntea,1,24-01-05\n", "the row of tea has the valid_from 0024-01-05, .*in full"),
        ("event_id,price\ntea,1,2\n", "cannot be read .*Expected Number of Columns: 2 Found: 3.; it is"),
        ("event_id,Price,price\ntea,1,2\n", "has the column Price twice"),
        ("event_id,price,valid_from\ntea,1,soon\n", "cannot be read .*valid_from a date or a time"),
        (
            "event_id,price,valid_from\ntea,1,2024-01-22 00:30:00 BST\n",
            "cannot be read .* in a zone whose name does not say",
        ),
        ("event_id," + ",".join(f"c{at}" for at in range(MAX_COLUMNS + 1)) + "\n", "has 17 feature columns"),
    ],
)
def test_unusable_attribute_file_names_setting_and_remedy(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(AttributeTableError, match=f"TGN_EVENT_FEATURES=.*{says}"):
        read(tmp_path, text)


def test_words_for_no_value_are_none(tmp_path: Path) -> None:
    tables = read(tmp_path, "event_id,price,shelf\ntea,2.5,NULL\njam,nan,drinks\n7,NULL,\\N\nNULL,1,x\nNULL,2,x\n")
    assert kinds(tables) == {"price": "number", "shelf": "category"}
    assert np.isnan(tables.event.at(IDX, week_number(WEEK))).tolist() == [[False, True], [True, False], [True, True]]


def test_words_for_no_value_are_those_of_the_setting(tmp_path: Path) -> None:
    tables = read(tmp_path, "event_id,price,shelf\ntea,2.5,-\njam,-,NULL\n", null_values=("-",))
    assert kinds(tables) == {"price": "number", "shelf": "category"}
    assert np.isnan(tables.event.at(IDX, week_number(WEEK)))[:2].tolist() == [[False, True], [True, False]]


def test_row_may_lack_values_at_its_end(tmp_path: Path) -> None:
    tables = read(tmp_path, 'event_id,price,shelf\ntea\njam,2\n\n7,3,"a\nb"\n')
    assert kinds(tables) == {"price": "number", "shelf": "category"}
    assert np.isnan(tables.event.at(IDX, week_number(WEEK))).tolist() == [[True, True], [False, True], [False, False]]


@pytest.mark.parametrize("price", ["0,5", "$2", "1,000.0", "5 %", "n/a"])
def test_numbers_that_are_taken_for_categories_are_named(tmp_path: Path, price: str) -> None:
    tables = read(tmp_path, f'event_id,price,shelf,made\ntea,"{price}",a1,2024-01-02\njam,2,b,\n7,3,b,\n')
    assert kinds(tables) == {"price": "category", "shelf": "category", "made": "time"}
    assert [note for note in tables.notes if f"not all of its values are numbers, such as {price!r}" in note]
    assert not [note for note in tables.notes if "column shelf" in note]


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("event_id,note\ntea,a\n", encoding="utf-16")
    with pytest.raises(AttributeTableError, match=r"TGN_EVENT_FEATURES=.* is text in UTF-16.* iconv"):
        read_attribute_tables(str(tmp_path / "events.csv"), None, KNOWN[:0], KNOWN, WEEK)


def test_missing_file_and_unusable_type_are_named(tmp_path: Path) -> None:
    with pytest.raises(AttributeTableError, match=r"TGN_USER_FEATURES=nowhere.csv is no file; .*user_id"):
        read_attribute_tables(None, "nowhere.csv", KNOWN, KNOWN, WEEK)
    file = str(tmp_path / "users.parquet")
    duckdb.execute(f"COPY (SELECT 'ann' AS user_id, [1, 2] AS vector) TO '{file}'")
    with pytest.raises(AttributeTableError, match=r"column vector is of type INTEGER\[\]; it may hold numbers"):
        read_attribute_tables(None, file, KNOWN, KNOWN, WEEK)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00event_id\n")
    with pytest.raises(AttributeTableError, match=r"TGN_USER_FEATURES=.*binary.csv"):
        read_attribute_tables(None, str(tmp_path / "binary.csv"), KNOWN, KNOWN, WEEK)
