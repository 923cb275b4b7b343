"""Fits the encoder to the window of weeks that ends with one cut-off, and embeds the nodes known by then."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch_geometric.loader import LinkLoader

from tgn_assets.ml.artifact_io import require_finite
from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.encoder.batching import plan_batching
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.gnn import GNNEncoder
from tgn_assets.ml.encoder.row_adam import RowAdam
from tgn_assets.ml.encoder.softmax_loss import LinkPlan, drawn_users, plan_links, sampled_softmax_loss, softmax_loss
from tgn_assets.ml.graph.loaders import link_loader
from tgn_assets.ml.graph.temporal_graph import UserRows, WindowGraph, user_rows
from tgn_assets.ml.parallel import trim_malloc
from tgn_assets.ml.progress import ProgressReporter
from tgn_assets.ml.schema import EVENT, INTERACTS, USER
from tgn_assets.ml.weeks import week_key


class EncoderTrainer:
    """Fits `encoder` to the weeks of `graph` in the window that ends with the week number `cutoff`.

    It predicts the links of each week from the view of the weeks before it: from whole graphs or in sampled batches, as
    `batching` says. `reporter` counts the links learned from.
    """

    def __init__(
        self, encoder: GNNEncoder, graph: WindowGraph, cutoff: int, config: GNNConfig, *, reporter: ProgressReporter
    ) -> None:
        self.encoder, self.graph, self.cutoff, self.config, self.reporter = encoder, graph, cutoff, config, reporter
        self.device = device = encoder.popularity.weight.device
        self.optimizers = _optimizers(encoder, config)
        # The oldest week has no graph before it, and a week whose links are all new to the graph has none to learn.
        weeks = [t for t in graph.snapshots if cutoff - config.window < t <= cutoff]
        views = {t: graph.view(t - 1, config.window) for t in weeks}
        self.links = {t: tuple(x.to(device) for x in graph.links(t, view)) for t, view in views.items()}
        self.views = {t: view.to(device) for t, view in views.items()}
        self.weeks = [t for t in weeks if self.links[t][0].shape[1]]
        self.view = graph.view(cutoff, config.window)
        self.batching = plan_batching(config, training=list(views.values()), inference=self.view)
        self.loaders: dict[int, LinkLoader] = {}
        self.plans: dict[int, tuple[UserRows, LinkPlan]] = {}

    def fit(self, epochs: int) -> Iterator[dict[str, Any]]:
        """Early stopping on the newest closed week, then one epoch that includes it; yields losses per epoch."""
        if not self.weeks:
            return
        *past, newest = self.weeks
        best, best_state, epochs_without_gain = float("inf"), deepcopy(self.encoder.state_dict()), 0
        for epoch in range(epochs if past else 0):
            loss = self._train_epoch(past)
            validation = self._validation_loss(newest)
            yield {"epoch": epoch, "loss": loss, "validation_loss": validation}
            if validation < best:
                best, best_state, epochs_without_gain = validation, deepcopy(self.encoder.state_dict()), 0
            elif (epochs_without_gain := epochs_without_gain + 1) >= self.config.patience:
                break
        self.encoder.load_state_dict(best_state)
        # The newest week was held out to decide when to stop; that being decided, it is learned from like the others.
        yield {"epoch": "final", "loss": self._train_epoch([*past, newest]), "validation_loss": None}

    def embeddings(self) -> NodeEmbeddings:
        """The embeddings at the close of the cut-off, of the nodes known by then. The trainer fits no more after that:
        what it read of each week, a large part of the memory in use, is given back first."""
        for of_week in (self.views, self.plans, self.loaders):
            of_week.clear()
        trim_malloc()
        view = self.view.to(self.device) if self.batching.inference == "full" else self.view
        vectors = self.encoder.inference(view, batching=self.batching.inference, sampler=self.config.sampler)
        known = {kind: view.known[kind].cpu() for kind in (USER, EVENT)}
        users, events = ((self.graph.node_idx[kind][at], vectors[kind].cpu()[at]) for kind, at in known.items())
        return NodeEmbeddings(week_key(self.cutoff), *users, *events)

    def _train_epoch(self, weeks: list[int]) -> float:
        """The mean loss of one epoch over `weeks`, in random order."""
        self.encoder.train()
        total, steps = 0.0, 0
        for at in torch.randperm(len(weeks)).tolist():
            for loss, links in self._losses(weeks[at]):
                self.encoder.zero_grad()
                loss.backward()
                for optimizer in self.optimizers:
                    optimizer.step()
                total, steps = total + loss.item(), steps + 1
                self.reporter.add(links)
        return require_finite(total / steps, "trained_gnn")

    @torch.no_grad()
    def _validation_loss(self, week: int) -> float:
        self.encoder.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)  # what the loss draws, if anything, is the same in every validation
            losses = [loss.item() for loss, _ in self._losses(week)]
        return sum(losses) / len(losses)

    def _losses(self, week: int) -> Iterator[tuple[Tensor, int]]:
        """(loss, number of links) of `week`: once from the whole graph, or batch by batch."""
        view, id_dropout = self.views[week], self.config.id_dropout if self.encoder.training else 0.0
        if self.batching.training == "full":
            rows, plan = self._plan(week)
            vectors = self.encoder.full_pass(view, id_dropout, rows)
            yield softmax_loss(vectors[USER], vectors[EVENT], plan), self.links[week][0].shape[1]
            return
        _, weight = self.links[week]
        for drawn in self._loader(week):
            batch = drawn.to(self.device)
            vectors = self.encoder.sampled_pass(batch, view, id_dropout)
            of_batch = weight[batch[INTERACTS].input_id]
            yield sampled_softmax_loss(vectors, batch, of_batch, int(view.known[EVENT].sum())), len(of_batch)

    def _plan(self, week: int) -> tuple[UserRows, LinkPlan]:
        """How the links of `week` are computed from the whole graph: kept, unless some of them are drawn."""
        if week in self.plans:
            return self.plans[week]
        known, (links, weight) = self.views[week].known[EVENT], self.links[week]
        drawn, weight = drawn_users(links, weight, int(known.sum()), self.config.loss)
        users, row = drawn[0].unique(return_inverse=True)
        plan = plan_links(known, torch.stack([row, drawn[1]]), weight, self.config.loss)
        rows = user_rows(self.views[week].adjacency, users)
        if drawn is links and not plan.sampled:
            self.plans[week] = rows, plan
        trim_malloc()  # what building the matrices needed lies in pieces that the vectors do not fit in
        return rows, plan

    def _loader(self, week: int) -> LinkLoader:
        """Batches of the links of `week`: drawn anew in each epoch, and the same in each validation."""
        if self.encoder.training and week in self.loaders:
            return self.loaders[week]
        view = self.views[week].to("cpu")  # where neighbours are drawn, whatever the device
        links, training = self.links[week][0].cpu(), self.encoder.training
        loader = link_loader(view.data, links, self.config, may_be_negative=view.known[EVENT], shuffle=training)
        if training:
            self.loaders[week] = loader
        return loader


def _optimizers(encoder: GNNEncoder, config: GNNConfig) -> list[torch.optim.Optimizer]:
    """Adam for the weights, all of which have a gradient in every step, and `RowAdam` for the ids."""
    weights = [parameter for name, parameter in encoder.named_parameters() if not name.startswith("ids.")]
    rate, penalty = config.learning_rate, config.weight_decay
    of_weights = torch.optim.Adam(weights, lr=rate, weight_decay=penalty, fused=True)
    return [of_weights, RowAdam(encoder.ids.values(), lr=rate, weight_decay=penalty)]
