"""Pair features and retrieval over a small history, worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tgn_assets.ml.candidates import pair_tables
from tgn_assets.ml.candidates.pair_features import PairFeatures, pair_feature_registry
from tgn_assets.ml.candidates.retrieval import CHANNELS, LINKS, CandidateGenerator, Candidates, candidate_feature_names
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import AttributeColumn
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.linear_link_model import RANK, link_vectors
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, Row, habits, history

ROWS: list[Row] = [
    ("ann", "tea", 0, 1),
    ("ann", "tea", 2, 3),
    ("ann", "jam", 4, 1),
    ("bob", "jam", 4, 2),
    ("bob", "pie", 4, 1),
]
ANN, BOB = 0, 1
TEA, JAM, PIE = 0, 1, 2
REGISTRY = pair_feature_registry(CandidateConfig())
NAMES = candidate_feature_names(CandidateConfig())


def feature(name: str, user: int, event: int, rows: Sequence[Row] = ROWS, week: int = 4) -> float:
    pair_features, users = PairFeatures(history(rows, week)), np.array([user])
    similar = pair_features.tables.co_occurrence(users)
    table = pair_features.features(users, np.array([0]), np.array([event]), similar)
    assert table.shape == (1, len(REGISTRY.names)) and table.dtype == np.float32
    return float(table[0, REGISTRY.names.index(name)])


def brought_by(candidates: Candidates, channel: str) -> np.ndarray:
    """[p] bool: the channel brought the pair."""
    return candidates.channels[:, CHANNELS.index(channel)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repeat_count_4w", np.log1p(0.5 ** (4 / 4) + 3 * 0.5 ** (2 / 4))),
        ("repeat_weeks", np.log1p(2)),
        ("repeat_recency", 1 / 3),
        ("repeat_silence", np.log1p(2)),
        ("repeat_cadence", 3 / 2),  # every 2 weeks so far; the week to come is 3 weeks after the last time
        ("repeat_reciprocal_rank", 1.0),
        ("user_count", np.log1p(5)),
        ("user_events", np.log1p(2)),
        ("user_weeks", np.log1p(3)),
        ("event_age", np.log1p(4)),
        ("event_silence", np.log1p(2)),
    ],
)
def test_pair_features_by_hand(name: str, value: float) -> None:
    assert feature(name, ANN, TEA) == pytest.approx(value, rel=1e-5)


def test_new_pair_has_co_occurrence_but_no_repeat_features() -> None:
    assert [feature(name, ANN, PIE) for name in REGISTRY.repeat] == [0] * len(REGISTRY.repeat)
    assert feature("co_occurrence", ANN, PIE) > 0  # bob had pie with jam, and ann has jam
    assert feature("co_occurrence_share", ANN, PIE) == 1


def test_feature_names_follow_the_config() -> None:
    config = CandidateConfig(repeat_half_lives=[2.0], popularity_half_lives=[3.0, 5.0], trend_half_lives=[])
    names = candidate_feature_names(config, [AttributeColumn("user", "town", "category")])
    assert len(set(names)) == len(names) == len(NAMES) - 3 - 4 - 2 + 1
    assert {"repeat_count_2w", "popularity_3w", "popularity_5w", "user.town:lift"} <= set(names)
    past = history(ROWS, 4)
    generator = CandidateGenerator(PairFeatures(past, config), None)
    features = generator.candidates(np.array([ANN]), limit=5).features
    assert features.shape[1] == len(names) - 1
    assert features[0, 0] == pytest.approx(np.log1p(0.5 ** (4 / 2) + 3 * 0.5 ** (2 / 2)))


def test_similarity_is_not_shared_between_configs() -> None:
    past = history(ROWS, 4)
    usual, unshrunk = (
        PairFeatures(past, CandidateConfig(events_per_user=events)).tables.item_similarity for events in (200, 1)
    )
    assert usual.nnz > unshrunk.nnz == 0


def test_pair_ranks_do_not_depend_on_the_sort_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    past = history(habits(weeks=8), 7)
    whole = PairFeatures(past).tables
    monkeypatch.setattr(pair_tables, "PAIRS_PER_SORT", 5)
    np.testing.assert_array_equal(PairFeatures(past).tables.pair_rank, whole.pair_rank)
    for user in range(past.num_users):
        own = whole.pair_user == user
        by_weight = np.lexsort((past.event_order[whole.pair_event[own]], -whole.pair_weight[own]))
        np.testing.assert_array_equal(whole.pair_rank[own][by_weight], np.arange(own.sum()))


def test_repeat_rate_counts_weeks_after_the_first() -> None:
    assert feature("event_repeat_rate", ANN, TEA) > feature("event_repeat_rate", ANN, JAM)


def test_candidates_name_the_channels_that_brought_them() -> None:
    candidates = CandidateGenerator(PairFeatures(history(ROWS, 4)), None).candidates(np.array([ANN, BOB]), limit=2)
    assert candidates.features.shape == (len(candidates.row), len(NAMES))
    of_ann = candidates.event[candidates.row == 0].tolist()
    assert of_ann == [TEA, JAM, PIE]
    assert brought_by(candidates, "repeat")[candidates.row == 0].tolist() == [True, True, False]
    assert not brought_by(candidates, "next_week").any()


def test_link_models_give_features_and_a_channel() -> None:
    past = history(habits(), 11)
    no_log = torch.zeros(past.num_users, 3), torch.zeros(past.num_events, 3)
    week, users = shift(START, 11), np.arange(past.num_users)
    plain = NodeEmbeddings(week, torch.as_tensor(past.user_idx), no_log[0], torch.as_tensor(past.event_idx), no_log[1])
    without = CandidateGenerator(PairFeatures(past), plain).candidates(users, limit=3)
    assert not brought_by(without, "next_week").any()
    columns = [NAMES.index(f"link_{name}") for name in LINKS]
    assert not without.features[:, columns].any()
    links = plain.with_links(link_vectors(past))
    candidates = CandidateGenerator(PairFeatures(past), links).candidates(users, limit=3)
    of_users, of_events = links.links_at(past.user_idx, past.event_idx)
    expected = [(of_users[:, half] @ of_events[:, half].T).numpy() for half in (slice(RANK), slice(RANK, None))]
    for column, raw in zip(columns, expected, strict=True):
        of_pair = raw[candidates.row, candidates.event].astype(float)
        np.testing.assert_allclose(candidates.features[:, column], group_zscore(candidates.row, of_pair), atol=1e-4)
    best = np.sort(expected[0], axis=1)[:, -3:]
    for user in (0, 17):
        mine = brought_by(candidates, "next_week") & (candidates.row == user)
        np.testing.assert_allclose(np.sort(expected[0][user, candidates.event[mine]]), best[user], atol=1e-6)


def test_channels_keep_to_their_limit_without_duplicates() -> None:
    past = history(habits(), 11)
    candidates = CandidateGenerator(PairFeatures(past), None).candidates(np.arange(past.num_users), limit=3)
    for channel in ("repeat", "co_occurrence"):
        assert np.bincount(candidates.row[brought_by(candidates, channel)]).max() <= 3
    pairs = candidates.row * past.num_events + candidates.event
    assert (np.diff(pairs) > 0).all()


def test_recent_and_long_term_co_occurrence_differ() -> None:
    rows: list[Row] = [("ann", "tea", 0, 50), ("ann", "pie", 0, 50), ("ann", "jam", 8, 1), ("ann", "rye", 8, 1)]
    rows += [("bob", "tea", 8, 1), ("bob", "ale", 8, 1), ("cat", "jam", 8, 1), ("cat", "gin", 8, 1)]
    past = history(rows, 8)
    generator = CandidateGenerator(PairFeatures(past, CandidateConfig(events_per_user=2)), None)
    candidates = generator.candidates(np.array([ANN]), limit=9)
    long, recent = (candidates.features[:, NAMES.index(f"co_occurrence{part}")] > 0 for part in ("", "_recent"))
    channel = brought_by(candidates, "co_occurrence")
    names = np.array(["ale", "gin", "jam", "pie", "rye", "tea"])[past.event_order[candidates.event]].tolist()
    for name, expected in {"ale": (True, False, True), "gin": (False, True, False)}.items():
        at = names.index(name)
        assert (long[at], recent[at], channel[at]) == expected


def test_pair_features_do_not_see_the_future() -> None:
    whole = history([*ROWS, ("zoe", "aaa", 5, 9), ("ann", "tea", 5, 1)], 5)
    users, pairs = np.array([ANN, BOB]), (np.array([0, 0, 1]), np.array([TEA, PIE, JAM]))
    direct, cut = (
        pair_features.features(users, *pairs, pair_features.tables.co_occurrence(users))
        for pair_features in (PairFeatures(history(ROWS, 4)), PairFeatures(whole.as_of(week_number(START) + 4)))
    )
    np.testing.assert_array_equal(direct, cut)
