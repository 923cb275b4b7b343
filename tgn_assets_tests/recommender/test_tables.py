"""Which columns of a table are meant, and ids as they came in."""

import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tgn_assets.recommender.tables import IdType, as_series, ids_as_text, read_features, read_log

DAY = pd.Timestamp("2024-01-07")


def log(*columns: str, rows: int = 2) -> pd.DataFrame:
    return pd.DataFrame({name: [DAY] * rows if at == 2 else [1] * rows for at, name in enumerate(columns)})


@pytest.mark.parametrize(
    "columns",
    [
        ("user_id", "item_id", "datetime", "weight"),  # RecTools
        ("userID", "itemID", "timestamp", "rating"),  # Microsoft's recommenders
        ("ip_address", "event_id", "timestamp"),  # `tgn generate`
        ("user", "item", "ts"),
    ],
)
def test_columns_are_found_by_convention(columns: tuple[str, ...]) -> None:
    found = read_log(log(*columns), None, None, None)
    assert (found.user, found.event, found.time) == columns[:3]
    assert list(found.rows) == list(columns[:3])


def test_columns_that_are_named_win() -> None:
    found = read_log(log("user_id", "item_id", "when", "basket"), "basket", None, "when")
    assert (found.user, found.event, found.time) == ("basket", "item_id", "when")


@pytest.mark.parametrize(
    ("table", "names", "says"),
    [
        (log("client", "item_id", "datetime"), {}, "no column for user .*user_id, userID.*: client, item_id, datetime"),
        (log("user_id", "item_id", "datetime"), {"user": "buyer"}, "no column named 'buyer'.*: user_id, item_id"),
        (log("user_id", "item_id", "datetime", "event_id"), {}, "event may be item_id or event_id; set event="),
        (log("user_id", "item_id", "datetime"), {"event": "user_id"}, "three columns, not user_id, user_id"),
        (log("user_id", "item_id", "datetime").iloc[:, [0, 0, 1, 2]], {}, "'user_id' is there twice"),
        ([("ann", "tea", DAY)], {}, "interactions is a list; give a data frame"),
    ],
)
def test_unclear_column_is_a_value_error_with_the_columns(table: Any, names: dict[str, str], says: str) -> None:
    wanted: dict[str, str | None] = dict.fromkeys(("user", "event", "time")) | names
    with pytest.raises(ValueError, match=says):
        read_log(table, **wanted)


class OnlyStream:
    """A table of a library that tgn_assets does not know: it has an Arrow stream, as that of Polars."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("form", [lambda table: table, OnlyStream])
def test_table_with_an_arrow_stream_is_read(form: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    ids = {"user_id": [1, None, 2**60 + 1], "item_id": pyarrow.array(["a", "b", "a"]).dictionary_encode()}
    found = read_log(form(pyarrow.table(ids | {"datetime": [DAY.to_pydatetime()] * 3})), None, None, None)
    assert ids_as_text(found.rows.user_id) == ["1", None, str(2**60 + 1)]
    assert list(found.rows.item_id) == ["a", "b", "a"]
    assert list(found.rows.datetime) == [DAY] * 3


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (pd.Series([7, 12]), ["7", "12"]),
        (pd.Series([7, 12], dtype="uint32"), ["7", "12"]),
        (pd.Series([7, None], dtype="Int64"), ["7", None]),
        (pd.Series([7, np.nan]), ["7", None]),
        (pd.Series([7.5, 12]), ["7.5", "12"]),
        (pd.Series(["ann", "007"]), ["ann", "007"]),
        (pd.Series(["ann", "007"], dtype="string"), ["ann", "007"]),
        (pd.Series([2**63 - 1, 12]), ["9223372036854775807", "12"]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else "",
)
def test_ids_come_back_as_they_came_in(ids: pd.Series, texts: list[str | None]) -> None:
    assert ids_as_text(ids) == texts
    back = IdType.of(ids).restored([text for text in texts if text is not None])
    pd.testing.assert_series_equal(back, ids.dropna(), check_index=False)


def test_categories_and_objects_come_back_as_their_values() -> None:
    for ids in (pd.Series([7, 12, 7], dtype="category"), pd.Series([7, 12, 7], dtype=object)):
        found = read_log(log("u", "i", "t", rows=3).assign(u=ids), "u", "i", "t")
        assert found.user_type == IdType("int64")


def test_mixed_ids_are_text() -> None:
    """As pandas reads a long CSV whose ids are numbers in its first part alone."""
    mixed = pd.Series([85, "85123A", None, 17.0], dtype=object)
    assert ids_as_text(mixed) == ["85", "85123A", None, "17"]
    one = uuid.UUID(int=1)
    assert ids_as_text(as_series([one])) == [str(one)]


@pytest.mark.parametrize("name", ["event_id", "itemID", "sku"])
def test_features_have_ids_under_the_name_of_the_log(name: str) -> None:
    features = read_features(pd.DataFrame({name: [1, 2], "price": [2.5, 3.0]}), "event", "sku")
    assert features is not None and list(features) == ["event_id", "price"]


def test_features_without_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="user_features has no column user_id; its columns are town"):
        read_features(pd.DataFrame({"town": ["Bonn"]}), "user", "user_id")
