"""Where the time of a refresh goes: asset by asset, and within each asset part by part.

    python -m benchmarks.profiling.profile [--interactions 1e6] [--publish]

Profiles a warm refresh of online_retail, or of a log that `benchmarks.profiling.scale` prepared, and prints Markdown.
`benchmarks.profiling.stack_sampler` samples the stacks of its threads a hundred times a second, which slows it down a
little. The seconds of a part are summed over threads: two threads that run it for a second count two.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.common import Log, Step, Usage, machine, refresh, work_folder
from benchmarks.logs.cases import retail
from benchmarks.profiling.scale import LAST, drop_newest_training_set, prepared
from benchmarks.table import publish

SECTION, OF_A_LARGE_LOG = "profile", "profile of a large log"
BETWEEN = "outside the steps"
LEAST_SHARE, LEAST_SECONDS = 0.05, 0.05
"""A part below this share of its asset's time, or below these seconds, counts as other."""

PARTS = {
    "imports": ["importlib._bootstrap:_find_and_load"],
    "LightGBM training": ["tgn_assets.ml.ranker.lambdarank:fit_lambdarank"],
    "ranker epochs": [
        "tgn_assets.ml.ranker.listwise:_fit_epoch",
        "tgn_assets.ml.ranker.listwise:_accumulate_gradients",
    ],
    "encoder epochs": ["tgn_assets.ml.encoder.trainer:EncoderTrainer.fit"],
    "encoder embeddings": ["tgn_assets.ml.encoder.trainer:EncoderTrainer.embeddings"],
    "linear link model": ["tgn_assets.ml.encoder.linear_link_model:link_vectors"],
    "window graph": [
        "tgn_assets.ml.graph.temporal_graph:WindowGraph",
        "tgn_assets.ml.encoder.trainer:EncoderTrainer.__init__",
    ],
    "reasons": ["tgn_assets.ml.recommend.top_k:_reasons", "tgn_assets.ml.recommend.reason_lists:"],
    "LightGBM inference": [
        "tgn_assets.ml.ranker.lambdarank:lambdarank_scores",
        "tgn_assets.ml.ranker.lambdarank:load_boosters",
    ],
    "network inference": [
        "tgn_assets.ml.ranker.ensemble:Ensemble.forward",
        "tgn_assets.ml.ranker.listwise:network_scores",
        "tgn_assets.ml.ranker.ensemble:Ensemble.get_temporal_embeddings",
    ],
    "candidate retrieval": ["tgn_assets.ml.candidates.retrieval:CandidateGenerator._retrieve"],
    "candidate features": ["tgn_assets.ml.candidates.retrieval:CandidateGenerator.candidates"],
    "pair feature tables": [
        "tgn_assets.ml.candidates.pair_features:PairFeatures",
        "tgn_assets.ml.candidates.retrieval:CandidateGenerator.__init__",
    ],
    "item similarity": ["tgn_assets.ml.linalg.sparse:item_similarity"],
    "baselines": ["tgn_assets.ml.evaluation.baselines:", "tgn_assets.ml.recommend.new_user_list:"],
    "metrics": ["tgn_assets.ml.evaluation.metrics:"],
    "calibration": ["tgn_assets.ml.ranker.calibration:"],
    "charts": [
        "tgn_assets.reporting.asset_plots:",
        "tgn_assets.reporting.svg:",
        "tgn_assets.reporting.weekly_page.charts:",
    ],
    "artifacts": ["tgn_assets.ml.artifact_io:", "tgn_assets.state.io_managers:", "tgn_assets.state.artifact_store:"],
    "interaction history": ["tgn_assets.state.warehouse:Warehouse.history", "tgn_assets.ml.data.interactions:"],
    "source": ["tgn_assets.ml.sources.reader:", "tgn_assets.ml.sources.extent:", "tgn_assets.ml.data.staging:"],
    "warehouse": ["tgn_assets.state.warehouse:", "tgn_assets.ml.data.ingest:", "tgn_assets.ml.graph.snapshots:"],
    "Dagster's event log": ["dagster._core.instance:", "dagster._core.storage"],
}
"""Functions (or modules) of each part, by the beginning of their names. A stack counts for the first part that names
any of its functions."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=lambda text: int(float(text)), metavar="N")
    parser.add_argument("--publish", action="store_true", help="write RESULTS.md and docs/performance.md")
    given = parser.parse_args()
    if given.interactions:
        home, log, _ = prepared(given.interactions, fresh=False)
        name, (usage, parts) = f"{given.interactions:,} interactions", profiled(log, home, LAST)
    else:
        case = retail()
        with case.home() as home:
            name, (usage, parts) = case.name, profiled(case.log, home, case.week)
    text = "\n".join(table(name, usage, parts))
    print(text)
    if given.publish:
        publish(OF_A_LARGE_LOG if given.interactions else SECTION, text)


def profiled(log: Log, home: Path, week: str) -> tuple[Usage, Mapping[str, Mapping[str, float]]]:
    """The cost of a refresh, and the seconds of each part by asset."""
    drop_newest_training_set(home, week)
    with work_folder() as folder:
        out = folder / "samples.json"
        usage = refresh(log, home, week, through=("benchmarks.profiling.stack_sampler", str(out)))
        found = json.loads(out.read_text())
    return usage, by_asset(usage.steps, found["stacks"], found["samples"])


def by_asset(
    steps: Mapping[str, Step], stacks: Sequence[Sequence[str]], samples: Sequence[tuple[float, float, Sequence[int]]]
) -> dict[str, dict[str, float]]:
    """Seconds of each part in each of `steps`, and in `BETWEEN`.

    A sample is a moment, the seconds since the sample before, and the numbers of the `stacks` found. It stands for half
    the time to either side, which is long where a library holds the interpreter's lock.
    """
    parts = [part_of(stack) for stack in stacks]
    found: dict[str, dict[str, float]] = {name: defaultdict(float) for name in (*steps, BETWEEN)}
    until_next = [seconds for _, seconds, _ in samples[1:]] + [0.0]
    for (moment, since_last, numbers), to_next in zip(samples, until_next, strict=True):
        at = next((name for name, s in steps.items() if s.start <= moment < s.start + s.seconds), BETWEEN)
        for number in numbers:
            found[at][parts[number]] += (since_last + to_next) / 2
    return found


def part_of(stack: Sequence[str]) -> str:
    """The part that a stack of `module:function` counts for; "other" if none."""
    for part, beginnings in PARTS.items():
        if any(function.startswith(tuple(beginnings)) for function in stack):
            return part
    return "other"


def table(name: str, usage: Usage, found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Markdown: a row for each asset, the slowest first."""
    yield f"{machine()}\n\n{name}, warm, {usage.seconds:.1f} s under the profiler:\n"
    yield "| asset | seconds | parts, summed over threads |\n|---|---|---|"
    seconds = {step: of.seconds for step, of in usage.steps.items()}
    seconds[BETWEEN] = usage.seconds - sum(seconds.values())
    for asset in sorted(seconds, key=seconds.__getitem__, reverse=True):
        busy = sum(found[asset].values())
        least = max(LEAST_SHARE * busy, LEAST_SECONDS)
        slowest = sorted(found[asset], key=found[asset].__getitem__, reverse=True)
        named = {part: found[asset][part] for part in slowest if part != "other" and found[asset][part] >= least}
        parts = [f"{part} {spent:.1f}" for part, spent in named.items()]
        yield f"| {asset} | {seconds[asset]:.1f} | {', '.join([*parts, f'other {busy - sum(named.values()):.1f}'])} |"


if __name__ == "__main__":
    main()
