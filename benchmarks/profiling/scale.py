"""Time and peak memory of a weekly refresh on logs of growing size, asset by asset.

    python -m benchmarks.profiling.scale [--interactions 1e6 1e7] [--fresh] [--publish]

A log of n interactions has n / 10 users and n / 100 events, at most 300,000, in 26 weeks. The week before the last is
refreshed first: it ingests all earlier weeks and starts cold. Then the last week is refreshed, warm. The prepared homes
stay in `.bench/scale`, whatever code made them, so a second run refreshes the last week alone (`--fresh` makes them
again). If the code that makes training sets has changed since, the first refresh makes nine of them instead of one. All
files of a home are read once before, so that a slow disk does not count. Prints Markdown.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import GIB, WORK, Log, Usage, machine, refresh
from benchmarks.logs.generated import START, WEEKS, write_log
from benchmarks.table import publish
from tgn_assets.ml.weeks import shift
from tgn_assets.state.artifact_store import ArtifactStore

SECTION = "growth"
SIZES = [1_000_000, 10_000_000]
MOST_EVENTS = 300_000
LAST = shift(START, WEEKS - 1)


def main() -> None:
    """Prints the steps of each size, then the growth; and the cold start, if it was made now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", nargs="+", type=lambda text: int(float(text)), default=SIZES, metavar="N")
    parser.add_argument("--fresh", action="store_true", help="make log and home again")
    parser.add_argument("--publish", action="store_true", help="write RESULTS.md and docs/performance.md")
    given, lines = parser.parse_args(), list[str]()
    for line in report(given.interactions, given.fresh):
        lines.append(line)
        print(line, flush=True)
    if given.publish:
        publish(SECTION, "\n".join(lines))


def report(sizes: list[int], fresh: bool = False) -> Iterator[str]:
    """Markdown: a table of steps for each of `sizes`, then a table with one row for each."""
    yield f"{machine()}\n"
    warm = {}
    for size in sorted(sizes):
        home, log, made = prepared(size, fresh)
        if made:
            yield from assets(f"{size:,} interactions, cold, with all earlier weeks ingested first", made)
        drop_newest_training_set(home, LAST)
        _fill_page_cache(home)
        warm[size] = refresh(log, home, LAST)
        yield from assets(f"{size:,} interactions, warm", warm[size])
    yield (
        "| interactions | users | events | warm, s | growth | peak, GiB | growth | cold, s | peak, GiB |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    before = None
    for size, usage in warm.items():
        grown, cold = _growth(before, usage), json.loads(_ready(size).read_text() or "null")
        of_cold = f"{cold['seconds']:.0f} | {cold['peak'] / GIB:.2f}" if cold else "|"
        yield (
            f"| {size:,} | {size // 10:,} | {_events(size):,} | {usage.seconds:.1f} | {grown[0]} "
            f"| {usage.peak / GIB:.2f} | {grown[1]} | {of_cold} |"
        )
        before = usage


def assets(title: str, usage: Usage) -> Iterator[str]:
    """Markdown: seconds and peak memory of every step and of the whole process."""
    yield f"{title}:\n\n| asset | seconds | peak, GiB | without mapped files |\n|---|---|---|---|"
    for name, step in usage.steps.items():
        yield f"| {name} | {step.seconds:.1f} | {step.peak / GIB:.2f} | {step.unmapped / GIB:.2f} |"
    rest = usage.seconds - sum(step.seconds for step in usage.steps.values())
    yield f"| outside the steps | {rest:.1f} | | |"
    yield f"| whole process | {usage.seconds:.1f} | {usage.peak / GIB:.2f} | {usage.unmapped / GIB:.2f} |\n"


def prepared(size: int, fresh: bool) -> tuple[Path, Log, Usage | None]:
    """(home, log, cost of the cold start if made now): a home that lacks only the last week."""
    ready = _ready(size)
    folder = ready.parent
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    if ready.exists():
        return folder / "home", Log(str(folder / "log" / "*.parquet"), LAST), None
    shutil.rmtree(folder, ignore_errors=True)
    log = Log(write_log(folder / "log", size, users=size // 10, events=_events(size)), LAST)
    cold = refresh(log, folder / "home", shift(LAST, -1))
    ready.write_text(json.dumps({"seconds": cold.seconds, "peak": cold.peak}))
    return folder / "home", log, cold


def _ready(size: int) -> Path:
    """The file that says that the home is there, and what its cold start took."""
    return WORK / "scale" / f"{size}" / "ready"


def _events(size: int) -> int:
    return min(size // 100, MOST_EVENTS)


def drop_newest_training_set(home: Path, week: str) -> None:
    """Removes the cached training set that a warm refresh of `week` has to make, in case an earlier run kept it."""
    shutil.rmtree(ArtifactStore(home / "artifacts").training_sets / shift(week, -1), ignore_errors=True)


def _fill_page_cache(home: Path) -> None:
    """Reads all files of `home` once."""
    for path in home.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**24):
                    pass


def _growth(before: Usage | None, now: Usage) -> tuple[str, str]:
    if before is None:
        return "", ""
    return f"{now.seconds / before.seconds:.2f}", f"{now.peak / before.peak:.2f}"


if __name__ == "__main__":
    main()
