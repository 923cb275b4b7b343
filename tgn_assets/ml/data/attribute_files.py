"""Attribute tables from files or data frames, as of a week.

Rows that count only later, and rows of nodes that the log did not know yet, are gone before a column's type is looked
at; so nothing that is handed on depends on them, except that a file must be sound as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.connectors.duckdb_session import connect, reason_of
from tgn_assets.ml.data.attributes import (
    ALWAYS,
    DAY,
    MONDAY,
    SETTINGS,
    AttributeColumn,
    AttributeTable,
    AttributeTables,
    Kind,
    Node,
    close_of,
)
from tgn_assets.ml.safe_text import SafeError, listed, safe_error, shortened
from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.formats import table_of_file
from tgn_assets.ml.sources.relations import id_text, one_of
from tgn_assets.ml.sources.spec import NULL_VALUES, SourceError
from tgn_assets.ml.sources.timestamp_sql import moment_sql
from tgn_assets.ml.weeks import week_number

MAX_COLUMNS = 16
"""Feature columns of one table: each makes one or two features of every pair that is ranked."""
LARGEST = 4 << 30
"""Bytes of a file."""
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
VALUES: dict[Kind, str] = {
    "number": "TRY_CAST({0} AS DOUBLE)",
    "time": "epoch_us(TRY_CAST({0} AS TIMESTAMPTZ))",
    "category": "CAST({0} AS VARCHAR)",
}
SINCE = "epoch_us(valid_from)"
FRAME = "attribute_frame"
LIKE_NUMBER = r"\s*[^\w\s]*\s*[0-9][0-9.,' ]*\s*[^\w\s]?\s*"
"""A number, with a sign before or after it: a minus, of a currency, of per cent; or with commas."""
TEXT_AS_NUMBER = "coalesce(TRY_CAST({0} AS DOUBLE), TRY_CAST({0} AS BOOLEAN)::INT)"


class AttributeTableError(SafeError, ValueError):
    """An attribute file that cannot be used; the message names the setting and says what to do."""


def read_attribute_tables(
    event_features: str | pd.DataFrame | None,
    user_features: str | pd.DataFrame | None,
    users: pd.DataFrame,
    events: pd.DataFrame,
    week: str,
    *,
    null_values: Sequence[str] = NULL_VALUES,
) -> AttributeTables:
    """The tables in these CSV or Parquet files, or data frames, as of the close of `week`, when the log knew `users`
    and `events` (columns idx, id); texts among `null_values` are missing values. AttributeTableError if one of them
    cannot be used."""
    notes: list[str] = []
    event = _read("event", event_features, events, week, notes=notes, null_values=null_values)
    user = _read("user", user_features, users, week, notes=notes, null_values=null_values)
    return AttributeTables(event, user, tuple(notes))


def _relation(con: duckdb.DuckDBPyConnection, where: str, node: Node, given: str | pd.DataFrame) -> tuple[str, bool]:
    """SQL of the rows of `given`, which errors call `where`, and whether its columns are typed."""
    if isinstance(given, pd.DataFrame):
        con.register(FRAME, given)
        return FRAME, True
    path = Path(given).expanduser()
    if not path.is_file():
        remedy = f"name a CSV or Parquet file with {node}_id and a column per feature"
        raise AttributeTableError(f"{where} is no file; {remedy}")
    if path.stat().st_size > LARGEST:
        raise AttributeTableError(f"{where} has more than {LARGEST >> 30} GB; keep the events and users of the log")
    return table_of_file(where, str(path), [f"{node}_id"])


def _read(
    node: Node,
    given: str | pd.DataFrame | None,
    known: pd.DataFrame,
    week: str,
    *,
    notes: list[str],
    null_values: Sequence[str],
) -> AttributeTable:
    if given is None or (isinstance(given, str) and not given):
        return AttributeTable()
    where = SETTINGS[node] if isinstance(given, pd.DataFrame) else f"{SETTINGS[node]}={given}"
    try:
        with connect() as con:
            read, typed = _relation(con, where, node, given)
            con.execute(f"CREATE TEMP VIEW given AS FROM {read}")
            types = {name: str(dtype) for name, dtype, *_ in con.execute("DESCRIBE given").fetchall()}
            features = _features(where, node, types)
            key = f"{node}_id"
            timed = "valid_from" in types
            read_as = [f"{id_text(key, types[key], null_values)} AS {key}"]  # as the log writes them
            texts = [quoted(name) for name in features if types[name] == "VARCHAR"]
            read_as += [f"CASE WHEN NOT {one_of(text, ('', *null_values))} THEN {text} END AS {text}" for text in texts]
            read_as += [f"{moment_sql('valid_from', types['valid_from'])} AS valid_from"] if timed else []
            con.execute(f"CREATE OR REPLACE TEMP VIEW given AS SELECT * REPLACE ({', '.join(read_as)}) FROM {read}")
            _check_rows(con, where, node, timed)
            con.register("known", known[["idx", "id"]])
            since = SINCE if timed else f"{ALWAYS}::BIGINT"
            con.execute(
                f"CREATE TEMP TABLE past AS SELECT idx, {since} AS since, {', '.join(map(quoted, features))} "
                f"FROM given JOIN known ON id = {node}_id WHERE since < {close_of(week_number(week))} "
                "ORDER BY idx, since"
            )
            kinds = {name: _kind_of_type(types[name]) if typed else _kind_of_text(con, name) for name in features}
            notes += [f"{where}: {said}" for name in features for said in _like_numbers(con, name, kinds[name])]
            table = _table(con, node, kinds, typed)
    except SourceError as error:
        raise AttributeTableError(str(error)) from None
    except (duckdb.Error, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise AttributeTableError(
            f"{where} cannot be read ({reason_of(error)}); it is CSV in UTF-8 or Parquet, and valid_from a date or "
            "a time"
        ) from safe_error(error)
    if not len(table.idx):
        notes.append(f"{where} has no row for any {node} known at the close of {week}: is {node}_id written as there?")
    elif not timed:
        notes.append(
            f"{where} has no column valid_from: its values count for every past week, and what was learnt only later "
            "makes a backtest look better than it is. Give valid_from to values that change."
        )
    return table


def _features(where: str, node: Node, types: dict[str, str]) -> list[str]:
    """The feature columns among `types`; AttributeTableError if there are none, too many, or one of a wrong type."""
    if f"{node}_id" not in types:
        raise AttributeTableError(f"{where} has no column {node}_id; its columns are {listed(types)}")
    for name in (f"{node}_id", "valid_from"):  # DuckDB calls a second one so
        if f"{name}_1" in types:
            raise AttributeTableError(f"{where} has the column {name} twice; rename one")
    features = [name for name in types if name not in (f"{node}_id", "valid_from")]
    if not 1 <= len(features) <= MAX_COLUMNS:
        raise AttributeTableError(
            f"{where} has {len(features)} feature columns beside {node}_id and valid_from; it may have 1 to "
            f"{MAX_COLUMNS}: keep those that tell what somebody takes to"
        )
    for name in features:
        if _kind_of_type(types[name]) is None:
            raise AttributeTableError(
                f"{where}: column {name} is of type {types[name]}; it may hold numbers, booleans, dates, times or "
                "text: leave it out, or make one of these of it"
            )
    return features


def _check_rows(con: duckdb.DuckDBPyConnection, where: str, node: Node, timed: bool) -> None:
    """AttributeTableError if a row is ambiguous, or says no time although the table has times."""
    key, same, remedy = f"{node}_id", "", "keep one, or say in a column valid_from when each counts"
    if timed:
        key, same, remedy = f"{key}, {SINCE}", " with the same valid_from", "give them different times"
        (missing,) = con.execute(f"SELECT min({node}_id) FROM given WHERE valid_from IS NULL").fetchall()
        if missing[0] is not None:
            raise AttributeTableError(f"{where}: the row of {missing[0]} has no valid_from; say from when on it counts")
        of_two_digits = "FROM given WHERE year(valid_from) BETWEEN 2 AND 999 LIMIT 1"
        for name, day in con.execute(f"SELECT {node}_id, strftime(valid_from, '%Y-%m-%d') {of_two_digits}").fetchall():
            said = f"{where}: the row of {name} has the valid_from {day}, and would count for all weeks"
            raise AttributeTableError(f"{said}: write years in full")
    query = f"SELECT {node}_id FROM given WHERE {node}_id IS NOT NULL GROUP BY {key} HAVING count(*) > 1"
    if twice := con.execute(f"{query} ORDER BY {key} LIMIT 1").fetchall():
        raise AttributeTableError(f"{where} has more than one row of {twice[0][0]}{same}; {remedy}")


def _kind_of_type(dtype: str) -> Kind | None:
    if dtype.endswith("]") or dtype.startswith(("STRUCT", "MAP", "UNION")):
        return None
    if dtype.removeprefix("U").split("(")[0] in NUMBERS:
        return "number"
    if dtype == "DATE" or dtype.startswith("TIMESTAMP"):
        return "time"
    return "category" if dtype in ("VARCHAR", "UUID") or dtype.startswith("ENUM") else None


def _kind_of_text(con: duckdb.DuckDBPyConnection, name: str) -> Kind:
    """What all values of a column of text can be read as."""
    column = quoted(name)
    number, time = TEXT_AS_NUMBER.format(column), VALUES["time"].format(column)
    query = f"SELECT count({column}), count({number}), count({time}) FROM past"
    ((values, numbers, times),) = con.execute(query).fetchall()
    return "number" if numbers == values else "time" if times == values else "category"


def _like_numbers(con: duckdb.DuckDBPyConnection, name: str, kind: Kind | None) -> Iterator[str]:
    """What to say of a column of categories most of which look like numbers."""
    if kind != "category":
        return
    column = quoted(name)
    number = TEXT_AS_NUMBER.format(column)
    query = f"""SELECT 2 * count(*) FILTER (WHERE regexp_full_match({column}, $like)) > count({column}),
                       min({column}) FILTER (WHERE {number} IS NULL) FROM past"""
    ((most, sample),) = con.execute(query, {"like": LIKE_NUMBER}).fetchall()
    if most and sample is not None:
        yield (
            f"the column {name} is taken for categories, since not all of its values are numbers, such as "
            f"{shortened(repr(sample))}: write 1234.5 if they are numbers, and nothing where one is missing"
        )


def _table(con: duckdb.DuckDBPyConnection, node: Node, kinds: dict[str, Kind | None], typed: bool) -> AttributeTable:
    """The rows of `past`; a column in which nothing is known yet is not there yet."""
    rows = con.execute("SELECT idx, since FROM past ORDER BY idx, since").df()
    columns, values = [], []
    for name, kind in kinds.items():
        assert kind is not None
        value = TEXT_AS_NUMBER if kind == "number" and not typed else VALUES[kind]
        query = f"SELECT {value.format(quoted(name))} AS value FROM past ORDER BY idx, since"
        column = _as_floats(con.execute(query).df()["value"], kind)
        if not np.isnan(column).all():
            columns.append(AttributeColumn(node, name, kind))
            values.append(column)
    matrix = np.column_stack(values) if values else np.zeros((len(rows), 0))
    return AttributeTable(tuple(columns), rows["idx"].to_numpy(np.int64), rows["since"].to_numpy(np.int64), matrix)


def _as_floats(column: pd.Series, kind: Kind) -> np.ndarray:
    if kind == "category":
        codes, _ = pd.factorize(column.replace("", None))
        return np.where(codes >= 0, codes, np.nan)
    values = column.to_numpy(np.float64, na_value=np.nan)
    return (values - MONDAY) / (7 * DAY) if kind == "time" else np.where(np.isfinite(values), values, np.nan)
