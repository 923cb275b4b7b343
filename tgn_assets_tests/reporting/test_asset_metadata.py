from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from tgn_assets.ml.schema import TABLES
from tgn_assets.reporting.asset_metadata import last_values, numbers, preview, table_definition


def test_numbers_keep_their_type_and_must_be_finite() -> None:
    found = numbers({"users": np.int64(3), "loss": 1.0, "nothing": None, "nan": float("nan"), "inf": np.inf}, "x/")
    assert {name: value.value for name, value in found.items()} == {"x/users": 3, "x/loss": 1.0}
    assert isinstance(found["x/users"].value, int) and isinstance(found["x/loss"].value, float)


def test_a_preview_is_a_table_of_the_first_rows() -> None:
    frame = pd.DataFrame({"id": ["a|b\n<img>", None, "c"], "rank": [1, 2, 3], "score": [0.123456, np.nan, 2.0]})
    frame["week"] = pd.Series([pd.Timestamp("2024-01-01"), pd.NaT, pd.NaT])
    frame["day"] = pd.Series([date(2024, 1, 1), None, None])
    table = preview(frame, rows=2)
    assert [record.data for record in table.records] == [
        {"id": "a|b\n<img>", "rank": 1, "score": 0.1235, "week": "2024-01-01", "day": "2024-01-01"},
        {"id": None, "rank": 2, "score": None, "week": None, "day": None},
    ]
    types = {column.name: column.type for column in table.schema.columns}
    assert types == {"id": "string", "rank": "int64", "score": "float64", "week": "string", "day": "string"}


def test_a_preview_of_no_rows_has_the_columns() -> None:
    table = preview(pd.DataFrame(columns=["id"]))
    assert (table.records, [column.name for column in table.schema.columns]) == ([], ["id"])


def test_every_table_has_a_column_schema() -> None:
    for table in TABLES:
        columns = table_definition(table)["dagster/column_schema"].columns
        assert [(column.name, column.type) for column in columns] == [
            (column.name, column.type) for column in TABLES[table].columns
        ]
    (week, *_) = table_definition("ingested_weeks")["dagster/column_schema"].columns
    assert week.constraints.unique and not week.constraints.nullable


def test_last_values_skips_missing_names() -> None:
    curve: list[dict[str, Any]] = [{"loss": 3, "validation_loss": 4}, {"loss": 2, "validation_loss": None}]
    assert last_values(curve, "loss", "validation_loss", "other") == {"loss": 2, "validation_loss": 4}
