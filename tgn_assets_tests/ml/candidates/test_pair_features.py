import numpy as np
import pytest
import torch

from tgn_assets.ml.candidates import pair_features
from tgn_assets.ml.candidates.pair_features import FEATURES, OWN_FEATURES, PairFeatures
from tgn_assets.ml.candidates.retrieval import CHANNELS, LINKS, PAIR_FEATURES, CandidateGenerator
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.linear_link_model import RANK, link_vectors
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history

ROWS = [
    ("ann", "tea", 0, 1),
    ("ann", "tea", 2, 3),
    ("ann", "jam", 4, 1),
    ("bob", "jam", 4, 2),
    ("bob", "pie", 4, 1),
]


def feature(name: str, user: int, event: int, rows=ROWS, week: int = 4) -> float:
    pair_features, users = PairFeatures(history(rows, week)), np.array([user])
    table = pair_features.features(users, np.array([0]), np.array([event]), pair_features.cooccurring(users))
    assert table.shape == (1, len(FEATURES)) and table.dtype == np.float32
    return float(table[0, FEATURES.index(name)])


ANN, BOB = 0, 1
TEA, JAM, PIE = 0, 1, 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("own_count_4w", np.log1p(0.5 ** (4 / 4) + 3 * 0.5 ** (2 / 4))),
        ("own_weeks", np.log1p(2)),
        ("own_recency", 1 / 3),
        ("own_silence", np.log1p(2)),
        ("repeat_cadence", 3 / 2),  # touched every 2 weeks; the week to come is 3 weeks after the last time
        ("own_reciprocal_rank", 1.0),
        ("user_count", np.log1p(5)),
        ("user_events", np.log1p(2)),
        ("user_weeks", np.log1p(3)),
        ("event_age", np.log1p(4)),
        ("event_silence", np.log1p(2)),
    ],
)
def test_evidence_of_ann_and_tea_by_hand(name, value):
    assert feature(name, ANN, TEA) == pytest.approx(value, rel=1e-5)


def test_an_event_the_user_never_had_has_no_own_evidence_but_what_stands_near_it():
    assert [feature(name, ANN, PIE) for name in OWN_FEATURES] == [0] * len(OWN_FEATURES)
    assert feature("cooccurrence", ANN, PIE) > 0  # bob had pie with jam, and ann has jam
    assert feature("cooccurrence_share", ANN, PIE) == 1


def test_the_pairs_of_a_user_have_the_same_places_in_whatever_pieces_they_are_put_in_order(monkeypatch):
    past = history(habits(weeks=8), 7)
    whole = PairFeatures(past)
    monkeypatch.setattr(pair_features, "PAIRS_PER_SORT", 5)
    np.testing.assert_array_equal(PairFeatures(past).pair_rank, whole.pair_rank)
    for user in range(past.num_users):
        own = whole.pair_user == user
        by_weight = np.lexsort((past.event_order[whole.pair_event[own]], -whole.pair_weight[own]))
        np.testing.assert_array_equal(whole.pair_rank[own][by_weight], np.arange(own.sum()))


def test_repeat_rate_counts_weeks_after_the_first():
    assert feature("event_repeat_rate", ANN, TEA) > feature("event_repeat_rate", ANN, JAM)


def test_candidates_are_own_events_near_ones_and_popular_ones_with_their_channels():
    candidates = CandidateGenerator(PairFeatures(history(ROWS, 4)), None).candidates(np.array([ANN, BOB]), limit=2)
    assert candidates.features.shape == (len(candidates.row), len(PAIR_FEATURES))
    of_ann = candidates.event[candidates.row == 0].tolist()
    assert of_ann == [TEA, JAM, PIE]
    own = candidates.channels[:, CHANNELS.index("repeat")]
    assert own[candidates.row == 0].tolist() == [True, True, False]
    assert not candidates.channels[:, CHANNELS.index("next_week")].any()


