"""The candidates that each channel brings, and the features of the embeddings."""

import numpy as np
import torch

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.candidates.retrieval import (
    CHANNELS,
    LINKS,
    CandidateGenerator,
    Candidates,
    candidate_feature_names,
    user_shard,
)
from tgn_assets.ml.config import CandidateConfig, LinearLinkConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.linear_link_model import link_vectors
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.worlds import START, Row, habits, history

NAMES = candidate_feature_names(CandidateConfig())


def brought_by(candidates: Candidates, channel: str) -> np.ndarray:
    """[p] bool: the channel brought the pair."""
    return candidates.channels[:, CHANNELS.index(channel)]


def made(
    past: InteractionHistory,
    users: IntArray,
    embeddings: NodeEmbeddings | None = None,
    *,
    config: CandidateConfig | None = None,
    limit: int,
) -> Candidates:
    generator = CandidateGenerator(past, embeddings, config=config)
    return generator.candidates(user_shard(past, embeddings, users), limit)


def test_candidates_name_the_channels_that_brought_them() -> None:
    rows = [
        ("ann", "tea", 0, 1),
        ("ann", "tea", 2, 3),
        ("ann", "jam", 4, 1),
        ("bob", "jam", 4, 2),
        ("bob", "pie", 4, 1),
    ]
    candidates = made(history(rows, 4), np.array([0, 1]), limit=2)
    assert candidates.features.shape == (len(candidates.row), len(NAMES))
    assert candidates.event[candidates.row == 0].tolist() == [0, 1, 2]  # tea, jam and bob's pie
    assert brought_by(candidates, "repeat")[candidates.row == 0].tolist() == [True, True, False]
    assert not brought_by(candidates, "next_week").any()


def test_link_models_give_features_and_a_channel() -> None:
    past = history(habits(), 11)
    no_log = torch.zeros(past.num_users, 3), torch.zeros(past.num_events, 3)
    week, users = shift(START, 11), np.arange(past.num_users)
    plain = NodeEmbeddings(week, torch.as_tensor(past.user_idx), no_log[0], torch.as_tensor(past.event_idx), no_log[1])
    without = made(past, users, plain, limit=3)
    assert not brought_by(without, "next_week").any()
    columns = [NAMES.index(f"link_{name}") for name in LINKS]
    assert not without.features[:, columns].any()
    links = plain.with_links(link_vectors(past))
    candidates = made(past, users, links, limit=3)
    of_users, of_events = links.user_links_at(past.user_idx), links.event_links_at(past.event_idx)
    rank = LinearLinkConfig().rank
    expected = [(of_users[:, half] @ of_events[:, half].T).numpy() for half in (slice(rank), slice(rank, None))]
    for column, raw in zip(columns, expected, strict=True):
        of_pair = raw[candidates.row, candidates.event].astype(float)
        np.testing.assert_allclose(candidates.features[:, column], group_zscore(candidates.row, of_pair), atol=1e-4)
    best = np.sort(expected[0], axis=1)[:, -3:]
    for user in (0, 17):
        mine = brought_by(candidates, "next_week") & (candidates.row == user)
        np.testing.assert_allclose(np.sort(expected[0][user, candidates.event[mine]]), best[user], atol=1e-6)


def test_channels_keep_to_their_limit_without_duplicates() -> None:
    past = history(habits(), 11)
    candidates = made(past, np.arange(past.num_users), limit=3)
    for channel in ("repeat", "co_occurrence"):
        assert np.bincount(candidates.row[brought_by(candidates, channel)]).max() <= 3
    pairs = candidates.row * past.num_events + candidates.event
    assert (np.diff(pairs) > 0).all()


def test_recent_and_long_term_co_occurrence_differ() -> None:
    rows: list[Row] = [("ann", "tea", 0, 50), ("ann", "pie", 0, 50), ("ann", "jam", 8, 1), ("ann", "rye", 8, 1)]
    rows += [("bob", "tea", 8, 1), ("bob", "ale", 8, 1), ("cat", "jam", 8, 1), ("cat", "gin", 8, 1)]
    past = history(rows, 8)
    candidates = made(past, np.array([0]), config=CandidateConfig(events_per_user=2), limit=9)
    long, recent = (candidates.features[:, NAMES.index(f"co_occurrence{part}")] > 0 for part in ("", "_recent"))
    channel = brought_by(candidates, "co_occurrence")
    names = np.array(["ale", "gin", "jam", "pie", "rye", "tea"])[past.event_order[candidates.event]].tolist()
    for name, expected in {"ale": (True, False, True), "gin": (False, True, False)}.items():
        at = names.index(name)
        assert (long[at], recent[at], channel[at]) == expected
