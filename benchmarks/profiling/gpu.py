"""What a GPU saves, stage by stage, and whether it makes the same lists.

    python -m benchmarks.profiling.gpu [--users N] [--events N] [--weeks N]

Makes a synthetic log, runs every stage of its last week on the CPU and on the GPU of the same machine, one after the
other, and prints a Markdown table of seconds and their ratio, then how far the results agree. Each device trains its
own models from the same seed; the lists are compared for one and the same ranker. The GPU is warmed up before.
"""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.graph.snapshots import Snapshot, read_snapshot
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend.top_k import Recommendations, diagnose, recommend
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift
from tgn_assets.state.warehouse import Warehouse

T = TypeVar("T")
START, WARM_UP_WEEKS = "2024-01-01", 14
DEVICES = ("cpu", "cuda")


class Stopwatch:
    """Seconds by stage and device."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    def time(self, stage: str, device: str, work: Callable[[], T]) -> T:
        """The result of `work`, timed until the device has finished."""
        synchronize = torch.cuda.synchronize if device != "cpu" else lambda: None
        synchronize()
        start = time.perf_counter()
        result = work()
        synchronize()
        self.seconds.setdefault(stage, {})[device] = time.perf_counter() - start
        return result


@dataclass(frozen=True)
class WeekResult:
    """What the stages of a week make: the ranker, the embeddings it was trained on, and its lists."""

    ranker: RankerCheckpoint
    embedding_history: EmbeddingHistory
    lists: Recommendations


def main() -> None:
    """Prints the tables; ends with an error where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000, help="users there in any week (default: %(default)s)")
    parser.add_argument("--events", type=int, default=5_000, help="events there in any week (default: %(default)s)")
    parser.add_argument("--weeks", type=int, default=20, help="weeks of history (default: %(default)s)")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    warm_up = synthetic_log(World(users=200, events=100), WARM_UP_WEEKS)
    run_week(*warm_up, watch=Stopwatch(), device="cuda", gnn=GNNConfig(epochs=2), config=RankerConfig(epochs=2))
    history, snapshots = synthetic_log(World(users=given.users, events=given.events), given.weeks)
    print(
        f"{history.num_users:,} users, {history.num_events:,} events and {len(history.user):,} weekly pairs in "
        f"{given.weeks} weeks; {torch.cuda.get_device_name()}, {torch.get_num_threads()} threads of "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}.\n",
        flush=True,
    )
    watch, gnn, config = Stopwatch(), GNNConfig(), RankerConfig()
    made = {name: run_week(history, snapshots, watch=watch, device=name, gnn=gnn, config=config) for name in DEVICES}
    print("| stage | CPU, s | GPU, s | CPU / GPU |\n|---|---|---|---|")
    for stage, seconds in watch.seconds.items():
        cpu, gpu = (seconds[name] for name in DEVICES)
        print(f"| {stage} | {cpu:.1f} | {gpu:.1f} | {cpu / gpu:.1f} |")
    lists = [_lists(history, made["cpu"], device) for device in DEVICES]
    print(f"\nOne ranker on both devices: {_overlap(*lists):.2%} of the listed events are the same.")
    for name, result in made.items():
        validation = result.ranker.validation[f"ndcg_{OURS}"]
        print(f"Trained on {name}: NDCG@5 on the newest closed week {validation:.4f}.")


def run_week(
    history: InteractionHistory,
    snapshots: dict[str, Snapshot],
    *,
    watch: Stopwatch,
    device: str,
    gnn: GNNConfig,
    config: RankerConfig,
) -> WeekResult:
    """Every stage of the last week of `history` on `device`, timed."""
    week = max(snapshots)
    sampled = gnn.model_copy(update={"batching": "sampled"})

    def timed(stage: str, work: Callable[[], T]) -> T:
        return watch.time(stage, device, work)

    checkpoint = timed(
        "trained_gnn, cold start", lambda: train_gnn(snapshots, week, gnn, device=device, history=history)
    )
    for stage, warm in {"trained_gnn, warm": gnn, "trained_gnn, warm, sampled": sampled}.items():
        timed(stage, partial(train_gnn, snapshots, week, warm, warm=checkpoint, device=device))
    vectors = checkpoint.embeddings
    ranker = timed("trained_ranker", lambda: train_ranker(history, vectors, week, config=config, device=device))
    embeddings = timed("temporal_embeddings", lambda: temporal_embeddings(ranker, history, vectors, device=device))
    lists = timed("weekly_top5_predictions", lambda: recommend(history, ranker, vectors, embeddings, device=device))
    everyone = np.arange(history.num_users)
    timed(
        "eval_metrics, the lists before the fallback",
        lambda: diagnose(history, ranker, vectors, embeddings, device=device).lists(everyone),
    )
    return WeekResult(ranker, vectors, lists)


def synthetic_log(world: World, weeks: int) -> tuple[InteractionHistory, dict[str, Snapshot]]:
    """The history of `weeks` weeks of `world`, and all their snapshots."""
    keys = [shift(START, week) for week in range(weeks)]
    rows = pd.concat([generate_week(key, world).assign(week=key) for key in keys])  # noqa: F841 (DuckDB reads it)
    with TemporaryDirectory() as folder:
        warehouse = Warehouse(Path(folder) / "warehouse.duckdb")
        with warehouse.writer() as con:
            con.execute("INSERT INTO raw_interactions SELECT user_id, event_id, ts::TIMESTAMP, week::DATE FROM rows")
            for node in ("user", "event"):
                con.execute(
                    f"INSERT INTO {node}s SELECT {node}_id, row_number() OVER (ORDER BY first, {node}_id) - 1, first "
                    f"FROM (SELECT {node}_id, min(week) AS first FROM raw_interactions GROUP BY ALL)"
                )
        with warehouse.reader() as con:
            snapshots = {key: read_snapshot(con, key) for key in keys}
        return warehouse.history(keys[-1]), snapshots


def _lists(history: InteractionHistory, made: WeekResult, device: str) -> Recommendations:
    embeddings = temporal_embeddings(made.ranker, history, made.embedding_history, device=device)
    return recommend(history, made.ranker, made.embedding_history, embeddings, device=device)


def _overlap(one: Recommendations, other: Recommendations) -> float:
    """The share of the events listed in `one` that `other` lists for the same user."""
    return float((one.events[:, :, None] == other.events[:, None, :]).any(2).mean())


if __name__ == "__main__":
    main()
