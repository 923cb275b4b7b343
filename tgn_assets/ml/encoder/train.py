"""Trains the encoder to predict the links of each week from the graph of the weeks before it.

So the graph that predicts a link holds neither that link nor any edge as new as it.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.gnn import GNNEncoder
from tgn_assets.ml.encoder.linear_link_model import LinkVectors, link_vectors
from tgn_assets.ml.encoder.trainer import EncoderTrainer
from tgn_assets.ml.graph.snapshots import Snapshot
from tgn_assets.ml.graph.temporal_graph import WindowGraph
from tgn_assets.ml.parallel import run_alongside
from tgn_assets.ml.processor import processor, seeded
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.schema import INTERACTS
from tgn_assets.ml.weeks import shift, week_key, week_number, weeks_between

EDGES_FOR_ALL_THREADS = 200_000
"""With as many edges in the window the encoder trains with all threads, and the linear link model is fitted afterwards.
With fewer it gains little from a second thread, and both run side by side."""


def train_gnn(
    snapshots: Mapping[str, Snapshot],
    week: str,
    config: GNNConfig,
    *,
    warm: GNNCheckpoint | None = None,
    history: InteractionHistory | None = None,
    device: str = "cpu",
    progress: LogFn = no_log,
    scratch: Path | None = None,
) -> GNNCheckpoint:
    """Trains the encoder at the close of `week` on `snapshots`, of which that of `week` must be the newest.

    With `warm`, last week's checkpoint, training continues from its weights and has one cut-off, `week`. Without it, or
    if `can_warm_start_encoder` is False, training starts from scratch and visits the last `config.replay` weeks as
    cut-offs, one after the other. With `history`, which ends with `week`, the embeddings of each cut-off include the
    link vectors of `linear_link_model` at that week's close. With a folder `scratch`, those of earlier cut-offs
    are kept there, not in memory, as long as the checkpoint is read. ValueError if the weeks do not fit.
    """
    now = week_number(week)
    if week not in snapshots or max(snapshots) > week:
        raise ValueError(f"week {week} is trained on the snapshots up to it, not on {sorted(snapshots)}")
    if history is not None and history.week != now:
        raise ValueError(f"week {week} is trained with the history up to it, not up to {week_key(history.week)}")
    if warm is not None and not can_warm_start_encoder(warm.config, config):
        warm = None
    graph = WindowGraph(snapshots, config.half_life, config.features)
    cutoffs = _cutoffs(graph, now, config, warm is not None)
    reporter = ProgressReporter(progress, "encoder", sum(cutoff.links for cutoff in cutoffs), "link", at_most=True)
    curve, embeddings = list[dict[str, Any]](), dict[str, NodeEmbeddings]()
    with seeded(config.seed, now):
        encoder = _initial_encoder(graph, config, warm).to(device)
        for number, cutoff in enumerate(cutoffs, 1):
            key, of_all = week_key(cutoff.week), f" ({number} of {len(cutoffs)})" if len(cutoffs) > 1 else ""
            reporter.what = f"encoder, week {key}{of_all}"
            trainer = EncoderTrainer(encoder, graph, cutoff.week, config, reporter=reporter)
            small = len(trainer.view.edge_week) < EDGES_FOR_ALL_THREADS
            fit_linear = partial(_link_vectors, None if history is None else history.as_of(cutoff.week), config)
            with run_alongside(fit_linear, side_by_side=small) as linear:
                curve += [{"cutoff": key, **row} for row in _logged(trainer.fit(cutoff.epochs), reporter)]
                known = trainer.embeddings()
            links = linear.result()
            embeddings[key] = known if links is None else known.with_links(links)
            if scratch is not None and key != week:
                embeddings[key].save(scratch / key)
                embeddings[key] = NodeEmbeddings.load(scratch / key)
            reporter.set_remaining(sum(later.links for later in cutoffs[number:]))
    state = {name: value.cpu() for name, value in encoder.state_dict().items()}
    warm_from, chain = (warm.week, warm.chain) if warm else (None, week)
    parts = config, trainer.batching, warm_from, state, graph.node_idx, curve, embeddings
    return GNNCheckpoint(week, *parts, processor(device), chain)


def can_warm_start_encoder(earlier: GNNConfig, config: GNNConfig) -> bool:
    """Whether an encoder trained with `earlier` has the shape and the features of `config`."""
    return (earlier.dim, earlier.layers, earlier.features) == (config.dim, config.layers, config.features)


def snapshot_weeks(week: str, config: GNNConfig, warm: GNNCheckpoint | None) -> list[str]:
    """The weeks whose snapshots `train_gnn` reads at the close of `week` given `warm`, if there are any; oldest first.

    A cut-off trains on the links of `window` weeks, each of which is predicted from the `window` weeks before it.
    """
    is_warm = warm is not None and can_warm_start_encoder(warm.config, config)
    weeks = 2 * config.window + (0 if is_warm else config.replay - 1)
    return weeks_between(shift(week, 1 - weeks), week)


class _Cutoff(NamedTuple):
    """A week at whose close the encoder trains: at most `epochs` epochs, and so at most `links` links."""

    week: int
    epochs: int
    links: int


def _cutoffs(graph: WindowGraph, now: int, config: GNNConfig, warm: bool) -> list[_Cutoff]:
    weeks = [now] if warm else [t for t in sorted(graph.snapshots) if t > now - config.replay]
    size = {week: snapshot.data[INTERACTS].num_edges for week, snapshot in graph.snapshots.items()}
    cutoffs = []
    for week in weeks:
        epochs = config.warm_epochs if warm or week != weeks[0] else config.epochs
        earlier = sum(links for at, links in size.items() if week - config.window < at < week)
        cutoffs.append(_Cutoff(week, epochs, (epochs + 1) * earlier + size[week]))
    return cutoffs


def _logged(rows: Iterator[dict[str, Any]], reporter: ProgressReporter) -> Iterator[dict[str, Any]]:
    """Yields the `rows` of a curve, and logs each of them."""
    for row in rows:
        validation = "" if row["validation_loss"] is None else f", validation {row['validation_loss']:.4f}"
        reporter.log(f"epoch {row['epoch']}, loss {row['loss']:.4f}{validation}")
        yield row


def _link_vectors(past: InteractionHistory | None, config: GNNConfig, _: int) -> LinkVectors | None:
    return None if past is None else link_vectors(past, config.linear, seed=config.seed)


def _initial_encoder(graph: WindowGraph, config: GNNConfig, warm: GNNCheckpoint | None) -> GNNEncoder:
    """An encoder for the nodes of `graph` with the weights of `warm`, if given; a new node has a fresh id."""
    encoder = GNNEncoder({kind: len(index) for kind, index in graph.node_idx.items()}, graph.num_features, config)
    if warm is not None:
        fresh = encoder.state_dict()
        # Up to version 0.3 `popularity` had a bias.
        state = {name: value for name, value in warm.state.items() if name in fresh and not name.startswith("ids.")}
        for kind, index in graph.node_idx.items():
            name, old = f"ids.{kind}", warm.node_idx[kind]
            if name in fresh:
                state[name] = fresh[name].clone()
            if name in fresh and name in warm.state:
                kept = torch.isin(index, old)
                state[name][kept] = warm.state[name][torch.searchsorted(old, index[kept])]
        encoder.load_state_dict(state)
    return encoder
