"""`make bench`: every comparison, one after the other in this run, as one table.

    python -m benchmarks.run [--minutes N]

Prints the table and writes it to `benchmarks/RESULTS.md` and `docs/performance.md`. What takes long to make and is not
measured (peers' environments, homes walked up to the week before, generated logs) is kept in `.bench`; `make
bench-setup` makes it.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from benchmarks import history, ingest, overhead, sampler, topk, training, weekly
from benchmarks.cases import constant, retail
from benchmarks.table import Row, markdown, publish

SECTION = "side by side"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make what is kept, and measure nothing")
    parser.add_argument(
        "--minutes", type=float, default=weekly.SASREC_MINUTES, help="most that SASRec gets (default: %(default)s)"
    )
    given = parser.parse_args()
    if given.prepare:
        prepare()
        return
    start, rows = time.monotonic(), []
    for row in measured(given.minutes):
        rows.append(row)
        print(f"{time.monotonic() - start:.0f} s: {row.what} / {row.against}: {row.measured}", file=sys.stderr)
    text = "\n".join(markdown(rows))
    print(text)
    took = (time.monotonic() - start) / 60
    publish(SECTION, f"{text}\n\n`make bench`, {took:.0f} minutes, of which SASRec had {given.minutes:g} at most.")


def measured(minutes: float) -> Iterator[Row]:
    """All rows of the table; the longest comparison comes last."""
    yield from training.rows()
    yield from sampler.rows()
    yield from topk.rows()
    yield from ingest.rows()
    yield from history.rows()
    case = retail()
    task = weekly.Task(case)
    ours = weekly.measured(case, task)
    yield from overhead.rows(case, ours.usage)
    yield from weekly.rows(ours, task, minutes)


def prepare() -> None:
    """Makes the homes and the large file."""
    for case in (retail(), constant(history.EARLY), constant(history.LATE)):
        with case.home():
            print(f"{case.name}: a home that waits for week {case.week}", file=sys.stderr)
    ingest.csv(ingest.ROWS)


if __name__ == "__main__":
    main()
