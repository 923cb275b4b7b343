"""What a week costs and what its lists are worth: our presets beside ALS, LambdaRank and SASRec, on every log.

    python -m benchmarks.quality.measure_costs [LOG...] [--methods NAME...] [--minutes N]

Measures each LOG, a Parquet file with the columns user, item and ts, or `synthetic`, and merges the results into
costs.json beside this module; then writes the table and the plot of all results to docs/quality.md and docs/images.
Without a LOG it only writes them.

For each of the last four complete weeks, one method after the other ranks from the weeks before it. NDCG@5 is the mean
over all active users of the four weeks, the same ones for all methods; users without a past get a method's list for new
users, of peers the popular one. Ours runs as a process (`tgn refresh`), in a home that begins with the first of the
weeks; peers are timed from arrays in memory to the lists. Seconds are the median of the last three weeks, in which ours
starts warm. LambdaRank is part of each run: machines differ, and a ratio to its seconds of the same run differs less.
SASRec trains as long as it gains, for at most `--minutes` a week.
"""

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import duckdb
import numpy as np

from benchmarks.common import ROOT, WORK, Log, processor, run_peer, work_folder
from benchmarks.logs.cases import Case, write_world
from benchmarks.quality.costs import Cost, Costs, merged, read_costs, write_costs
from benchmarks.quality.costs_page import chart, table
from benchmarks.speed.weekly_refresh import PEERS, Task, refreshed
from benchmarks.table import replaced
from tgn_assets.ml.sources.spec import last_ended_week
from tgn_assets.ml.sources.synthetic import DEFAULT
from tgn_assets.ml.weeks import shift, weeks_between

PRESETS = ("fast", "standard", "best")
METHODS = ("LambdaRank", "ALS", *PRESETS, "SASRec")
"""In the order in which a week is measured."""
WEEKS = 4
MINUTES, PATIENCE = 5.0, 3
"""SASRec's limit of a week's training, and how many epochs without a gain end it."""
PAGE, PLOT = ROOT / "docs" / "quality.md", ROOT / "docs" / "images" / "quality_seconds.svg"
SECTION = "costs"
SYNTHETIC_WEEKS = "2025-01-06", "2025-12-22"


class Week(NamedTuple):
    """One method in one target week."""

    ndcg: float
    users: int
    seconds: float
    stopped: bool = False


def summarized(weeks: Mapping[str, list[Week]], *, day: str, machine: str) -> dict[str, Cost]:
    """The cost of each method from its weeks, oldest first; the first one's seconds do not count."""
    seconds = {method: median(week.seconds for week in found[1:]) for method, found in weeks.items()}
    return {
        method: Cost(
            ndcg=round(sum(week.ndcg * week.users for week in found) / sum(week.users for week in found), 4),
            users=sum(week.users for week in found),
            seconds=round(seconds[method], 2),
            lambdarank_seconds=round(seconds["LambdaRank"], 2),
            stopped=any(week.stopped for week in found),
            measured=day,
            machine=machine,
        )
        for method, found in weeks.items()
    }


def measure(path: Path, methods: Collection[str], minutes: float) -> dict[str, Cost]:
    """The costs of `methods`, and of LambdaRank, on the log in the Parquet file `path`."""
    last, weeks = last_closed_week(path), defaultdict[str, list[Week]](list)
    log = Log(str(path.resolve()), last)
    with work_folder() as homes:
        for target in weeks_between(shift(last, 1 - WEEKS), last):
            case = Case(path.stem, log, shift(target, -1))
            for method, week in _ranked(case, homes, methods, minutes):
                weeks[method].append(week)
                print(f"{path.stem}, {target}, {method}: {week.ndcg:.4f}, {week.seconds:.1f} s", file=sys.stderr)
    return summarized(weeks, day=datetime.now(UTC).date().isoformat(), machine=processor())


def _ranked(case: Case, homes: Path, methods: Collection[str], minutes: float) -> Iterator[tuple[str, Week]]:
    """Each method's result in the week after that of `case`."""
    task = Task(case)
    users = len(task.active)
    for method in METHODS:
        if method in PRESETS and method in methods:
            ours = replace(case, log=replace(case.log, settings={"TGN_PRESET": method}))
            weekly = refreshed(ours, task, _home(homes, method))
            yield method, Week(weekly.ndcg, users, weekly.usage.seconds)
        elif method == "LambdaRank" or method in methods:
            given: dict[str, Any] = {**task.given(), "enough": np.inf, "patience": PATIENCE, "limit": minutes * 60}
            answer = run_peer(*PEERS[method], **given)
            stopped = bool(answer.get("stopped", False))
            yield method, Week(task.ndcg(answer["lists"]), users, float(answer["seconds"]), stopped)


def _home(homes: Path, preset: str) -> Path:
    """The home of `preset`; a new one begins as a copy of another preset's, which has ingested the past.

    No model of the copy is used: the first week has none before it to go on from.
    """
    home = homes / preset
    if not home.exists() and (others := sorted(homes.iterdir())):
        shutil.copytree(others[0], home)
    return home


def log_file(log: str) -> Path:
    """The Parquet file `log`; of `synthetic` one in `WORK`, which is written unless it is there."""
    if log != "synthetic":
        return Path(log)
    path = WORK / "synthetic.parquet"
    write_world(path, DEFAULT, *SYNTHETIC_WEEKS)
    return path


def last_closed_week(path: Path) -> str:
    """The newest week of the log whose Sunday has rows, or that later rows follow."""
    found = duckdb.execute("SELECT max(ts) FROM read_parquet($path)", {"path": str(path)}).fetchone()
    assert found
    return last_ended_week(datetime.fromtimestamp(found[0], UTC) + timedelta(days=1))


def publish(costs: Costs) -> None:
    """Writes the table to docs/quality.md, and the plot."""
    text = table(costs)
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), SECTION, text), encoding="utf-8")
    PLOT.write_text(chart(costs), encoding="utf-8")
    print(text)


def main() -> None:
    """Measures the given logs, and publishes all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="*", metavar="LOG", help="a Parquet file, or `synthetic`")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="limit of SASRec's training for a week (default: %(default)s)"
    )
    given = parser.parse_args()
    costs: Costs = read_costs()
    for log in given.logs:
        path = log_file(log)
        costs = merged(costs, path.stem, measure(path, given.methods, given.minutes))
        write_costs(costs)
    publish(costs)


if __name__ == "__main__":
    main()
