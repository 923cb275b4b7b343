"""Logs on disk, and a warehouse in memory to load them into."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.data.ingest_report import IngestReport
from tgn_assets.ml.schema import create_tables
from tgn_assets.ml.sources.spec import SourceExtent, SourceSpec

HEADER = "ip_address,event_id,timestamp\n"
ROWS = "u1,e1,2024-01-03 10:00:00\nu2,e1,2024-01-09 10:00:00\nu1,e2,2024-01-21 10:00:00\n"
WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15"]
EXTENT = SourceExtent("2024-01-01", "2024-01-15", datetime(2024, 1, 21, 10, tzinfo=UTC))
"""Of `ROWS`, whose last one is on a Sunday."""
BAD = [
    ",e,2024-01-02",
    "u,,2024-01-09",
    "u,e,",
    "u,e,soon",
    "u,e,1969-12-31T23:59:59Z",
    "u,e,2200-01-01",
    ",,",
    "u,e",
    "u,e,2024-01-02,x",
]
"""One row of each kind that is rejected, among them two of a known week."""


def csv(tmp_path: Path, text: str = HEADER + ROWS, name: str = "log.csv") -> SourceSpec:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return SourceSpec(str(file))


def parquet(tmp_path: Path, query: str, name: str = "log.parquet") -> SourceSpec:
    file = str(tmp_path / name)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(f"COPY ({query}) TO $file (FORMAT parquet)", {"file": file})
    return SourceSpec(file)


def rows_query(folder: Path) -> str:
    csv(folder)
    return f"SELECT * REPLACE (timestamp::TIMESTAMP AS timestamp) FROM read_csv('{folder}/log.csv', all_varchar = true)"


def warehouse() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    create_tables(con)
    return con


def load(con: duckdb.DuckDBPyConnection, spec: SourceSpec, weeks: Sequence[str] = WEEKS) -> IngestReport:
    return load_weeks(con, spec, weeks, start_week=WEEKS[0], end_week=None)


def rows(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple]:
    return con.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


def indices(con: duckdb.DuckDBPyConnection, node: str) -> dict[str, tuple[int, str | None]]:
    found = con.execute(f"SELECT {node}_id, {node}_idx, first_week::VARCHAR FROM {node}s").fetchall()
    return {identity: (index, first_week) for identity, index, first_week in found}
