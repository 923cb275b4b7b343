"""Ingest of a CSV of 10 million rows, beside DuckDB reading the same file into a table without checks.

python -m benchmarks.speed.ingest [--rows N]
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from benchmarks.common import WORK, work_folder
from benchmarks.logs.generated import START, WEEKS, write_log
from benchmarks.table import Row, show
from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.ml.weeks import shift
from tgn_assets.state.warehouse import Warehouse

ROWS = 10_000_000
CSV_SQL = """
    COPY (SELECT "user", item, strftime(to_timestamp(ts) AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S') AS ts
          FROM read_parquet('{source}')) TO '{path}' (HEADER)
"""


def rows(size: int = ROWS) -> Iterator[Row]:
    """The row of the table; both write a new DuckDB file."""
    path = csv(size)
    with work_folder() as folder:
        plain = _plain(path, folder / "plain.duckdb")
        ours = _ours(path, folder / "warehouse.duckdb", size)
    yield Row(
        what=f"ingest of a CSV of {size:,} rows",
        against="DuckDB reading the same file into a table, with no checks",
        must="50% of its speed",
        aim="80%",
        measured=f"{plain / ours:.0%}",
        figures=f"{size / ours / 1e6:.2f} and {size / plain / 1e6:.2f} million rows/s; {ours:.1f} and {plain:.1f} s",
    )


def csv(size: int) -> Path:
    """The CSV file, made first if it is not kept yet."""
    path = WORK / f"{size}.csv"
    if not path.exists():
        with work_folder() as folder, duckdb.connect() as con:
            source = write_log(folder, size, users=size // 10, events=size // 100)
            con.execute("SET TimeZone = 'UTC'")
            con.execute(CSV_SQL.format(source=source, path=folder / "log.csv"))
            (folder / "log.csv").replace(path)
    return path


def _plain(path: Path, database: Path) -> float:
    start = time.perf_counter()
    with duckdb.connect(database) as con:
        con.execute("CREATE TABLE log AS FROM read_csv($path)", {"path": str(path)})
    return time.perf_counter() - start


def _ours(path: Path, database: Path, size: int) -> float:
    weeks = [shift(START, week) for week in range(WEEKS)]
    spec = SourceSpec(str(path), "user", "item", "ts")
    start = time.perf_counter()
    with Warehouse(database).writer() as con:
        report = load_weeks(con, spec, weeks, start_week=weeks[0], end_week=weeks[-1])
    seconds = time.perf_counter() - start
    if sum(report.rows.values()) != size:
        raise RuntimeError(f"{sum(report.rows.values()):,} of {size:,} rows were loaded: {report.rejected}")
    return seconds


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="default: %(default)s")
    show(rows(parser.parse_args().rows))


if __name__ == "__main__":
    main()
