"""Phase 1: the graph encoder, trained by link prediction one week after the other.

For each week t of the training window the links of t are predicted from the graph of the weeks before t alone: no
supervised link, and nothing as new as it, is in its own message graph.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.loader import LinkLoader
from torch_geometric.sampler import NegativeSampling

from tgn_assets.ml.artifact_io import finite
from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.gnn import GNNEncoder
from tgn_assets.ml.encoder.linear_link_model import LinkVectors, link_vectors
from tgn_assets.ml.encoder.softmax_loss import LinkPlan, drawn_users, plan_links, planned_loss, sampled_softmax_loss
from tgn_assets.ml.graph.loaders import fits_in_memory, link_loader
from tgn_assets.ml.graph.snapshots import Snapshot
from tgn_assets.ml.graph.temporal_graph import NUM_FEATURES, UserRows, View, WindowGraph, user_rows
from tgn_assets.ml.parallel import run_alongside
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.schema import EVENT, INTERACTS, USER
from tgn_assets.ml.weeks import week_key, week_number

WEIGHT_DECAY = 1e-5
EDGES_FOR_A_THREAD = 200_000
"""Edges of the last weeks from which on the encoder has all threads to itself: with fewer, its passes gain little
from a second one."""


def train_gnn(
    snapshots: Mapping[str, Snapshot],
    week: str,
    config: GNNConfig,
    warm: GNNCheckpoint | None = None,
    device: str = "cpu",
    progress: LogFn = no_log,
    history: InteractionHistory | None = None,
) -> GNNCheckpoint:
    """Trains the encoder as of the close of `week`, from `snapshots` of weeks up to it.

    With `warm`, last week's checkpoint, one step forward is enough. Without it (or where its shape does not fit
    `config`) the last `config.replay` weeks are walked through as if they had been run one by one. With `history` the
    embeddings of each week come with what `link_regression` makes of it as of that week's close. Raises ValueError for
    a snapshot that is newer than `week`, for a missing snapshot of `week` itself and a `history` of another week.
    """
    if week not in snapshots or max(snapshots) > week:
        raise ValueError(f"week {week} is trained on the snapshots up to it, not on {sorted(snapshots)}")
    now = week_number(week)
    if history is not None and history.week != now:
        raise ValueError(f"week {week} is trained with the history up to it, not up to {week_key(history.week)}")
    if warm is not None and (warm.config.dim, warm.config.layers) != (config.dim, config.layers):
        warm = None
    graph = WindowGraph(snapshots, config.half_life)
    cutoffs = [now] if warm else [t for t in sorted(graph.snapshots) if t > now - config.replay]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + now)
        sizes = {kind: len(index) for kind, index in graph.node_idx.items()}
        encoder = GNNEncoder(sizes, NUM_FEATURES, config.dim, config.layers)
        if warm:
            encoder.load_state_dict(_grown(encoder.state_dict(), graph.node_idx, warm))
        encoder.to(device)
        curve: list[dict[str, Any]] = []
        embeddings = {}
        epochs = [config.warm_epochs if warm or cutoff != cutoffs[0] else config.epochs for cutoff in cutoffs]
        planned = [_planned(graph, *of_origin, config.window) for of_origin in zip(cutoffs, epochs, strict=True)]
        pace = ProgressReporter(progress, "phase 1", sum(planned), "link", at_most=True)
        for number, cutoff in enumerate(cutoffs):
            place = f" ({number + 1} of {len(cutoffs)})" if len(cutoffs) > 1 else ""
            pace.what = f"phase 1, week {week_key(cutoff)}{place}"
            trainer = _Trainer(encoder, graph, cutoff, config, device, pace)
            past = None if history is None else history.as_of(cutoff)
            small = len(trainer.view.edge_week) < EDGES_FOR_A_THREAD
            with run_alongside(partial(_links, past, config.seed), side_by_side=small) as linking:
                for row in trainer.fit(epochs[number]):
                    curve.append({"origin": week_key(cutoff), **row})
                    validation = row["validation_loss"]
                    pace.tell(
                        f"epoch {row['epoch']}, loss {row['loss']:.4f}"
                        + (f", validation {validation:.4f}" if validation is not None else "")
                    )
                known = trainer.embeddings()
            links = linking.result()
            embeddings[week_key(cutoff)] = known if links is None else known.with_links(links)
            pace.left(sum(planned[number + 1 :]))
        state = {name: value.cpu() for name, value in encoder.state_dict().items()}
    return GNNCheckpoint(week, config, warm.week if warm else None, state, graph.node_idx, curve, embeddings)


class _Trainer:
    """Fits the encoder to the window of weeks that ends with `cutoff`."""

    def __init__(
        self,
        encoder: GNNEncoder,
        graph: WindowGraph,
        cutoff: int,
        config: GNNConfig,
        device: str,
        pace: ProgressReporter,
    ) -> None:
        self.encoder, self.graph, self.cutoff, self.config, self.device = encoder, graph, cutoff, config, device
        self.pace = pace
        parameters, rate = encoder.parameters(), config.learning_rate
        self.optimizer = torch.optim.Adam(parameters, lr=rate, weight_decay=WEIGHT_DECAY, fused=True)
        # The oldest week has no graph before it; a week whose links are all new to the graph teaches nothing.
        weeks = [t for t in graph.snapshots if cutoff - config.window < t <= cutoff]
        views = {t: graph.view(t - 1, config.window) for t in weeks}
        self.links = {t: tuple(x.to(device) for x in graph.links(t, view)) for t, view in views.items()}
        self.views = {t: view.to(device) for t, view in views.items()}
        self.weeks = [t for t in weeks if self.links[t][0].shape[1]]
        self.view = graph.view(cutoff, config.window)
        self.loaders: dict[int, LinkLoader] = {}
        self.plans: dict[int, tuple[UserRows, LinkPlan]] = {}

    def fit(self, epochs: int) -> Iterator[dict[str, Any]]:
        """Early stopping on the newest closed week, then one pass that includes it; yields losses per epoch."""
        if not self.weeks:
            return
        *past, newest = self.weeks
        best, best_state, waited = float("inf"), deepcopy(self.encoder.state_dict()), 0
        for epoch in range(epochs if past else 0):
            loss = self._pass(past)
            validation = self._validation_loss(newest)
            yield {"epoch": epoch, "loss": loss, "validation_loss": validation}
            if validation < best:
                best, best_state, waited = validation, deepcopy(self.encoder.state_dict()), 0
            else:
                waited += 1
                if waited >= self.config.patience:
                    break
        self.encoder.load_state_dict(best_state)
        # The newest week was held out to decide when to stop; that being decided, it is learnt from like the rest.
        yield {"epoch": "final", "loss": self._pass([*past, newest]), "validation_loss": None}

    def embeddings(self) -> NodeEmbeddings:
        """What the encoder makes of the graph at the close of the origin, for the nodes known by then."""
        view = self.view.to(self.device)
        vectors = self.encoder.inference(view)
        kept = {kind: view.known[kind].cpu() for kind in (USER, EVENT)}
        users, events = (vectors[kind].cpu()[kept[kind]] for kind in (USER, EVENT))
        index = {kind: self.graph.node_idx[kind][kept[kind]] for kind in (USER, EVENT)}
        return NodeEmbeddings(week_key(self.cutoff), index[USER], users, index[EVENT], events)

    def _pass(self, weeks: list[int]) -> float:
        self.encoder.train()
        total, steps = 0.0, 0
        for at in torch.randperm(len(weeks)).tolist():
            for loss, links in self._losses(weeks[at]):
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total, steps = total + loss.item(), steps + 1
                self.pace.add(links)
        return finite(total / steps, "trained_gnn")

    @torch.no_grad()
    def _validation_loss(self, week: int) -> float:
        self.encoder.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)  # what the loss draws, if anything, is the same in every validation
            losses = [loss.item() for loss, _ in self._losses(week)]
        return sum(losses) / len(losses)

    def _losses(self, week: int) -> Iterator[tuple[Tensor, int]]:
        """The loss of the links of `week`, and of how many: once for the whole graph, or batch by batch."""
        view, id_dropout = self.views[week], self.config.id_dropout if self.encoder.training else 0.0
        if self._whole_graph(view):
            rows, plan = self._plan(week)
            vectors = self.encoder.full_pass(view, id_dropout, rows)
            yield planned_loss(vectors[USER], vectors[EVENT], plan), self.links[week][0].shape[1]
            return
        if not self.encoder.training:
            loader = self._loader(week)  # a fresh one: every validation draws the same neighbours and negatives
        elif week in self.loaders:
            loader = self.loaders[week]
        else:
            loader = self.loaders[week] = self._loader(week)
        _, weight = self.links[week]
        for drawn in loader:
            batch = drawn.to(self.device)
            vectors = self.encoder.sampled_pass(batch, view, id_dropout)
            of_batch = weight[batch[INTERACTS].input_id]
            yield sampled_softmax_loss(vectors, batch, of_batch, int(view.known[EVENT].sum())), len(of_batch)

    def _plan(self, week: int) -> tuple[UserRows, LinkPlan]:
        """What a pass over the whole graph must know of the links of `week`: kept, unless some of them are drawn."""
        if week in self.plans:
            return self.plans[week]
        known, (links, weight) = self.views[week].known[EVENT], self.links[week]
        drawn, weight = drawn_users(links, weight, int(known.sum()))
        users, row = drawn[0].unique(return_inverse=True)
        plan = plan_links(known, torch.stack([row, drawn[1]]), weight)
        rows = user_rows(self.views[week].adjacency, users)
        if drawn is links and not plan.sampled:
            self.plans[week] = rows, plan
        return rows, plan

    def _loader(self, week: int) -> LinkLoader:
        view = self.views[week].to("cpu")  # where neighbours are drawn, whatever the device
        return link_loader(
            view.data,
            self.links[week][0].cpu(),
            fan_out=list(self.config.fan_out),
            batch_size=self.config.batch_size,
            neg_sampling=NegativeSampling("triplet", amount=1, dst_weight=view.known[EVENT].float()),
            exclude_links=False,  # every edge of the view is older than the links; the same pair may well be among them
            shuffle=self.encoder.training,
            seed=self.config.seed,
        )

    def _whole_graph(self, view: View) -> bool:
        if self.config.batching == "auto":
            nodes = sum(len(known) for known in view.known.values())
            edges, weeks = 2 * len(view.edge_week), len(self.views)
            return fits_in_memory(nodes, edges, self.config.dim, self.config.layers, weeks)
        return self.config.batching == "full"


def _planned(graph: WindowGraph, cutoff: int, epochs: int, window: int) -> int:
    """The most links that are passed over to fit the window that ends with `cutoff`: passes end early."""
    weeks = sorted(week for week in graph.snapshots if cutoff - window < week <= cutoff)
    links = [graph.snapshots[week].data[INTERACTS].edge_index.shape[1] for week in weeks]
    return epochs * sum(links[:-1]) + sum(links)


def _links(past: InteractionHistory | None, seed: int, _: int) -> LinkVectors | None:
    return None if past is None else link_vectors(past, seed)


def _grown(fresh: dict[str, Tensor], node_idx: dict[str, Tensor], warm: GNNCheckpoint) -> dict[str, Tensor]:
    """`warm`'s weights in the shape of this week's encoder: ids keep their row's vector, new ones their fresh one."""
    state = dict(warm.state)
    for kind, index in node_idx.items():
        name = f"ids.{kind}"
        table, old = fresh[name].clone(), warm.node_idx[kind]
        kept = torch.isin(index, old)
        table[kept] = warm.state[name][torch.searchsorted(old, index[kept])]
        state[name] = table
    return state
