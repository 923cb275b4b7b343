"""Chooses the reason of a pair that the ranker ranked: the true one whose ablation lowers the pair's score most.

Where no ablation lowers it, nothing that can be counted explains it: `learned`.

An ablation replaces the features of a kind by those of a pair of which the kind is not true. The pair is scored again
by the same networks and LambdaRank; the user's other candidates stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.candidates.retrieval import CandidateGenerator, Candidates
from tgn_assets.ml.config import BlendConfig
from tgn_assets.ml.data.interactions import UserPast
from tgn_assets.ml.linalg.per_user import divided_by_std, group_std
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import Boosters, lambdarank_scores
from tgn_assets.ml.recommend.reason_facts import EventFacts, pair_facts
from tgn_assets.ml.recommend.reasons import (
    ATTRIBUTES,
    KINDS,
    LEARNED,
    NEW,
    NEXT_STEP,
    POPULAR,
    REPEAT,
    TOGETHER,
)

Ablation = Callable[[FloatArray, IntArray], None]
"""Ablates, in place, the features [m, F] of one kind, of pairs with event positions [m]."""


@dataclass(frozen=True)
class Scorer:
    """What scores candidates: the networks and LambdaRank, blended, and the temporal embeddings [E, dim] of events in
    float32."""

    model: Ensemble
    boosters: Boosters
    blend: BlendConfig
    events: Tensor


@dataclass(frozen=True)
class ReasonChooser:
    """Chooses the reasons of the ranker's own lists: what is shared by all shards of users."""

    facts: EventFacts
    ablations: Mapping[int, Ablation]

    def choose(
        self,
        scorer: Scorer,
        candidates: Candidates,
        pairs: IntArray,
        *,
        past: UserPast,
        users: Tensor,
        network: FloatArray,
    ) -> IntArray:
        """[m, WIDTH] the reasons of `pairs` [m] of `candidates`, whose users have the rows `past` and the temporal
        embeddings `users` [n, dim]; `network` [p] are the networks' scores of all candidates.

        A *trial* is a pair and a kind that is true of it: the pair is scored without that kind. Trials are in the order
        of kinds.
        """
        row, event = candidates.row[pairs], candidates.event[pairs]
        facts = pair_facts(self.facts, past, row, event)
        can_be_ablated = np.isin(np.arange(len(KINDS)), list(self.ablations))
        kind, pair = np.nonzero(facts.true & can_be_ablated[:, None])
        features = candidates.features[pairs[pair]]
        for ablated, ablation in self.ablations.items():
            trials = slice(*np.searchsorted(kind, [ablated, ablated + 1]))
            ablation(features[trials], event[pair[trials]])
        vectors = scorer.events[torch.as_tensor(event[pair])]
        learned, mean = np.flatnonzero(kind == LEARNED), _mean_vectors(candidates, scorer.events, len(users))
        vectors[torch.as_tensor(learned)] = mean[torch.as_tensor(row[pair[learned]])]
        ablated_network = _network_scores(scorer.model, users[torch.as_tensor(row[pair])], vectors, features)
        boosted = lambdarank_scores(scorer.boosters, np.concatenate([candidates.features[pairs], features]))
        boosted, ablated_boosted = boosted[: len(pairs)], boosted[len(pairs) :]
        std = group_std(candidates.row, network)[row]
        drop = divided_by_std(network[pairs[pair]] - ablated_network, std[pair])
        drop += scorer.blend.tree_weight * (boosted[pair] - ablated_boosted)
        drops = np.full(facts.true.shape, -np.inf)  # [kinds, m]
        drops[kind, pair] = drop
        return facts.of(np.where(drops.max(0, initial=-np.inf) > 0, drops.argmax(0), LEARNED))


def reason_chooser(generator: CandidateGenerator, facts: EventFacts, names: tuple[str, ...]) -> ReasonChooser:
    """The chooser for candidates of `generator`, whose features are `names` (`candidate_feature_names`)."""
    tables, registry = generator.pair_features.events, generator.pair_features.registry
    column_of = {name: column for column, name in enumerate(names)}
    event_column_of = {name: column for column, name in enumerate(registry.event)}
    popularity = [name for name in registry.event if name.startswith("popularity") or name == "event_silence"]
    least = tables.by_popularity[-1:]  # none where no event is known

    def without_popularity(features: FloatArray, event: IntArray) -> None:
        """As the least popular of all events."""
        for name in popularity:
            features[:, column_of[name]] = generator.pair_features.event_features[least, event_column_of[name]]
        features[:, column_of["popularity_affinity"]] += tables.log_popularity[least] - tables.log_popularity[event]

    def without_novelty(features: FloatArray, event: IntArray) -> None:
        """As the oldest of all events."""
        oldest = tables.log_age.max(initial=0)
        features[:, column_of["event_age"]] = oldest
        features[:, column_of["novelty_affinity"]] += oldest - tables.log_age[event]

    def absent(*removed: str, value: float = 0.0) -> Ablation:
        """No such interactions; of a z-score, the mean of the user's candidates."""
        columns = [column_of[name] for name in removed]

        def ablation(features: FloatArray, _: IntArray) -> None:
            features[:, columns] = value

        return ablation

    ablations = {
        REPEAT: absent(*registry.repeat),
        NEXT_STEP: absent("link_next_week"),
        TOGETHER: absent(*registry.co_occurrence, "link_co_occurrence"),
        POPULAR: without_popularity,
        NEW: without_novelty,
        ATTRIBUTES: absent(*(name for name in names if name.startswith("event.")), value=np.nan),
        LEARNED: absent("encoder_logit"),
    }
    return ReasonChooser(facts, ablations)


def _network_scores(model: Ensemble, users: Tensor, events: Tensor, features: FloatArray) -> FloatArray:
    """[m] the networks' scores of m pairs, given by their temporal embeddings [m, dim] each and features [m, F]."""
    row = torch.arange(len(users), device=model.device)
    with torch.no_grad():
        vectors = (vectors.to(model.device).float() for vectors in (users, events))
        scores = model(*vectors, row, row, torch.as_tensor(features, device=model.device))
    return np.asarray(scores.cpu().numpy(), float)


def _mean_vectors(candidates: Candidates, events: Tensor, users: int) -> Tensor:
    """[n, dim] the mean of the temporal embeddings of each user's candidates: scores are linear in them."""
    start = np.searchsorted(candidates.row, np.arange(users + 1))
    size = np.maximum(np.diff(start), 1)
    shape = (users, len(events))
    weight = (1 / size)[candidates.row].astype(np.float32)
    mean = sparse.csr_array((weight, candidates.event, start), shape=shape) @ events.numpy()
    return torch.as_tensor(mean)
