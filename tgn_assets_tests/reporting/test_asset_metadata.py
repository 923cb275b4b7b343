import numpy as np
import pandas as pd

from tgn_assets.ml.schema import TABLES
from tgn_assets.reporting.asset_metadata import last_values, numbers, preview, table_definition


def test_numbers_stay_numbers_and_what_is_none_is_left_out() -> None:
    found = numbers({"users": np.int64(3), "loss": 1.0, "nothing": None, "nan": float("nan"), "inf": np.inf}, "x/")
    assert {name: value.value for name, value in found.items()} == {"x/users": 3, "x/loss": 1.0}
    assert isinstance(found["x/users"].value, int) and isinstance(found["x/loss"].value, float)


def test_a_preview_shows_few_rows_and_keeps_the_users_text_in_its_cell() -> None:
    frame = pd.DataFrame({"id": ["a|b\n<img>", "x" * 100, "c"], "score": [0.123456, 1.0, 2.0]})
    frame["week"] = [pd.Timestamp("2024-01-01"), pd.NaT, pd.NaT]
    lines = preview(frame, rows=2).value.splitlines()
    assert lines[:2] == ["| id | score | week |", "| --- | --- | --- |"]
    assert lines[2] == r"| a\|b \<img\> | 0.1235 | 2024-01-01 |"
    assert lines[3] == f"| {'x' * 57}... | 1 |  |"
    assert len(lines) == 4


def test_a_preview_of_no_rows_is_a_header() -> None:
    assert preview(pd.DataFrame(columns=["id"])).value == "| id |\n| --- |"


def test_every_column_of_every_table_is_known_to_the_ui() -> None:
    for table in TABLES:
        columns = table_definition(table)["dagster/column_schema"].columns
        assert [(column.name, column.type) for column in columns] == [
            (column.name, column.type) for column in TABLES[table].columns
        ]
    (week, *_) = table_definition("ingested_weeks")["dagster/column_schema"].columns
    assert week.constraints.unique and not week.constraints.nullable


def test_the_newest_value_of_each_name_is_the_one_that_is_shown() -> None:
    curve = [{"loss": 3, "validation_loss": 4}, {"loss": 2, "validation_loss": None}]
    assert last_values(curve, "loss", "validation_loss", "other") == {"loss": 2, "validation_loss": 4}
