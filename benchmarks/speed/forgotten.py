"""What a long list of forgotten ids costs an ingest: processor seconds with it and without, alternating in one process.

python -m benchmarks.speed.forgotten [--rows 2000000] [--ids 100000] [--times 3]
"""

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import duckdb

from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.forgotten import ForgottenIds
from tgn_assets.ml.schema import USER, create_tables
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.ml.weeks import shift, weeks_between

START, WEEKS = "2024-01-01", 8
LOG_SQL = """
    COPY (
        SELECT 'user-' || (hash(i) % 200000) AS user, 'event-' || (hash(i + 1) % 5000) AS event,
               TIMESTAMP '2024-01-01' + to_microseconds((hash(i + 2) % 4838400000000)::BIGINT) AS ts
        FROM range({rows}) AS of_rows(i)
    ) TO '{path}' (FORMAT parquet)
"""


def ingest_seconds(log: Path, forgotten: Path | None) -> float:
    """Processor seconds of one ingest of `log` into an empty warehouse in memory."""
    weeks = weeks_between(START, shift(START, WEEKS - 1))
    spec = SourceSpec(str(log), "user", "event", "ts", forgotten=forgotten)
    with duckdb.connect() as con:
        create_tables(con)
        start = time.process_time()
        load_weeks(con, spec, weeks, start_week=START, end_week=None)
        return time.process_time() - start


def main() -> None:
    """Prints the seconds of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        log, listed = Path(folder) / "log.parquet", Path(folder) / "forgotten.json"
        duckdb.sql(LOG_SQL.format(rows=args.rows, path=log))
        strangers = (f"stranger-{number}" for number in range(args.ids))
        listed.write_text(ForgottenIds.load(None).adding(USER, strangers).to_json())
        ingest_seconds(log, None)
        seconds: dict[Path | None, list[float]] = {None: [], listed: []}
        for _ in range(args.times):
            for place, taken in seconds.items():
                taken.append(ingest_seconds(log, place))
    without, beside = median(seconds[None]), median(seconds[listed])
    print(f"{args.rows:,} rows: {without:.2f} processor seconds without a list of forgotten ids")
    print(f"{beside:.2f} with {args.ids:,} of them: {beside / without:.2f} times as much")


if __name__ == "__main__":
    main()