def test_links_are_a_feature_and_a_channel_where_the_embeddings_have_them():
    past = history(habits(), 11)
    no_log = torch.zeros(past.num_users, 3), torch.zeros(past.num_events, 3)
    week, users = shift(START, 11), np.arange(past.num_users)
    plain = NodeEmbeddings(week, torch.as_tensor(past.user_idx), no_log[0], torch.as_tensor(past.event_idx), no_log[1])
    without = CandidateGenerator(PairFeatures(past), plain).candidates(users, limit=3)
    assert not without.channels[:, CHANNELS.index("next_week")].any()
    columns = [PAIR_FEATURES.index(name) for name in LINKS]
    assert not without.features[:, columns].any()
    links = plain.with_links(link_vectors(past))
    candidates = CandidateGenerator(PairFeatures(past), links).candidates(users, limit=3)
    of_users, of_events = links.links_at(past.user_idx, past.event_idx)
    expected = [(of_users[:, half] @ of_events[:, half].T).numpy() for half in (slice(RANK), slice(RANK, None))]
    for column, raw in zip(columns, expected, strict=True):
        of_pair = raw[candidates.row, candidates.event].astype(float)
        np.testing.assert_allclose(candidates.features[:, column], group_zscore(candidates.row, of_pair), atol=1e-4)
    chosen = candidates.channels[:, CHANNELS.index("next_week")]
    best = np.sort(expected[0], axis=1)[:, -3:]
    for user in (0, 17):
        mine = chosen & (candidates.row == user)
        np.testing.assert_allclose(np.sort(expected[0][user, candidates.event[mine]]), best[user], atol=1e-6)


def test_each_channel_keeps_to_its_limit_and_no_pair_comes_twice():
    past = history(habits(), 11)
    candidates = CandidateGenerator(PairFeatures(past), None).candidates(np.arange(past.num_users), limit=3)
    for channel in ("repeat", "co_occurrence"):
        chosen = candidates.channels[:, CHANNELS.index(channel)]
        assert np.bincount(candidates.row[chosen]).max() <= 3
    pairs = candidates.row * past.num_events + candidates.event
    assert (np.diff(pairs) > 0).all()


def test_what_is_near_lately_is_told_apart_from_what_is_near_in_the_long_run(monkeypatch):
    monkeypatch.setattr(pair_features, "EVENTS_PER_USER", 2)
    rows = [("ann", "tea", 0, 50), ("ann", "pie", 0, 50), ("ann", "jam", 8, 1), ("ann", "rye", 8, 1)]
    rows += [("bob", "tea", 8, 1), ("bob", "ale", 8, 1), ("cat", "jam", 8, 1), ("cat", "gin", 8, 1)]
    past = history(rows, 8)
    candidates = CandidateGenerator(PairFeatures(past), None).candidates(np.array([ANN]), limit=9)
    long, lately = (candidates.features[:, FEATURES.index(f"cooccurrence{part}")] > 0 for part in ("", "_recent"))
    channel = candidates.channels[:, CHANNELS.index("co_occurrence")]
    names = np.array(["ale", "gin", "jam", "pie", "rye", "tea"])[past.event_order[candidates.event]].tolist()
    for name, expected in {"ale": (True, False, True), "gin": (False, True, False)}.items():
        at = names.index(name)
        assert (long[at], lately[at], channel[at]) == expected


def test_evidence_as_of_a_week_is_the_same_with_and_without_a_future():
    whole = history([*ROWS, ("zoe", "aaa", 5, 9), ("ann", "tea", 5, 1)], 5)
    direct, cut = PairFeatures(history(ROWS, 4)), PairFeatures(whole.as_of(week_number(START) + 4))
    users, pairs = np.array([ANN, BOB]), (np.array([0, 0, 1]), np.array([TEA, PIE, JAM]))
    np.testing.assert_array_equal(
        direct.features(users, *pairs, direct.cooccurring(users)), cut.features(users, *pairs, cut.cooccurring(users))
    )
