"""Tables that a notebook hands in: which columns are meant, and their ids as text and back as they came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.data.attribute_files import AttributeTableError
from tgn_assets.ml.data.attributes import Node
from tgn_assets.ml.sources.relations import id_text
from tgn_assets.ml.sources.spec import NULL_VALUES, SourceError

CONVENTIONS: dict[str, tuple[str, ...]] = {
    "user": ("user_id", "userID", "user", "ip_address"),
    "event": ("item_id", "itemID", "event_id", "item", "event"),
    "time": ("datetime", "timestamp", "time", "ts"),
}
"""Names that a column is found by: those of RecTools, of Microsoft's recommenders, and our own."""
WORDS = {
    "TGN_SOURCE=interactions": "interactions",
    "TGN_USER_COLUMN": "user",
    "TGN_EVENT_COLUMN": "event",
    "TGN_TIMESTAMP_COLUMN": "time",
    "TGN_START_WEEK": "start_week",
    "TGN_EVENT_FEATURES": "event_features",
    "TGN_USER_FEATURES": "user_features",
    "one of TGN_NULL_VALUES=": "one of ",
    "set TGN_TIMESTAMP_FORMAT to its strptime format, such as %d.%m.%Y %H:%M": "read it with pandas.to_datetime",
    "the table rejected_interactions": "the attribute `rejected`",
}
"""What messages of the pipeline say -> what it is called in a notebook."""


@dataclass(frozen=True)
class IdType:
    """How ids came in: `dtype` names a pandas type of integers or floats, `string`, or `object` for any other text."""

    dtype: str = "object"

    @classmethod
    def of(cls, column: pd.Series) -> IdType:
        """That of the ids in `column`."""
        if pd.api.types.is_integer_dtype(column.dtype) or pd.api.types.is_float_dtype(column.dtype):
            return cls(str(column.dtype))
        if isinstance(column.dtype, pd.StringDtype):
            return cls("string")
        return cls("int64" if pd.api.types.infer_dtype(column, skipna=True) == "integer" else "object")

    def joined(self, other: IdType, name: str) -> IdType:
        """That of a column with ids of both types. ValueError, about the column `name`, for numbers beside text."""
        if self == other:
            return self
        kinds = [pd.api.types.pandas_dtype(one.dtype) for one in (self, other)]
        numeric = [pd.api.types.is_numeric_dtype(kind) for kind in kinds]
        if numeric[0] != numeric[1]:
            raise ValueError(
                f"the ids of {name} are of type {other.dtype}, and were of type {self.dtype}: give them as before"
            )
        return IdType(str(pd.concat([pd.Series([0], dtype=kind) for kind in kinds]).dtype) if numeric[0] else "object")

    def restored(self, texts: Iterable[str]) -> pd.Series:
        """The ids that the pipeline writes as `texts`, as they came in."""
        number = {"i": int, "u": int, "f": float}.get(pd.api.types.pandas_dtype(self.dtype).kind)
        return pd.Series([number(text) for text in texts] if number else list(texts), dtype=self.dtype)

    def of_column(self, column: pd.Series) -> pd.Series:
        """The ids of the categorical `column` of texts, as they came in."""
        codes = column.cat.codes.to_numpy()
        return self.restored(column.cat.categories).take(codes).reset_index(drop=True)


@dataclass(frozen=True)
class Log:
    """The columns of a log that are read, under their own names, and how its ids came in."""

    rows: pd.DataFrame
    user: str
    event: str
    time: str
    user_type: IdType
    event_type: IdType


def read_log(table: Any, user: str | None, event: str | None, time: str | None) -> Log:
    """The log in `table`, whose columns are `user`, `event` and `time`, or found by `CONVENTIONS` where these are None.

    ValueError if it is no table, or a column is missing, there twice, or could be one of several.
    """
    frame = as_frame(table, "interactions")
    named = {"user": user, "event": event, "time": time}
    names = {role: _find(frame, role, given) for role, given in named.items()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"user, event and time must be three columns, not {', '.join(names.values())}")
    columns = {role: _plain(frame[name]) for role, name in names.items()}
    rows = pd.DataFrame({names[role]: column for role, column in columns.items()}, copy=False)
    return Log(rows, **names, user_type=IdType.of(columns["user"]), event_type=IdType.of(columns["event"]))


