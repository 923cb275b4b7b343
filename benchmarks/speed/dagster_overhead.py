"""What Dagster costs: one refresh through it, beside the same functions called one after the other.

python -m benchmarks.speed.dagster_overhead
"""

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.common import ROOT, Usage, refresh
from benchmarks.logs.cases import Case, retail
from benchmarks.table import Row, show


def rows(case: Case, through_dagster: Usage) -> Iterator[Row]:
    """The row of the table; both times are those of whole processes."""
    with case.home() as home:
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.speed.without_dagster", case.week]
        subprocess.run(command, env=case.log.environment(home), cwd=ROOT, check=True)
        direct = time.perf_counter() - start
    seconds = through_dagster.seconds
    yield Row(
        what=f"one warm weekly refresh of {case.name}, all assets, through Dagster",
        against="the same functions called directly",
        must="<= 1.25x + 10 s",
        aim="<= 1.1x + 5 s",
        measured=f"{seconds / direct:.2f}x",
        figures=f"{seconds:.1f} s and {direct:.1f} s",
    )


def main() -> None:
    """Prints the table."""
    case = retail()
    with case.home() as home:
        usage = refresh(case.log, home, case.week)
    show(rows(case, usage))


if __name__ == "__main__":
    main()
