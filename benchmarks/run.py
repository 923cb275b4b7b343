"""`make bench`: makes every comparison, one after the other, and prints one table.

    python -m benchmarks.run [--minutes N]

Also writes the table to `benchmarks/RESULTS.md` and `docs/performance.md`. `make bench-setup` makes what is not
measured and keeps it in `.bench`: the peers' environments, homes refreshed up to the week before, generated logs.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from benchmarks.logs.cases import constant, retail
from benchmarks.speed import (
    dagster_overhead,
    encoder_training,
    ingest,
    log_age,
    neighbor_sampler,
    topk,
    weekly_refresh,
)
from benchmarks.table import Row, markdown, publish

SECTION = "side by side"


def main() -> None:
    """Prints and publishes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make the kept homes and files, measure nothing")
    parser.add_argument(
        "--minutes",
        type=float,
        default=weekly_refresh.SASREC_MINUTES,
        help="limit of SASRec's training (default: %(default)s)",
    )
    given = parser.parse_args()
    if given.prepare:
        prepare()
        return
    start, rows = time.monotonic(), []
    for row in measure(given.minutes):
        rows.append(row)
        print(f"{time.monotonic() - start:.0f} s: {row.what} / {row.against}: {row.measured}", file=sys.stderr)
    text = "\n".join(markdown(rows))
    print(text)
    took = (time.monotonic() - start) / 60
    publish(SECTION, f"{text}\n\n`make bench`, {took:.0f} minutes, of which SASRec had at most {given.minutes:g}.")


def measure(minutes: float) -> Iterator[Row]:
    """All rows of the table; the longest comparison comes last. SASRec trains for at most `minutes`."""
    yield from encoder_training.rows()
    yield from neighbor_sampler.rows()
    yield from topk.rows()
    yield from ingest.rows()
    yield from log_age.rows()
    case = retail()
    task = weekly_refresh.Task(case)
    ours = weekly_refresh.measure(case, task)
    yield from dagster_overhead.rows(case, ours.usage)
    yield from weekly_refresh.rows(ours, task, minutes)


def prepare() -> None:
    """Makes the homes and the large CSV file."""
    for case in (retail(), constant(log_age.EARLY), constant(log_age.LATE)):
        with case.home():
            print(f"{case.name}: the home is ready for week {case.week}", file=sys.stderr)
    ingest.csv(ingest.ROWS)


if __name__ == "__main__":
    main()
