"""Where the time of a refresh goes: asset by asset, and within each asset part by part.

    python -m benchmarks.profile [--interactions 1e6] [--publish]

One warm refresh of online_retail, or of a log that `benchmarks.scale` prepared. `benchmarks.stacks` looks at its
threads a hundred times a second, which slows it down a little; a part's seconds are those of all threads that were at
it, so that two at work for a second count two. Prints Markdown.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cases import retail
from benchmarks.common import WORK, Log, Step, Usage, machine, refresh
from benchmarks.scale import LAST, forget_newest_lesson, prepared
from benchmarks.table import publish

SECTION = "profile"
BETWEEN = "before, between and after"
LEAST_SHARE, LEAST_SECONDS = 0.05, 0.05
"""Of its asset's time, that a part needs to be named."""

PARTS = {
    "imports": ["importlib._bootstrap:_find_and_load"],
    "trees grown": ["tgn_assets.ml.ranker.lambdarank:fit_lambdarank"],
    "passes of the network": ["tgn_assets.ml.ranker.listwise:_pass", "tgn_assets.ml.ranker.listwise:_learn"],
    "passes of the encoder": ["tgn_assets.ml.encoder.trainer:EncoderTrainer.fit"],
    "embeddings of the encoder": ["tgn_assets.ml.encoder.trainer:EncoderTrainer.embeddings"],
    "linear part": ["tgn_assets.ml.encoder.linear_link_model:link_vectors"],
    "graph of the window": [
        "tgn_assets.ml.graph.temporal_graph:WindowGraph",
        "tgn_assets.ml.encoder.trainer:EncoderTrainer.__init__",
    ],
    "trees asked": [
        "tgn_assets.ml.ranker.lambdarank:lambdarank_scores",
        "tgn_assets.ml.ranker.lambdarank:load_booster",
    ],
    "network asked": [
        "tgn_assets.ml.ranker.ensemble:Ensemble.forward",
        "tgn_assets.ml.ranker.listwise:network_scores",
        "tgn_assets.ml.ranker.ensemble:Ensemble.get_temporal_embeddings",
    ],
    "candidates found": ["tgn_assets.ml.candidates.retrieval:CandidateGenerator.retrieve"],
    "features of candidates": ["tgn_assets.ml.candidates.retrieval:CandidateGenerator.candidates"],
    "tables of what is known": [
        "tgn_assets.ml.candidates.pair_features:PairFeatures",
        "tgn_assets.ml.candidates.retrieval:CandidateGenerator.__init__",
    ],
    "what is near what": ["tgn_assets.ml.linalg.sparse:item_similarity"],
    "simple rules": ["tgn_assets.ml.evaluation.baselines:", "tgn_assets.ml.recommend.cold_start:"],
    "metrics": ["tgn_assets.ml.evaluation.metrics:"],
    "activity and calibration": ["tgn_assets.ml.ranker.calibration:"],
    "charts": [
        "tgn_assets.reporting.asset_plots:",
        "tgn_assets.reporting.svg:",
        "tgn_assets.reporting.weekly_page.charts:",
    ],
    "artifacts": ["tgn_assets.ml.artifact_io:", "tgn_assets.state.io_managers:", "tgn_assets.state.artifact_store:"],
    "history of interactions": ["tgn_assets.state.warehouse:Warehouse.history", "tgn_assets.ml.data.interactions:"],
    "source": ["tgn_assets.ml.sources.reader:", "tgn_assets.ml.sources.extent:"],
    "warehouse": ["tgn_assets.state.warehouse:", "tgn_assets.ml.data.ingest:", "tgn_assets.ml.graph.snapshots:"],
    "Dagster's history": ["dagster._core.instance:", "dagster._core.storage"],
}
"""Functions (or modules) by the beginning of their name: a moment is of the first part that any of its functions is
of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=lambda text: int(float(text)), metavar="N")
    parser.add_argument("--publish", action="store_true", help="write RESULTS.md and docs/performance.md")
    given = parser.parse_args()
    if given.interactions:
        home, log, _ = prepared(given.interactions, fresh=False)
        name, (usage, parts) = f"{given.interactions:,} interactions", looked_at(log, home, LAST)
    else:
        case = retail()
        with case.home() as home:
            name, (usage, parts) = case.name, looked_at(case.log, home, case.week)
    text = "\n".join(table(name, usage, parts))
    print(text)
    if given.publish:
        publish(SECTION, text)


def looked_at(log: Log, home: Path, week: str) -> tuple[Usage, Mapping[str, Counter[str]]]:
    """A refresh, and by asset the seconds of each part."""
    forget_newest_lesson(home, week)
    with TemporaryDirectory(dir=WORK) as folder:
        out = Path(folder) / "looks.json"
        usage = refresh(log, home, week, through=("benchmarks.stacks", str(out)))
        seen = json.loads(out.read_text())
    return usage, by_asset(usage.steps, seen["stacks"], seen["looks"])


def by_asset(
    steps: Mapping[str, Step], stacks: Sequence[Sequence[str]], looks: Sequence[tuple[float, float, Sequence[int]]]
) -> dict[str, Counter[str]]:
    """Seconds of each part in each of `steps`, and in `BETWEEN`. A look is its moment, the seconds since the one before
    it, and the `stacks` there were, by number. It stands for half the time to either side, which is long where a
    library lets no other thread run, not even the one that looks."""
    parts = [part_of(stack) for stack in stacks]
    found = {name: Counter[str]() for name in (*steps, BETWEEN)}
    until_next = [seconds for _, seconds, _ in looks[1:]] + [0.0]
    for (moment, since_last, seen), to_next in zip(looks, until_next, strict=True):
        at = next((name for name, s in steps.items() if s.start <= moment < s.start + s.seconds), BETWEEN)
        for number in seen:
            found[at][parts[number]] += (since_last + to_next) / 2
    return found


def part_of(stack: Sequence[str]) -> str:
    """The part of a stack of `module:function`; "other" if it is of none."""
    for part, beginnings in PARTS.items():
        if any(function.startswith(tuple(beginnings)) for function in stack):
            return part
    return "other"


def table(name: str, usage: Usage, found: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Markdown: the assets that take longest first."""
    yield f"{machine()}\n\n{name}, warm, {usage.seconds:.1f} s under the profiler:\n"
    yield "| asset | seconds | of which, the threads added up |\n|---|---|---|"
    seconds = {step: of.seconds for step, of in usage.steps.items()}
    seconds[BETWEEN] = usage.seconds - sum(seconds.values())
    for asset in sorted(seconds, key=seconds.__getitem__, reverse=True):
        busy = found[asset].total()
        least = max(LEAST_SHARE * busy, LEAST_SECONDS)
        named = {part: of for part, of in found[asset].most_common() if part != "other" and of >= least}
        parts = [f"{part} {of:.1f}" for part, of in named.items()]
        yield f"| {asset} | {seconds[asset]:.1f} | {', '.join([*parts, f'other {busy - sum(named.values()):.1f}'])} |"


if __name__ == "__main__":
    main()
