"""Reads `current.duckdb` into the compact form that `WeekLists` answers from.

    python -m tgn_assets.serve.compact FILE DESCRIPTOR

A process of its own does it: it takes seconds and hundreds of megabytes, and a damaged file may end it. The service
goes on meanwhile, and gets the result through the open file DESCRIPTOR.

The form is the length of a header (8 bytes, little endian), the header as JSON, and the arrays that the header names,
each at a multiple of 8 bytes:

- `user.text`, `user.offsets`: the users' ids in UTF-8, sorted bytewise, one behind the other, and where each begins;
- `starts`: the first row of each user, and the number of rows; a user's rows are in the order of their ranks;
- `<column>.values` of a column of numbers, NaN where there is none: 4 bytes each if that loses nothing;
- `<column>.codes`, `<column>.text`, `<column>.offsets` of any other column: its distinct values as JSON, and which of
  them each row has.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import numpy as np
from numpy.typing import NDArray

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.schema import LISTS, NEW_USER_LISTS, USER_LISTS, Column, literal
from tgn_assets.serve.columns import NOTHING_PUBLISHED, list_columns

Arrays = dict[str, NDArray[Any]]

NICENESS = 10
IDS_PER_FETCH = 100_000
ALIGNMENT = 8


class NothingPublished(Exception):
    """The copy has no week."""


class DamagedCopy(Exception):
    """The copy can be read, and is not what a week's publication leaves."""


def compact(con: duckdb.DuckDBPyConnection) -> tuple[dict[str, Any], Arrays]:
    """The header and the arrays of the newest published week in `con`.

    NothingPublished if there is none, DamagedCopy if the lists are not those of one week with ranks from 1,
    duckdb.Error if they cannot be read.
    """
    (week, target_week) = con.execute(
        "SELECT strftime(max(week), '%Y-%m-%d'), strftime(max(target_week), '%Y-%m-%d') FROM published_weeks"
    ).fetchall()[0]
    if week is None:
        raise NothingPublished
    for table in LISTS:
        (others,) = con.execute(
            f"SELECT count(*) FROM {table} WHERE week IS DISTINCT FROM $week", {"week": week}
        ).fetchall()[0]
        if others:
            raise DamagedCopy(f"{table} has {others:,} rows of another week than {week}")
    arrays, columns = _user_lists(con)
    header = {
        "week": week,
        "target_week": target_week,
        "columns": columns,
        "new_user_items": _new_user_items(con),
        "users": len(arrays["starts"]) - 1,
        "events": con.execute(f"SELECT count(DISTINCT event_id) FROM {USER_LISTS}").fetchall()[0][0],
    }
    return header | {"digest": _digest(header, arrays)}, arrays


def write_compact(header: Mapping[str, Any], arrays: Arrays, file: BinaryIO) -> None:
    """Writes what `compact` made."""
    places, end = {}, 0
    for name, array in arrays.items():
        places[name] = {"type": array.dtype.char, "begin": end, "bytes": array.nbytes}
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    text = json.dumps({**header, "arrays": places}).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(np.ascontiguousarray(array).data.cast("B"))
        file.write(b"\0" * (-array.nbytes % ALIGNMENT))
    file.flush()


def _user_lists(con: duckdb.DuckDBPyConnection) -> tuple[Arrays, list[str]]:
    """The arrays, and the names of the columns beside `rank`, in the order of the answer."""
    columns = list_columns(USER_LISTS, _names(con, USER_LISTS))
    con.execute(f"CREATE TEMP TABLE users AS {_numbered('user_id', USER_LISTS)}")
    names, joins = [], []
    for column in columns:
        if is_number(column):
            names.append(f"coalesce(l.{column.name}, 'NaN'::DOUBLE) AS {column.name}")
        else:
            con.execute(f"CREATE TEMP TABLE {column.name}s AS {_numbered(_as_json(column.name), USER_LISTS)}")
            names.append(f"{column.name}s.number AS {column.name}")
            joins.append(f"JOIN {column.name}s ON {column.name}s.value = {_as_json(f'l.{column.name}')}")
    rows = con.execute(
        f"SELECT users.number AS user, l.rank AS rank, {', '.join(names)} FROM {USER_LISTS} AS l "
        f"JOIN users ON users.value = l.user_id {' '.join(joins)} ORDER BY 1, 2"
    ).fetchnumpy()
    user, rank = rows.pop("user"), rows.pop("rank")
    arrays = _texts(con, "user", "users")
    starts = np.searchsorted(user, np.arange(len(arrays["user.offsets"])))
    if not np.array_equal(rank, np.arange(len(user)) - starts[user] + 1):
        raise DamagedCopy("the ranks of a list are not 1, 2, 3, ...")
    arrays["starts"] = _narrow(starts)
    for column in columns:
        values = np.ma.getdata(rows.pop(column.name))
        if is_number(column):
            arrays[f"{column.name}.values"] = _narrow_floats(values)
        else:
            arrays |= _texts(con, column.name, f"{column.name}s") | {f"{column.name}.codes": _narrow(values)}
    return arrays, [column.name for column in columns]