def read_features(table: Any, node: Node, id_column: str, name: str | None = None) -> pd.DataFrame | None:
    """The attribute table `table`, if there is one, with its ids in a column `<node>_id`.

    They are in a column of that name, of the name `id_column` that the log has for it, or of a name of `CONVENTIONS`.
    ValueError calls the table `name` (None: `<node>_features`) if there is none of them.
    """
    if table is None:
        return None
    name = name or f"{node}_features"
    frame = as_frame(table, name)
    known = dict.fromkeys((f"{node}_id", id_column, *CONVENTIONS[node]))
    found = next((column for column in known if column in frame.columns), None)
    if found is None:
        raise ValueError(f"{name} has no column {node}_id; its columns are {_listed(frame)}")
    return frame.rename(columns={found: f"{node}_id"}).assign(**{f"{node}_id": _plain(frame[found])})


def as_frame(table: Any, name: str) -> pd.DataFrame:
    """`table` as a data frame with names of text.

    One that is not of pandas is asked for an Arrow stream (`__arrow_c_stream__`), or else for `to_pandas`. ValueError
    if it has neither.
    """
    if isinstance(table, pd.DataFrame):
        pass
    elif hasattr(table, "__arrow_c_stream__"):
        with connect() as con:
            table = con.register("given", table).execute("FROM given").df()
    elif hasattr(table, "to_pandas"):
        table = table.to_pandas()
    else:
        raise ValueError(
            f"{name} is a {type(table).__name__}; give a data frame of pandas or Polars, or an Arrow table"
        )
    return table.set_axis(table.columns.map(str), axis=1)


def as_series(ids: Iterable[Any]) -> pd.Series:
    """`ids` as a column: of the type that they have, if all have the same."""
    listed = list(ids)
    return pd.Series(listed, dtype=None if listed else object)


def ids_as_text(ids: pd.Series) -> list[str | None]:
    """How the pipeline writes each of `ids`; None for one that is missing."""
    with connect() as con:
        con.register("asked", pd.DataFrame({"id": _plain(ids).reset_index(drop=True)}))
        dtype = con.execute("DESCRIBE asked").fetchall()[0][1]
        return [text for (text,) in con.execute(f"SELECT {id_text('id', dtype, NULL_VALUES)} FROM asked").fetchall()]


@contextmanager
def notebook_words() -> Iterator[None]:
    """Raises what the pipeline says of log or attributes as a ValueError that names parameters instead of settings."""
    try:
        yield
    except (SourceError, AttributeTableError) as error:
        raise ValueError(in_notebook_words(str(error))) from error


def in_notebook_words(text: str) -> str:
    """`text` of the pipeline with the names of `WORDS`."""
    for of_pipeline, of_notebook in WORDS.items():
        text = text.replace(of_pipeline, of_notebook)
    return text


def _find(frame: pd.DataFrame, role: str, given: str | None) -> str:
    """The column that has the `role`. ValueError lists the columns if there is none, or more than one."""
    found = [name for name in (CONVENTIONS[role] if given is None else [str(given)]) if name in frame.columns]
    if not found:
        wanted = f"named {given!r}" if given is not None else f"for {role} ({', '.join(CONVENTIONS[role])})"
        raise ValueError(f"there is no column {wanted}; set {role}= to one of the columns: {_listed(frame)}")
    if len(found) > 1:
        raise ValueError(f"{role} may be {' or '.join(found)}; set {role}= to one of the columns: {_listed(frame)}")
    if (frame.columns == found[0]).sum() > 1:
        raise ValueError(f"the column {found[0]!r} is there twice; the columns are {_listed(frame)}")
    return found[0]


def _listed(frame: pd.DataFrame) -> str:
    return ", ".join(frame.columns)


def _plain(column: pd.Series) -> pd.Series:
    """`column` as DuckDB reads it: without categories, not kept by Arrow, and text where types are mixed."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.ArrowDtype):
        column = pd.Series(column.array.__arrow_array__().to_pandas(), index=column.index)
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True).startswith("mixed"):
        return column.map(str, na_action="ignore")
    return column
