"""An ensemble of networks.

In a small log the order of the candidates depends on a network's seed as much as on what it learned. The mean of a few
networks that were trained independently ranks better than one of them (Lakshminarayanan et al., "Simple and scalable
predictive uncertainty estimation using deep ensembles", NeurIPS 2017), and in a small log it costs seconds.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tgn_assets.ml.ranker.network import PairScorer, UserInteractionPredictor


class Ensemble(PairScorer):
    """Scores pairs as the mean of its `members`, all of one shape; embeddings are theirs side by side."""

    members: Sequence[UserInteractionPredictor]

    def __init__(self, members: Iterable[UserInteractionPredictor]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)  # type: ignore[assignment]  # which knows its items as modules only

    def get_temporal_embeddings(self, sequence: Tensor, known: Tensor) -> Tensor:
        """[n, members * dim] from the users' weekly embeddings, as `UserInteractionPredictor` takes them."""
        return torch.cat([member.get_temporal_embeddings(sequence, known) for member in self.members], dim=-1)

    def event_embeddings(self, events: Tensor) -> Tensor:
        """[m, members * dim] from event embeddings [m, embedding]."""
        return torch.cat([member.event_embeddings(events) for member in self.members], dim=-1)

    def forward(self, users: Tensor, events: Tensor, row: Tensor, column: Tensor, features: Tensor) -> Tensor:
        """[p] scores of p pairs, distinct and in order: rows `row` and `column` [p] of the temporal embeddings of
        `users` [n, members * dim] and `events` [m, members * dim], and features [p, F]."""
        parts = (vectors.chunk(len(self.members), dim=-1) for vectors in (users, events))
        scores = [member(*own, row, column, features) for member, *own in zip(self.members, *parts, strict=True)]
        return torch.stack(scores).mean(0)
