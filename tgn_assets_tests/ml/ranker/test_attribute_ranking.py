"""A world in which only an attribute tells who interacts with a new event."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.artifact_io import ArtifactError
from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.config import CandidateConfig, RankerConfig
from tgn_assets.ml.data.attributes import ALWAYS, NO_ATTRIBUTES, AttributeColumn, AttributeTable, AttributeTables
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.ranker.baseline_fallback import ndcg_of
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, load_model, temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache
from tgn_assets.ml.recommend.top_k import diagnose
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.worlds import START, Row, history

WEEKS, USERS, GENRES, NEW = 7, 60, 4, 12
LAST = shift(START, WEEKS - 2)
CONFIG = RankerConfig(networks=1, dim=8, heads=1, origins=4, sequence=1, epochs=5, candidates=30)
GENRE = AttributeColumn("event", "genre", "category")


def premieres() -> list[Row]:
    """Each week twelve new events, three of each genre, are found by a scout of any taste; a week later those who like
    their genre interact with them, and then nobody does."""
    rows: list[Row] = []
    for week in range(WEEKS):
        rng = np.random.default_rng(week)
        for nth in range(NEW):
            rows.append((f"scout{rng.integers(USERS):02}", f"e{week}-{nth:02}", week, 1))
        for user in range(USERS if week else 0):
            liked = [nth for nth in range(NEW) if nth % GENRES == user % GENRES]
            for nth in rng.choice(liked, 2, replace=False):
                rows.append((f"u{user:02}", f"e{week - 1}-{nth:02}", week, 1))
    return rows


PAST = history(premieres(), WEEKS - 2)
NO_IDX, NO_VECTORS = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
EMBEDDING_HISTORY = {
    week: NodeEmbeddings(week, NO_IDX, NO_VECTORS, NO_IDX, NO_VECTORS)
    for week in (shift(START, at) for at in range(WEEKS - 1))
}
"""Weeks without a graph: the pair features stand alone."""
NAMES = sorted({event for _, event, _, _ in premieres()})[: PAST.num_events]  # in the order in which they came
VALUES = np.array([[int(name[3:]) % GENRES] for name in NAMES], float)
TABLE = AttributeTable((GENRE,), PAST.event_idx, np.full(PAST.num_events, ALWAYS), VALUES)
ATTRIBUTES = AttributeTables(event=TABLE)


def train(attributes: AttributeTables, cache: TrainingSetCache | None = None) -> RankerCheckpoint:
    return train_ranker(PAST, EMBEDDING_HISTORY, LAST, config=CONFIG, cache=cache, attributes=attributes)


@pytest.fixture(scope="module")
def ranker() -> RankerCheckpoint:
    return train(ATTRIBUTES)


def lists_of(ranker: RankerCheckpoint, attributes: AttributeTables, users: IntArray) -> IntArray:
    embeddings = temporal_embeddings(ranker, PAST, EMBEDDING_HISTORY)
    return diagnose(PAST, ranker, EMBEDDING_HISTORY, embeddings, attributes=attributes).lists(users)


def ndcg(ranker: RankerCheckpoint, attributes: AttributeTables) -> float:
    """On the week after."""
    truth = history(premieres(), WEEKS - 1)
    user, event = truth.in_week(truth.week)
    fan = (user < PAST.num_users) & (event < PAST.num_events)  # positions of what is new come last
    fans, row = np.unique(user[fan], return_inverse=True)
    positive = set(zip(row.tolist(), event[fan].tolist(), strict=True))
    lists = lists_of(ranker, attributes, fans).tolist()
    hits = np.array([[(at, event) in positive for event in events] for at, events in enumerate(lists)])
    return float(ndcg_of(hits, np.bincount(row)).mean())


@pytest.mark.parametrize("part", ["network", "lambdarank"])
def test_attributes_tell_whom_a_new_event_is_for(part: str, ranker: RankerCheckpoint) -> None:
    def alone(whole: RankerCheckpoint) -> RankerCheckpoint:
        if part == "network":
            return replace(whole, booster="")
        names = ("members.0.gate", "members.0.feature_mlp.4.weight")
        return replace(whole, state=whole.state | {name: torch.zeros_like(whole.state[name]) for name in names})

    assert ndcg(alone(train(NO_ATTRIBUTES)), NO_ATTRIBUTES) < 0.4  # among twelve, by chance
    assert ndcg(alone(ranker), ATTRIBUTES) > 0.8  # the three of the genre first


def test_a_checkpoint_names_its_columns_and_survives_its_file(ranker: RankerCheckpoint, tmp_path: Path) -> None:
    ranker.save(tmp_path / LAST)
    loaded = RankerCheckpoint.load(tmp_path / LAST)
    assert loaded.attributes == (GENRE,)
    before, after = (lists_of(one, ATTRIBUTES, np.arange(PAST.num_users)) for one in (ranker, loaded))
    np.testing.assert_array_equal(before, after)
    train(ATTRIBUTES).save(tmp_path / "again")
    for name in ("tensors.safetensors", "meta.json"):
        assert (tmp_path / LAST / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_later_column_is_ignored_and_a_missing_one_is_named(ranker: RankerCheckpoint) -> None:
    users, price = np.arange(PAST.num_users), AttributeColumn("event", "price", "number")
    wider = replace(TABLE, columns=(price, GENRE), values=np.column_stack([np.arange(len(TABLE.idx)), VALUES]))
    before, after = (lists_of(ranker, tables, users) for tables in (ATTRIBUTES, AttributeTables(event=wider)))
    np.testing.assert_array_equal(before, after)
    with pytest.raises(ArtifactError, match=r"genre of TGN_EVENT_FEATURES, a category.*tgn models unpin"):
        lists_of(ranker, AttributeTables(event=wider.only([price])), users)


def test_cached_training_sets_are_made_again_for_other_attributes(ranker: RankerCheckpoint, tmp_path: Path) -> None:
    cache = TrainingSetCache(tmp_path)
    train(AttributeTables(event=replace(TABLE, values=VALUES[::-1])), cache)
    for _ in range(2):
        again = train(ATTRIBUTES, cache)
        assert again.booster == ranker.booster
        assert all(torch.equal(weights, ranker.state[name]) for name, weights in again.state.items())


def test_without_attributes_there_are_the_pair_features_alone() -> None:
    ranker = train(NO_ATTRIBUTES)
    assert ranker.meta()["attributes"] == () and ranker.features == candidate_feature_names(CandidateConfig())
    assert ranker.state["members.0.feature_mlp.0.weight"].shape[1] == len(ranker.features)


def test_unknown_and_extreme_attributes_leave_scores_finite() -> None:
    ranker = train(AttributeTables(event=replace(TABLE, values=np.full_like(VALUES, np.nan))))
    assert all(torch.isfinite(weights).all() for weights in ranker.state.values())
    model = load_model(ranker)
    pair = torch.zeros(3, len(candidate_feature_names(CandidateConfig())) + 2)
    pair[:, -1] = torch.tensor([float("nan"), 1e6, 2e6])
    with torch.no_grad():
        each = torch.arange(3)
        scores = model(torch.zeros(3, 8), torch.zeros(3, 8), each, each, pair)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores[1], scores[2])
    assert abs(scores[0] - scores[1]) > 1e-3
