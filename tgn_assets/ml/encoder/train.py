"""Trains the encoder by link prediction, one week after the other.

For each week t of the training window the links of t are predicted from the graph of the weeks before t alone: no
supervised link, and nothing as new as it, is in its own message graph.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.schema import INTERACTS
from tgn_assets.ml.weeks import week_key, week_number

EDGES_FOR_ALL_THREADS = 200_000
"""Edges of the last weeks from which on the encoder has all threads to itself: with fewer, it gains little from a
second one, and the linear link model is fitted beside it."""


def train_gnn(
    snapshots: Mapping[str, Snapshot],
    week: str,
    config: GNNConfig,
    *,
    warm: GNNCheckpoint | None = None,
    history: InteractionHistory | None = None,
    device: str = "cpu",
    log: LogFn = no_log,
) -> GNNCheckpoint:
    """Trains the encoder as of the close of `week`, from `snapshots` of weeks up to it.

    With `warm`, last week's checkpoint, it is trained at one cut-off, `week`, from last week's weights. Without it (or
    where `can_warm_start_from` says no) the last `config.replay` weeks are cut-offs one after the other, as if each had
    been run then. With `history` the embeddings of each cut-off come with the link vectors of `linear_link_model` as of
    that week's close. ValueError for a snapshot newer than `week`, for a missing snapshot of `week` itself and for a
    `history` of another week.
    """
    now = _check_weeks(snapshots, week, history)
    if warm is not None and not can_warm_start_from(warm.config, config):
        warm = None
    graph = WindowGraph(snapshots, config.half_life, config.features)
    cutoffs = _cutoffs(graph, now, config, warm is not None)
    reporter = ProgressReporter(log, "encoder", sum(cutoff.links for cutoff in cutoffs), "link", at_most=True)
    curve, embeddings = list[dict[str, Any]](), dict[str, NodeEmbeddings]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + now)
        encoder = _initial_encoder(graph, config, warm).to(device)
        for number, cutoff in enumerate(cutoffs, 1):
            key, of_all = week_key(cutoff.week), f" ({number} of {len(cutoffs)})" if len(cutoffs) > 1 else ""
            reporter.what = f"encoder, week {key}{of_all}"
            trainer = EncoderTrainer(encoder, graph, cutoff.week, config, device=device, reporter=reporter)
            small = len(trainer.view.edge_week) < EDGES_FOR_ALL_THREADS
            fit_linear = partial(_link_vectors, None if history is None else history.as_of(cutoff.week), config)
            with run_alongside(fit_linear, side_by_side=small) as linear:
                curve += [{"cutoff": key, **row} for row in _logged(trainer.fit(cutoff.epochs), reporter)]
                known = trainer.embeddings()
            links = linear.result()
            embeddings[key] = known if links is None else known.with_links(links)
            reporter.left(sum(later.links for later in cutoffs[number:]))
    return GNNCheckpoint(
        week=week,
        config=config,
        batching=trainer.batching,
        warm_from=warm.week if warm else None,
        state={name: value.cpu() for name, value in encoder.state_dict().items()},
        node_idx=graph.node_idx,
        curve=curve,
        embeddings=embeddings,
    )


def can_warm_start_from(earlier: GNNConfig, config: GNNConfig) -> bool:
    """Whether an encoder trained with `earlier` has the shape, and reads the features, that `config` asks for."""
    return (earlier.dim, earlier.layers, earlier.features) == (config.dim, config.layers, config.features)


class _Cutoff(NamedTuple):
    """A week at whose close the encoder is trained, for `epochs` at most, and so on at most `links` links."""

    week: int
    epochs: int
    links: int


def _cutoffs(graph: WindowGraph, now: int, config: GNNConfig, warm: bool) -> list[_Cutoff]:
    weeks = [now] if warm else [t for t in sorted(graph.snapshots) if t > now - config.replay]
    epochs = [config.warm_epochs if warm or week != weeks[0] else config.epochs for week in weeks]
    return [_Cutoff(*of, _most_links(graph, *of, config.window)) for of in zip(weeks, epochs, strict=True)]


def _most_links(graph: WindowGraph, cutoff: int, epochs: int, window: int) -> int:
    weeks = sorted(week for week in graph.snapshots if cutoff - window < week <= cutoff)
    links = [graph.snapshots[week].data[INTERACTS].edge_index.shape[1] for week in weeks]
    return epochs * sum(links[:-1]) + sum(links)


def _check_weeks(snapshots: Mapping[str, Snapshot], week: str, history: InteractionHistory | None) -> int:
    """The number of `week`; ValueError unless it is the newest of `snapshots` and the last of `history`."""
    if week not in snapshots or max(snapshots) > week:
        raise ValueError(f"week {week} is trained on the snapshots up to it, not on {sorted(snapshots)}")
    now = week_number(week)
    if history is not None and history.week != now:
        raise ValueError(f"week {week} is trained with the history up to it, not up to {week_key(history.week)}")
    return now


def _logged(rows: Iterator[dict[str, Any]], reporter: ProgressReporter) -> Iterator[dict[str, Any]]:
    """The rows of a curve, each logged when its epoch is done."""
    for row in rows:
        validation = row["validation_loss"]
        held_out = f", validation {validation:.4f}" if validation is not None else ""
        reporter.tell(f"epoch {row['epoch']}, loss {row['loss']:.4f}{held_out}")
        yield row


def _link_vectors(past: InteractionHistory | None, config: GNNConfig, _: int) -> LinkVectors | None:
    return None if past is None else link_vectors(past, config.linear, seed=config.seed)


def _initial_encoder(graph: WindowGraph, config: GNNConfig, warm: GNNCheckpoint | None) -> GNNEncoder:
    """A fresh encoder for the nodes of `graph`, or with the weights of `warm`, whose nodes keep their id's vector."""
    sizes = {kind: len(index) for kind, index in graph.node_idx.items()}
    encoder = GNNEncoder(sizes, graph.num_features, config)
    if warm is not None:
        encoder.load_state_dict(_grown(encoder.state_dict(), graph.node_idx, warm))
    return encoder


def _grown(fresh: dict[str, Tensor], node_idx: dict[str, Tensor], warm: GNNCheckpoint) -> dict[str, Tensor]:
    """`warm`'s weights in the shape of this week's encoder: a node that is new to it keeps its fresh id."""
    state = dict(warm.state)
    for kind, index in node_idx.items():
        name = f"ids.{kind}"
        table, old = fresh[name].clone(), warm.node_idx[kind]
        kept = torch.isin(index, old)
        table[kept] = warm.state[name][torch.searchsorted(old, index[kept])]
        state[name] = table
    return state