def is_number(column: Column) -> bool:
    """Whether the values of `column` are kept as numbers, and not as codes of its distinct values."""
    return column.type == "DOUBLE"


def _new_user_items(con: duckdb.DuckDBPyConnection) -> str:
    """The list for new users, as JSON."""
    names = ["rank", *(column.name for column in list_columns(NEW_USER_LISTS, _names(con, NEW_USER_LISTS)))]
    fields = ", ".join(f"{name} := {name}" for name in names)
    query = f"SELECT to_json(struct_pack({fields}))::VARCHAR FROM {NEW_USER_LISTS} ORDER BY rank"
    return f"[{','.join(item for (item,) in con.execute(query).fetchall())}]"


def _names(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """The columns of `table`; DamagedCopy if one is lacking that every version has."""
    names = [row[0] for row in con.execute(f"DESCRIBE {table}").fetchall()]
    needed = {"week", "target_week", "rank", "event_id", "score", "source"}
    if lacking := needed - set(names):
        raise DamagedCopy(f"{table} has no column {', '.join(sorted(lacking))}")
    return names


def _as_json(expression: str) -> str:
    return f"coalesce(to_json({expression})::VARCHAR, 'null')"


def _numbered(expression: str, table: str) -> str:
    """A query of the distinct values of `expression`, numbered from 0 in ascending order."""
    distinct = f"SELECT DISTINCT {expression} AS value FROM {table}"
    return f"SELECT value, (row_number() OVER (ORDER BY value) - 1)::UINTEGER AS number FROM ({distinct})"


def _texts(con: duckdb.DuckDBPyConnection, name: str, table: str) -> Arrays:
    """The arrays `name`.text and `name`.offsets of the values of a table that `_numbered` made."""
    text, lengths = bytearray(), [0]
    found = con.execute(f"SELECT value FROM {table} ORDER BY number")
    for (value,) in chain.from_iterable(iter(partial(found.fetchmany, IDS_PER_FETCH), [])):
        encoded = value.encode()
        text += encoded
        lengths.append(len(encoded))
    return {f"{name}.text": np.frombuffer(text, np.uint8), f"{name}.offsets": _narrow(np.cumsum(lengths))}


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """`values`, whole numbers from 0, in the fewest bytes that hold them."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def _narrow_floats(values: NDArray[Any]) -> NDArray[Any]:
    """`values` in 4 bytes each, if that loses nothing."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    return short if np.array_equal(short.astype(values.dtype), values, equal_nan=True) else values


def _digest(header: Mapping[str, Any], arrays: Arrays) -> str:
    """Another one whenever an answer may be another one."""
    made = blake2b(json.dumps([version("tgn_assets"), header]).encode(), digest_size=12)
    for name, array in arrays.items():
        made.update(name.encode())
        made.update(np.ascontiguousarray(array).data.cast("B"))
    return made.hexdigest()


def main(path: str, descriptor: int) -> int:
    """Writes the compact form of the file `path`; the exit status."""
    os.nice(NICENESS)
    with tempfile.TemporaryDirectory(prefix="tgn-serve-") as folder, os.fdopen(descriptor, "wb") as out:
        try:
            with connect(Path(path), read_only=True) as con:
                con.execute(f"SET threads = 1; SET temp_directory = {literal(folder)}")
                write_compact(*compact(con), out)
        except NothingPublished:
            return NOTHING_PUBLISHED
        except (duckdb.Error, DamagedCopy, OSError, MemoryError) as error:
            print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1], int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(code)  # in an ordinary exit DuckDB's binding prints a page about its own references
