"""Logs on disk for tests of their reading."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb

from tgn_assets.ml.source import SourceExtent, SourceSpec

HEADER = "ip_address,event_id,timestamp\n"
ROWS = "u1,e1,2024-01-03 10:00:00\nu2,e1,2024-01-09 10:00:00\nu1,e2,2024-01-21 10:00:00\n"
WEEKS = ["2024-01-01", "2024-01-08", "2024-01-15"]
EXTENT = SourceExtent("2024-01-01", "2024-01-15", datetime(2024, 1, 21, 10, tzinfo=UTC))
"""Of `ROWS`, whose last one is on a Sunday."""


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
