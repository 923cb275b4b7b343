"""Which of several true reasons is named: the one whose removal lowers the score most."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.candidates.retrieval import CandidateGenerator, Candidates, candidate_feature_names, user_shard
from tgn_assets.ml.config import BlendConfig, CandidateConfig
from tgn_assets.ml.recommend.reason_choice import ReasonChooser, Scorer, reason_chooser
from tgn_assets.ml.recommend.reason_facts import event_facts
from tgn_assets.ml.recommend.reasons import KIND_NAMES
from tgn_assets_tests.ml.recommend.reason_logs import categories, log_in, reason_log

CON = reason_log()
HISTORY = log_in(CON)
ATTRIBUTES = categories(CON)
NAMES = candidate_feature_names(CandidateConfig(), ATTRIBUTES.columns)
EVENTS = dict(CON.execute("SELECT event_id, event_idx FROM events").fetchall())
USERS = dict(CON.execute("SELECT user_id, user_idx FROM users").fetchall())
GENERATOR = CandidateGenerator(HISTORY, None, attributes=ATTRIBUTES)


class Linear:
    """Scores pairs by weights of features, and by `similarity` times the dot product of the embeddings."""

    device = torch.device("cpu")

    def __init__(self, similarity: float = 0.0, **weights: float) -> None:
        self.similarity, self.weights = similarity, weights

    def __call__(self, users: Any, events: Any, row: Any, column: Any, features: Any) -> Any:
        score = self.similarity * (users[row] * events[column]).sum(-1)
        for name, weight in self.weights.items():
            score = score + weight * torch.nan_to_num(features[:, NAMES.index(name.replace("__", ":"))])
        return score


def chooser() -> ReasonChooser:
    facts = event_facts(HISTORY, CandidateConfig(), allowed=GENERATOR.allowed, attributes=ATTRIBUTES)
    return reason_chooser(GENERATOR, facts, NAMES)


def kind_of(user: str, event: str, model: Linear) -> str:
    """The kind that is named for the pair, which may be no candidate of the channels."""
    users = np.array([int(np.searchsorted(HISTORY.user_idx, USERS[user]))])
    shard = user_shard(HISTORY, None, users)
    found = GENERATOR.candidates(shard, HISTORY.num_events)
    assert len(found.event) > 3
    vectors, own = torch.zeros(HISTORY.num_events, 2), torch.tensor([[1.0, 0.0]])
    vectors[EVENTS["q"]] = torch.tensor([3.0, 0.0])
    (pair,) = np.flatnonzero(found.event == EVENTS[event])
    row, place = torch.as_tensor(found.row), torch.as_tensor(found.event)
    network = np.asarray(model(own, vectors, row, place, torch.as_tensor(found.features)), float)
    scorer = cast(Scorer, SimpleNamespace(model=model, boosters=(), blend=BlendConfig(), events=vectors))
    made = _choose(scorer, found, np.array([pair]), shard.past, own, network)
    return KIND_NAMES[made[0, 0]]


def _choose(scorer: Scorer, found: Candidates, pairs: IntArray, past: Any, own: torch.Tensor, network: Any) -> IntArray:
    return chooser().choose(scorer, found, pairs, past=past, users=own, network=network)


@pytest.mark.parametrize(
    ("event", "model", "kind"),
    [
        ("tea", Linear(repeat_weeks=1.0, popularity_4w=0.1), "repeat"),
        ("tea", Linear(repeat_weeks=1.0, popularity_4w=-5.0), "repeat"),
        ("hit", Linear(popularity_1w=1.0, event_age=0.1), "popular"),
        ("hit", Linear(popularity_rank=-1.0), "popular"),
        ("hit", Linear(popularity_affinity=1.0), "popular"),
        ("new0", Linear(event_age=-1.0), "new"),
        ("new0", Linear(novelty_affinity=-1.0, popularity_16w=0.01), "new"),
        ("q", Linear(co_occurrence_share=1.0), "together"),
        ("q", Linear(similarity=1.0, co_occurrence_share=1.0), "learned"),
        ("y", Linear(link_next_week=1.0, event_silence=0.01), "next_step"),
        ("hit", Linear(**{"event.sort__share": 1.0}), "attributes"),
    ],
)
def test_reason_is_what_the_score_rests_on(
    event: str, model: Linear, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "link_next_week" in model.weights:  # there are no link vectors: as if they spoke for y alone
        made = GENERATOR.candidates

        def linked(*given: Any) -> Candidates:
            found = made(*given)
            found.features[:, NAMES.index("link_next_week")] = found.event == EVENTS["y"]
            return found

        monkeypatch.setattr(GENERATOR, "candidates", linked)
    assert kind_of("ann", event, model) == kind


def test_untrue_reason_is_not_named_whatever_the_score_rests_on() -> None:
    assert kind_of("ann", "hit", Linear(repeat_weeks=5.0, event_age=-5.0)) in (
        "popular",
        "attributes",
        "learned",
        "new",
    )
    assert kind_of("ann", "b", Linear(popularity_16w=5.0)) == "learned"  # two users of hit are more popular now


def test_lambdarank_counts_with_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Linear(popularity_1w=0.1)
    assert kind_of("ann", "tea", model) != "repeat"
    name = "tgn_assets.ml.recommend.reason_choice.lambdarank_scores"
    monkeypatch.setattr(name, lambda _, features: 50.0 * features[:, NAMES.index("repeat_weeks")])
    assert kind_of("ann", "tea", model) == "repeat"
