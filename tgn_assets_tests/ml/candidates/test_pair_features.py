"""Pair features over a small history, worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from tgn_assets.ml.candidates import pair_tables
from tgn_assets.ml.candidates.pair_features import PairFeatures, pair_feature_registry
from tgn_assets.ml.candidates.retrieval import CandidateGenerator, candidate_feature_names, user_shard
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import AttributeColumn
from tgn_assets.ml.weeks import week_number
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
    past = history(rows, week)
    pair_features = PairFeatures(past)
    tables = pair_features.tables(past.of_users(np.array([user])))
    table = np.hstack(pair_features.families(tables, np.array([0]), np.array([event])))
    assert table.shape == (1, len(REGISTRY.names)) and table.dtype == np.float32
    return float(table[0, REGISTRY.names.index(name)])


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
    ann = user_shard(past, None, np.array([ANN]))
    features = CandidateGenerator(past, None, config=config).candidates(ann, limit=5).features
    assert features.shape[1] == len(names) - 1
    assert features[0, 0] == pytest.approx(np.log1p(0.5 ** (4 / 2) + 3 * 0.5 ** (2 / 2)))


def test_similarity_is_not_shared_between_configs() -> None:
    past = history(ROWS, 4)
    usual, unshrunk = (
        PairFeatures(past, CandidateConfig(events_per_user=events)).events.item_similarity for events in (200, 1)
    )
    assert usual.nnz > unshrunk.nnz == 0


def test_tables_of_some_users_are_those_of_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    past = history(habits(weeks=8), 7)
    whole = PairFeatures(past).tables(past.of_users(np.arange(past.num_users)))
    monkeypatch.setattr(pair_tables, "ROWS_PER_BLOCK", 5)
    in_blocks = PairFeatures(history(habits(weeks=8), 7))
    np.testing.assert_array_equal(in_blocks.events.repeat_rate, whole.events.repeat_rate)
    near, near_of_whole = in_blocks.events.item_similarity, whole.events.item_similarity
    np.testing.assert_array_equal(near.toarray(), near_of_whole.toarray())
    users = np.array([3, 0, past.num_users - 1])
    some = in_blocks.tables(past.of_users(users))
    for name in ("popularity", "novelty", "basket", "repeat_rate", "first_week", "last_week", "count", "repeat_total"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[users])
    for place, user in enumerate(users):
        mine, own = some.pairs.user == place, whole.pairs.user == user
        for name in ("event", "weight", "rank", "weeks", "first", "last"):
            np.testing.assert_array_equal(getattr(some.pairs, name)[mine], getattr(whole.pairs, name)[own])
        by_weight = np.lexsort((past.event_order[whole.pairs.event[own]], -whole.pairs.weight[own]))
        np.testing.assert_array_equal(whole.pairs.rank[own][by_weight], np.arange(own.sum()))


def test_repeat_rate_counts_weeks_after_the_first() -> None:
    assert feature("event_repeat_rate", ANN, TEA) > feature("event_repeat_rate", ANN, JAM)


def test_pair_features_do_not_see_the_future() -> None:
    whole = history([*ROWS, ("zoe", "aaa", 5, 9), ("ann", "tea", 5, 1)], 5)
    users, pairs = np.array([ANN, BOB]), (np.array([0, 0, 1]), np.array([TEA, PIE, JAM]))
    direct, cut = (
        np.hstack(PairFeatures(past).families(PairFeatures(past).tables(past.of_users(users)), *pairs))
        for past in (history(ROWS, 4), whole.as_of(week_number(START) + 4))
    )
    np.testing.assert_array_equal(direct, cut)
