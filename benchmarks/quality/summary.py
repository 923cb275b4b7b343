"""All logs in one table, read from the tables of docs/quality.md that `make quality` prints.

`python -m benchmarks.quality.summary` writes it to the top of that page.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.common import ROOT
from benchmarks.table import replaced

PAGE = ROOT / "docs" / "quality.md"
SECTION = "summary"
OURS, PEER = "ours, as published", "candidate retrieval + LambdaRank on 8 weeks (a peer)"
LOG = re.compile(r"^### (\S+)\n\n(?:[\d,]+ users, )?([\d,]+) (?:active users|times active) in \d+ weeks", re.MULTILINE)


class Lists(NamedTuple):
    """A row of a log's table."""

    ndcg: float
    interval: str  # of the difference from ours


def summary(page: str) -> str:
    """The table of all logs on `page`, as Markdown; KeyError if a log's table lacks ours or the peer."""
    lines = ["| log | active users | ours | LambdaRank | lead over LambdaRank | best baseline | lead over it |"]
    lines.append("|---|---|---|---|---|---|---|")
    for log, users, rows in _logs(page):
        ours, peer = rows[OURS], rows[PEER]
        baseline, best = max(
            ((name.strip("*"), lists) for name, lists in rows.items() if name.startswith("*")),
            key=lambda item: item[1].ndcg,
        )
        cells = [log, users, f"{ours.ndcg:.3f}", f"{peer.ndcg:.3f}", _lead(ours, peer)]
        cells += [f"{baseline} {best.ndcg:.3f}", _lead(ours, best)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _lead(ours: Lists, other: Lists) -> str:
    """By how much ours is better; in brackets where the interval of the difference contains zero."""
    low, high = (float(limit) for limit in other.interval.split(" to "))
    lead = f"{ours.ndcg / other.ndcg - 1:+.1%}"
    return f"({lead})" if low <= 0 <= high else lead


def _logs(page: str) -> Iterator[tuple[str, str, dict[str, Lists]]]:
    """Name, active users and rows of each log."""
    found = list(LOG.finditer(page))
    for at, log in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(page)
        rows = {}
        for line in page[log.end() : end].splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == 5 and re.fullmatch(r"\d\.\d+", cells[1]):
                rows[cells[0]] = Lists(float(cells[1]), cells[4])
        yield log[1], log[2], rows


if __name__ == "__main__":
    table = summary(PAGE.read_text())
    PAGE.write_text(replaced(PAGE.read_text(), SECTION, table), encoding="utf-8")
    print(table)
