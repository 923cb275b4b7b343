"""The table of ratios, and the two pages that publish the latest measurements."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.common import ROOT, machine, peer_versions

RESULTS, DOCS = ROOT / "benchmarks" / "RESULTS.md", ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Row:
    """One comparison: `measured` is the ratio, `figures` the measurements behind it."""

    what: str
    against: str
    must: str
    aim: str
    measured: str
    figures: str


def markdown(rows: Iterable[Row]) -> Iterator[str]:
    """The machine, then the table."""
    yield f"{machine()}. Peers: {peer_versions()}.\n"
    yield "| what | against | must reach | aim | measured | figures |\n|---|---|---|---|---|---|"
    for row in rows:
        cells = (row.what, row.against, row.must, row.aim, f"**{row.measured}**", f"<sub>{row.figures}</sub>")
        yield f"| {' | '.join(cells)} |"


def publish(section: str, text: str) -> None:
    """Replaces the text between the marks of `section` on both pages; ValueError if a page has no such marks."""
    for path in (RESULTS, DOCS):
        path.write_text(replaced(path.read_text(), section, text), encoding="utf-8")


def replaced(page: str, section: str, text: str) -> str:
    """`page` with `text` between the marks of `section`."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page needs one line {begin} and one {end}")
    head, tail = page.split(begin)[0], page.split(end)[1]
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}"


def show(rows: Iterable[Row]) -> None:
    """Prints the table of a benchmark that runs on its own."""
    print("\n".join(markdown(rows)))
