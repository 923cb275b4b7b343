import numpy as np
import pytest

from tgn_assets.ml.ranker.baseline_fallback import (
    BaselineFallback,
    choose_per_segment,
    ndcg_of,
    segment_of,
    untested_fallback,
)
from tgn_assets.ml.schema import OURS
from tgn_assets_tests.support.worlds import history

EVERYONE = np.ones(2)


def hits(good: int, users: int = 100) -> np.ndarray:
    """The first `good` users have a hit at rank 1."""
    values = np.zeros((users, 5))
    values[:good, 0] = 1
    return values


def fallback(ours: int, baseline: int, users: int = 100) -> BaselineFallback:
    sources = {OURS: hits(ours, users), "repeat": hits(baseline, users), "popular": hits(1, users)}
    ndcg = {name: ndcg_of(values, np.ones(users, int)) for name, values in sources.items()}
    return choose_per_segment(np.zeros(users, int), ndcg, sources, EVERYONE, seed=0)


def test_ndcg_of_hits_by_hand():
    values = ndcg_of(np.array([[0, 1, 0], [1, 1, 1]]), np.array([1, 7]))
    assert values == pytest.approx([1 / np.log2(3), 1.0])


def test_users_are_active_or_lapsed_by_what_was_known_at_the_close():
    known = history([("ann", "tea", 0, 1), ("bob", "tea", 6, 1)], week=6)
    assert segment_of(known, np.array([0, 1])).tolist() == [1, 0]


def test_the_ranker_serves_where_it_won():
    assert fallback(ours=60, baseline=40).source["active"] == OURS


def test_a_baseline_that_clearly_won_takes_over_and_its_scores_are_what_its_lists_hit():
    chosen = fallback(ours=20, baseline=60)
    assert chosen.source["active"] == "repeat"
    assert chosen.hit_rate["active"] == [0.6, 0, 0, 0, 0]


def test_a_difference_within_the_noise_of_a_small_week_does_not_replace_the_ranker():
    assert fallback(ours=8, baseline=10, users=20).source["active"] == OURS


def test_a_handful_of_users_does_not_replace_the_ranker_however_clear_they_are():
    assert fallback(ours=0, baseline=19, users=19).source["active"] == OURS
    assert fallback(ours=0, baseline=20, users=20).source["active"] == "repeat"


def test_without_a_trained_ranker_the_best_baseline_serves():
    values = {"repeat": hits(3), "popular": hits(9)}
    ndcg = {name: ndcg_of(hit, np.ones(100, int)) for name, hit in values.items()}
    assert choose_per_segment(np.zeros(100, int), ndcg, values, EVERYONE, seed=0).source["active"] == "popular"


def test_scores_never_rise_with_the_rank():
    uneven = {"repeat": np.tile([0, 0, 1, 0, 1], (10, 1))}
    chosen = choose_per_segment(np.zeros(10, int), {"repeat": np.ones(10)}, uneven, EVERYONE, seed=0)
    assert chosen.hit_rate["active"] == [1, 1, 1, 1, 1]


def test_a_gate_survives_its_meta():
    assert BaselineFallback.from_meta(untested_fallback().to_meta()) == untested_fallback()
