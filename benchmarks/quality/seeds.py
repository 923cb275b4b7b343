"""How much of a log's NDCG@5 is chance: the same weeks, with models of other seeds.

    python -m benchmarks.quality.seeds LOG... [--seeds N] [--homes FOLDER]

Each LOG is a Parquet file with the columns user, item and ts, or `synthetic`. As `tgn backtest --weeks 4`, every seed
walks over the last five closed weeks in a home of its own, `FOLDER/seed_N/LOG`, from a cold start in the first; its
lists are scored in the four after that, over their active users. Writes the rows of these logs to docs/quality.md.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.common import WORK
from benchmarks.quality.measure_costs import PAGE, WEEKS, last_closed_week, log_file
from benchmarks.table import replaced
from tgn_assets.cli.console import Progress
from tgn_assets.cli.runner import QUIET, open_runner
from tgn_assets.definitions import build_definitions
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, weeks_between
from tgn_assets.settings import Settings
from tgn_assets.state.artifact_store import MODELS
from tgn_assets.state.home import Home

SECTION = "seeds"
HEAD = "| log | mean | standard deviation | NDCG@5 with each seed |", "|---|---|---|---|"
NDCG_SQL = """
    SELECT sum(value * users) / sum(users) FROM eval_metrics
    WHERE model = $model AND metric = 'ndcg' AND segment = 'all'
"""


def walk(log: Path, seeds: int, homes: Path) -> Iterator[float]:
    """NDCG@5 of the lists of each seed, from 0 on."""
    last = last_closed_week(log)
    weeks = weeks_between(shift(last, -WEEKS), last)
    ingested = _home(log, homes / "ingested" / log.stem, last)
    with Progress() as progress, open_runner(ingested, progress) as runner:
        runner.ingest_before(weeks[0])
    for seed in range(seeds):
        root = homes / f"seed_{seed}" / log.stem
        shutil.rmtree(root, ignore_errors=True)
        home = _home(log, Path(shutil.copytree(ingested.root, root)), last)
        config = {**QUIET, "ops": {model: {"config": {"seed": seed}} for model in MODELS}}
        with home.instance() as instance:
            job = build_definitions(home.settings).resolve_job_def("weekly_refresh")
            for week in weeks:
                job.execute_in_process(run_config=config, instance=instance, partition_key=week)
        with home.warehouse().reader() as con:
            (ndcg,) = con.execute(NDCG_SQL, {"model": OURS}).fetchall()[0]
        print(f"{log.stem}, seed {seed}: {ndcg:.4f}", file=sys.stderr, flush=True)
        yield ndcg


def _home(log: Path, root: Path, end_week: str) -> Home:
    settings = Settings(
        _env_file=None,
        home=root.resolve(),
        source=str(log.resolve()),
        end_week=end_week,
        user_column="user",
        event_column="item",
        timestamp_column="ts",
    )
    return Home(settings)


def row(log: str, found: Sequence[float]) -> str:
    """A row of the table: mean, standard deviation, and the NDCG@5 `found` with each seed."""
    each = ", ".join(f"{ndcg:.4f}" for ndcg in found)
    return f"| {log} | {fmean(found):.4f} | {stdev(found):.4f} ({stdev(found) / fmean(found):.1%}) | {each} |"


def with_rows(page: str, rows: Sequence[str]) -> str:
    """The table on `page` with `rows`, in place of those of the same logs."""
    known = page.split(f"<!-- {SECTION}: begin -->")[1].split(f"<!-- {SECTION}: end -->")[0]
    lines = [line for line in known.splitlines() if line.startswith("|")][len(HEAD) :]
    by_log = {line.split(" | ")[0]: line for line in (*lines, *rows)}
    return "\n".join((*HEAD, *by_log.values()))


def main() -> None:
    """Walks over the given logs, one after the other, and publishes each one's row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", metavar="LOG", help="a Parquet file, or `synthetic`")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--homes", type=Path, default=WORK / "seeds", help="default: .bench/seeds")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("one seed has no spread; give --seeds 2 or more")
    for log in given.logs:
        path = log_file(log)
        line = row(path.stem, list(walk(path, given.seeds, given.homes)))
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replaced(page, SECTION, with_rows(page, [line])), encoding="utf-8")
        print(line, flush=True)


if __name__ == "__main__":
    main()
