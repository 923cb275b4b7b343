"""Threads and a local cluster of Ray on the same warm week, in one run: seconds of each step, and the same lists.

    python -m benchmarks.ray [--interactions 1e6] [--publish]

The home is that of `benchmarks.profiling.scale`, which makes it if it is not there. Both work with all processors of
the machine. RuntimeError if a list or a score differs. Prints Markdown.
"""

import argparse
import os
from collections.abc import Iterator

import duckdb

from benchmarks.common import GIB, Usage, machine, refresh
from benchmarks.profiling.scale import LAST, drop_newest_training_set, prepared
from benchmarks.table import publish

SECTION = "ray"
ENGINES = {"threads": "", "Ray": "ray"}
LISTS = "SELECT md5(string_agg(t::VARCHAR, '' ORDER BY t::VARCHAR)) FROM weekly_top5_predictions t WHERE week = ?"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=lambda text: int(float(text)), default=1_000_000, metavar="N")
    parser.add_argument("--publish", action="store_true", help="write RESULTS.md and docs/performance.md")
    given, lines = parser.parse_args(), list[str]()
    for line in report(given.interactions):
        lines.append(line)
        print(line, flush=True)
    if given.publish:
        publish(SECTION, "\n".join(lines))


def report(size: int) -> Iterator[str]:
    """Markdown: a row for each step of the run, and one for the whole process."""
    home, log, _ = prepared(size, fresh=False)
    usage, lists = dict[str, Usage](), set[str]()
    for engine, setting in ENGINES.items():
        drop_newest_training_set(home, LAST)
        os.environ["TGN_WORKERS"] = setting
        usage[engine] = refresh(log, home, LAST)
        with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
            lists.add(con.execute(LISTS, [LAST]).fetchall()[0][0])
    if len(lists) > 1:
        raise RuntimeError("threads and Ray gave different lists")
    threads, ray = usage.values()
    yield f"{machine()}\n\n{size:,} interactions, warm; the lists are the same bytes\n"
    yield "| asset | threads, s | Ray, s | ratio |\n|---|---|---|---|"
    for name, step in threads.steps.items():
        yield f"| {name} | {step.seconds:.1f} | {ray.steps[name].seconds:.1f} | |"
    yield f"| whole process | {threads.seconds:.1f} | {ray.seconds:.1f} | {ray.seconds / threads.seconds:.2f} |"
    yield f"| peak of the run's process, GiB | {threads.peak / GIB:.2f} | {ray.peak / GIB:.2f} | |"


if __name__ == "__main__":
    main()
