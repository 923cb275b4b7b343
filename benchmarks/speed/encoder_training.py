"""Encoder training beside PyG's link prediction tutorial: supervised links per second and validation loss.

    python -m benchmarks.speed.encoder_training [--seconds N]

Both train on 8 weeks of the log. The newest of them is held out: its links give the validation loss, the encoder's
softmax over all known events. The peer gets its best epoch and its best temperature, since its logits were not trained
for a softmax. Ours gets neither: its loss is the one of early stopping.
"""

import argparse
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import run_peer
from benchmarks.logs.cases import Case, retail
from benchmarks.table import Row, show
from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.encoder.softmax_loss import plan_links, softmax_loss
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.graph.snapshots import Snapshot
from tgn_assets.ml.graph.temporal_graph import GraphView, WindowGraph
from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets.state.artifact_store import ArtifactStore

WINDOW = 8
TEMPERATURES = torch.logspace(-1.5, 1.5, 61)
SECONDS = 90.0
RUNS = 5
"""Cold starts, of which the median time counts: one takes a second or two, and the first includes torch's start-up."""


def rows(seconds: float = SECONDS) -> Iterator[Row]:
    """The row of the table; the peer trains for `seconds`."""
    case = retail()
    config = GNNConfig(window=WINDOW, replay=1)
    week = shift(case.week, -1)  # the newest in the home
    snapshots = _snapshots(case, week)
    graph = WindowGraph(snapshots, config.half_life)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        checkpoint = train_gnn(snapshots, week, config)
        times.append(time.perf_counter() - start)
    spent = median(times)
    trained = _supervised_links(graph, checkpoint.curve)
    loss = min(row["validation_loss"] for row in checkpoint.curve if row["validation_loss"] is not None)

    newest = week_number(week)
    view = graph.view(newest - 1, WINDOW - 1)
    answer = run_peer(
        "peers",
        "link_prediction",
        links=graph.edge_index[:, (graph.edge_week > newest - WINDOW) & (graph.edge_week < newest)].numpy(),
        users=len(graph.node_idx[USER]),
        events=len(graph.node_idx[EVENT]),
        dim=config.dim,
        learning_rate=config.learning_rate,
        limit=seconds,
    )
    epochs = zip(torch.from_numpy(answer["users"]), torch.from_numpy(answer["events"]), strict=True)
    theirs = min(_tempered_loss(users, events, graph, view) for users, events in epochs)
    our_rate, their_rate = trained / spent, float(answer["trained"] / answer["seconds"])
    verdict = "a lower" if loss <= theirs else "a higher"
    yield Row(
        what=f"encoder training, supervised links per second, {WINDOW} weeks of {case.name}",
        against="LinkNeighborLoader on torch-sparse, batch 256, fan-out [15, 10], 1 negative",
        must="50x at an equal or lower validation loss",
        aim="200x",
        measured=f"{our_rate / their_rate:.0f}x at {verdict} loss",
        figures=f"{our_rate:,.0f} and {their_rate:,.0f} links/s; loss {loss:.3f} after {spent:.1f} s ({trained:,} "
        f"links), {theirs:.3f} after {float(answer['seconds']):.0f} s ({int(answer['trained']):,} links)",
    )


def _snapshots(case: Case, week: str) -> dict[str, Snapshot]:
    with case.home() as home:
        weeks = [shift(week, -back) for back in range(WINDOW)]
        return ArtifactStore(home / "artifacts").load_weeks("weekly_snapshots", weeks)


def _supervised_links(graph: WindowGraph, curve: list[dict[str, Any]]) -> int:
    """The supervised links of a training: those before the newest week in each epoch, and all in the last one."""
    newest = max(graph.snapshots)
    links = {t: graph.links(t, graph.view(t - 1, WINDOW))[0].shape[1] for t in graph.snapshots}
    past = sum(count for t, count in links.items() if t < newest)
    return sum(past if row["validation_loss"] is not None else past + links[newest] for row in curve)


def _tempered_loss(users: Tensor, events: Tensor, graph: WindowGraph, view: GraphView) -> float:
    """The loss of the newest week's links at the best temperature."""
    links, weight = graph.links(view.week + 1, view)
    plan = plan_links(view.known[EVENT], links, weight)
    return min(float(softmax_loss(users * scale, events, plan)) for scale in TEMPERATURES)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the peer's training (default: %(default)s)")
    show(rows(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
