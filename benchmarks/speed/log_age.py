"""Whether a refresh costs more as the log grows older: week 52 of a log of constant weekly volume, beside week 12.

    python -m benchmarks.speed.log_age

The log has 5 thousand interactions a week between the same 2 thousand users and 500 events, so only the history grows.
Each source ends with the refreshed week, as it does in production. Both refreshes are warm.
"""

from collections.abc import Iterator

from benchmarks.common import GIB, Usage, refresh
from benchmarks.logs.cases import constant
from benchmarks.table import Row, show

EARLY, LATE = 12, 52


def rows() -> Iterator[Row]:
    """The row of the table."""
    early, late = (_refresh(weeks) for weeks in (EARLY, LATE))
    slower = {name: step.seconds - early.steps[name].seconds for name, step in late.steps.items()}
    worst = max(slower, key=slower.__getitem__)
    yield Row(
        what=f"refresh of week {LATE} of a synthetic log of constant weekly volume",
        against=f"refresh of week {EARLY}",
        must="<= 1.25x",
        aim="<= 1.05x",
        measured=f"{late.seconds / early.seconds:.2f}x",
        figures=f"{late.seconds:.1f} s and {early.seconds:.1f} s, peak {late.peak / GIB:.2f} and "
        f"{early.peak / GIB:.2f} GiB; most of the difference: {worst}, {slower[worst]:+.1f} s",
    )


def _refresh(weeks: int) -> Usage:
    case = constant(weeks)
    with case.home() as home:
        return refresh(case.log, home, case.week)


if __name__ == "__main__":
    show(rows())
