"""What a GPU saves, stage by stage, and that it gives the same lists.

    python benchmarks/gpu.py [--users N] [--events N] [--weeks N]

Makes a synthetic log, runs every stage of its last week on the CPU and on the GPU of the same machine, one after the
other, and prints a Markdown table of seconds and their ratio, then how far the results agree. Each device trains its
own models from the same seed; the lists are compared for one and the same ranker. The GPU is warmed up before.
"""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import duckdb
import numpy as np
import pandas as pd
import torch

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.interactions import HISTORY_SQL, InteractionHistory
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.graph.snapshots import Snapshot, read_snapshot
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint
from tgn_assets.ml.ranker.train import temporal_embeddings, train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend.top_k import Recommendations, diagnose, recommend
from tgn_assets.ml.schema import OURS, TABLES
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift

T = TypeVar("T")
START, WARM_UP_WEEKS = "2024-01-01", 14
DEVICES = ("cpu", "cuda")


class Watch:
    """Seconds by (stage, device), printed as they come."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    def time(self, stage: str, device: str, work: Callable[[], T]) -> T:
        settle = torch.cuda.synchronize if device != "cpu" else lambda: None
        settle()
        start = time.perf_counter()
        result = work()
        settle()
        self.seconds.setdefault(stage, {})[device] = time.perf_counter() - start
        return result


@dataclass(frozen=True)
class Made:
    """What a walk through the stages leaves: the ranker, the embeddings it learnt from, and its lists."""

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
    warm_up = log(World(users=200, events=100), WARM_UP_WEEKS)
    walk(Watch(), *warm_up, "cuda", GNNConfig(epochs=2), RankerConfig(epochs=2))
    history, snapshots = log(World(users=given.users, events=given.events), given.weeks)
    print(
        f"{history.num_users:,} users, {history.num_events:,} events and {len(history.user):,} weekly pairs in "
        f"{given.weeks} weeks; {torch.cuda.get_device_name()}, {torch.get_num_threads()} threads of "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}.\n",
        flush=True,
    )
    watch = Watch()
    made = {name: walk(watch, history, snapshots, name, GNNConfig(), RankerConfig()) for name in DEVICES}
    print("| stage | CPU, s | GPU, s | CPU / GPU |\n|---|---|---|---|")
    for stage, seconds in watch.seconds.items():
        cpu, gpu = (seconds[name] for name in DEVICES)
        print(f"| {stage} | {cpu:.1f} | {gpu:.1f} | {cpu / gpu:.1f} |")
    lists = [_lists(history, made["cpu"].ranker, made["cpu"].embedding_history, name) for name in DEVICES]
    print(f"\nOne ranker on both devices: {_same(*lists):.2%} of the listed events are the same.")
    for name, walked in made.items():
        validation = walked.ranker.validation[f"ndcg_{OURS}"]
        print(f"Trained on {name}: NDCG@5 on the newest closed week {validation:.4f}.")


def walk(
    watch: Watch,
    history: InteractionHistory,
    snapshots: dict[str, Snapshot],
    device: str,
    gnn: GNNConfig,
    config: RankerConfig,
) -> Made:
    """Every stage of the last week of `history` on `device`, timed."""
    week = max(snapshots)
    checkpoint = watch.time(
        "trained_gnn, cold start", device, lambda: train_gnn(snapshots, week, gnn, device=device, history=history)
    )
    watch.time("trained_gnn, warm", device, lambda: _warm(snapshots, week, gnn, checkpoint, device))
    sampled = gnn.model_copy(update={"batching": "sampled"})
    watch.time("trained_gnn, warm, sampled", device, lambda: _warm(snapshots, week, sampled, checkpoint, device))
    embedding_history = checkpoint.embeddings
    ranker = watch.time(
        "trained_ranker", device, lambda: train_ranker(history, embedding_history, week, config, device)
    )
    embeddings = watch.time(
        "temporal_embeddings", device, lambda: temporal_embeddings(ranker, history, embedding_history, device)
    )
    lists = watch.time(
        "weekly_top5_predictions",
        device,
        lambda: recommend(history, ranker, embedding_history, embeddings, device=device),
    )
    watch.time(
        "eval_metrics, the lists before the gate",
        device,
        lambda: diagnose(history, ranker, embedding_history, embeddings, device=device).lists(
            np.arange(history.num_users)
        ),
    )
    return Made(ranker, embedding_history, lists)


def _warm(
    snapshots: dict[str, Snapshot], week: str, config: GNNConfig, checkpoint: GNNCheckpoint, device: str
) -> GNNCheckpoint:
    return train_gnn(snapshots, week, config, warm=checkpoint, device=device)


def _lists(
    history: InteractionHistory, ranker: RankerCheckpoint, embedding_history: EmbeddingHistory, device: str
) -> Recommendations:
    return recommend(
        history,
        ranker,
        embedding_history,
        temporal_embeddings(ranker, history, embedding_history, device),
        device=device,
    )


def _same(one: Recommendations, other: Recommendations) -> float:
    return float((one.events[:, :, None] == other.events[:, None, :]).any(2).mean())


def log(world: World, weeks: int) -> tuple[InteractionHistory, dict[str, Snapshot]]:
    """The history of `weeks` weeks of `world`, and all their snapshots."""
    keys = [shift(START, week) for week in range(weeks)]
    rows = pd.concat([generate_week(key, world).assign(week=key) for key in keys])  # noqa: F841 (DuckDB reads it)
    con = duckdb.connect()
    for table, columns in TABLES.items():
        con.execute(f"CREATE TABLE {table} ({columns})")
    con.execute("INSERT INTO raw_interactions SELECT user_id, event_id, ts::TIMESTAMP, week::DATE FROM rows")
    for kind in ("user", "event"):
        con.execute(
            f"INSERT INTO {kind}s SELECT {kind}_id, row_number() OVER (ORDER BY first, {kind}_id) - 1, first "
            f"FROM (SELECT {kind}_id, min(week) AS first FROM raw_interactions GROUP BY ALL)"
        )
    history = InteractionHistory.from_frame(con.execute(HISTORY_SQL, {"week": keys[-1]}).df(), keys[-1])
    return history, {key: read_snapshot(con, key) for key in keys}


if __name__ == "__main__":
    main()
