"""Compares the results in two homes: tables row by row, checkpoints tensor by tensor.

    python -m benchmarks.same_bytes HOME_A HOME_B [--ignore-rows TABLE "SQL CONDITION"]

This is how a refactoring proves that it changes no behaviour: fill one home before it and one after it, with the same
`tgn backtest`, and compare them. Prints what differs; the exit status is 1 if anything does. The order of rows, file
formats, metadata and the names of tensors do not count: a tensor may have another name if its content is the same. Nor
does the table of when each asset was made.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
from safetensors import safe_open

LIGHTGBM_MODEL = "tree\n"
"""The beginning of a LightGBM model, which a checkpoint keeps as a text in its meta.json."""

TIMES = "made_weeks"
"""The table of when each asset was made, and of digests of what is compared here anyway."""
COLUMNS_SQL = """
    SELECT table_name, list(column_name ORDER BY column_index)
    FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (database_name, table_name)
    WHERE database_name = $database GROUP BY ALL ORDER BY ALL
"""
ONLY_SQL = """
    SELECT count(*) FROM (
        SELECT {columns} FROM {one}.{table} WHERE NOT ({ignored})
        EXCEPT ALL SELECT {columns} FROM {other}.{table} WHERE NOT ({ignored})
    )
"""


def main() -> int:
    """Prints a line for each difference; returns 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("home_a", "home_b"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument(
        "--ignore-rows", nargs=2, action="append", default=[], metavar=("TABLE", "CONDITION"), help="rows to leave out"
    )
    given = parser.parse_args()
    for home in (given.home_a, given.home_b):
        if not (home / "warehouse.duckdb").exists():
            parser.error(f"{home} is no TGN_HOME: it has no warehouse.duckdb")
    found = list(differences(given.home_a, given.home_b, dict(given.ignore_rows)))
    print("\n".join(found or ["no difference"]))
    return int(bool(found))


def differences(a: Path, b: Path, ignored_rows: Mapping[str, str] | None = None) -> Iterator[str]:
    """A line for each table and each tensor that is not the same in the homes `a` and `b`."""
    yield from table_differences(a / "warehouse.duckdb", b / "warehouse.duckdb", ignored_rows or {})
    yield from tensor_differences(contents(a / "artifacts"), contents(b / "artifacts"))


def table_differences(a: Path, b: Path, ignored_rows: Mapping[str, str]) -> Iterator[str]:
    """A line for each difference of the DuckDB files `a` and `b`, without the rows of a table that its SQL condition
    in `ignored_rows` selects."""
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{a}' AS a (READ_ONLY)").execute(f"ATTACH '{b}' AS b (READ_ONLY)")
        tables: list[dict[str, Sequence[str]]] = [
            dict(con.execute(COLUMNS_SQL, {"database": name}).fetchall()) for name in ("a", "b")
        ]
        for table in sorted({*tables[0], *tables[1]} - {TIMES}):
            columns = [set(of.get(table, ())) for of in tables]
            if columns[0] != columns[1]:
                yield f"table {table}: only one has the columns {', '.join(sorted(columns[0] ^ columns[1]))}"
            shared = columns[0] & columns[1]
            if not shared:
                continue
            names, ignored = ", ".join(f'"{name}"' for name in sorted(shared)), ignored_rows.get(table, "false")
            queries = [
                ONLY_SQL.format(columns=names, one=one, other=other, table=table, ignored=ignored)
                for one, other in ("ab", "ba")
            ]
            [(only_a,)], [(only_b,)] = (con.execute(query).fetchall() for query in queries)
            if only_a or only_b:
                yield f"table {table}: {only_a:,} rows only in A, {only_b:,} only in B"


def tensor_differences(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[str]:
    """A line for each difference of two homes' `contents`; what has only another name does not differ."""
    yield from (f"{name}: differs" for name in sorted(a.keys() & b.keys()) if a[name] != b[name])
    only_a, only_b = ({name: of[name] for name in of if name not in other} for of, other in ((a, b), (b, a)))
    for home, only, other in (("A", only_a, only_b), ("B", only_b, only_a)):
        renamed = Counter(other.values())
        for name in sorted(only):
            if renamed[only[name]]:
                renamed[only[name]] -= 1
            else:
                yield f"{name}: only in {home}"


def contents(artifacts: Path) -> dict[str, str]:
    """The digest of each tensor and LightGBM model under `artifacts`, by `asset/week/name`."""
    found = {}
    for path in artifacts.rglob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                tensor = np.ascontiguousarray(file.get_tensor(name))
                kind = f"{tensor.dtype} {tensor.shape} ".encode()
                found[f"{path.parent.relative_to(artifacts)}/{name}"] = _digest(kind + tensor.tobytes())
    for path in artifacts.rglob("meta.json"):
        for name, value in json.loads(path.read_text()).items():
            if str(value).startswith(LIGHTGBM_MODEL):
                found[f"{path.parent.relative_to(artifacts)}/{name}"] = _digest(value.encode())
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
