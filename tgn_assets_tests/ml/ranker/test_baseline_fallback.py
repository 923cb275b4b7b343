import numpy as np
import pytest

from tgn_assets.ml.arrays import BoolArray
from tgn_assets.ml.config import FallbackConfig
from tgn_assets.ml.ranker.baseline_fallback import BaselineFallback, choose_per_segment, ndcg_of, segment_of
from tgn_assets.ml.schema import OURS
from tgn_assets_tests.support.worlds import history

CONFIG = FallbackConfig(active_weeks=4, confidence=0.9, min_users=20, resamples=1000)


def hits(good: int, users: int = 100) -> BoolArray:
    """The first `good` users have a hit at rank 1."""
    values = np.zeros((users, 5), bool)
    values[:good, 0] = True
    return values


def chosen_from(sources: dict[str, BoolArray], config: FallbackConfig = CONFIG) -> BaselineFallback:
    users = len(next(iter(sources.values())))
    ndcg = {name: ndcg_of(values, np.ones(users, int)) for name, values in sources.items()}
    everyone = np.zeros(users, int)
    return choose_per_segment(everyone, ndcg, sources, return_rate=np.ones(2), config=config, seed=0)


def fallback(ours: int, baseline: int, users: int = 100, config: FallbackConfig = CONFIG) -> BaselineFallback:
    return chosen_from({OURS: hits(ours, users), "repeat": hits(baseline, users), "popular": hits(1, users)}, config)


def test_ndcg_of_hits_by_hand() -> None:
    values = ndcg_of(np.array([[0, 1, 0], [1, 1, 1]]), np.array([1, 7]))
    assert values == pytest.approx([1 / np.log2(3), 1.0])


@pytest.mark.parametrize(("active_weeks", "segments"), [(4, [1, 0]), (7, [0, 0])])
def test_users_are_active_or_lapsed_as_of_the_cutoff(active_weeks: int, segments: list[int]) -> None:
    known = history([("ann", "tea", 0, 1), ("bob", "tea", 6, 1)], week=6)
    assert segment_of(known, np.array([0, 1]), active_weeks=active_weeks).tolist() == segments


def test_the_ranker_serves_where_it_won() -> None:
    assert fallback(ours=60, baseline=40).source["active"] == OURS


def test_a_baseline_that_clearly_won_serves_with_its_hit_rates() -> None:
    chosen = fallback(ours=20, baseline=60)
    assert chosen.source["active"] == "repeat"
    assert chosen.hit_rate["active"] == [0.6, 0, 0, 0, 0]


def test_a_difference_within_the_noise_keeps_the_ranker() -> None:
    assert fallback(ours=8, baseline=10, users=20).source["active"] == OURS
    lenient = CONFIG.model_copy(update={"confidence": 0.1})
    assert fallback(ours=8, baseline=10, users=20, config=lenient).source["active"] == "repeat"


def test_a_handful_of_users_keeps_the_ranker() -> None:
    assert fallback(ours=0, baseline=19, users=19).source["active"] == OURS
    assert fallback(ours=0, baseline=20, users=20).source["active"] == "repeat"


def test_without_a_trained_ranker_the_best_baseline_serves() -> None:
    assert chosen_from({"repeat": hits(3), "popular": hits(9)}).source["active"] == "popular"


def test_hit_rates_never_rise_with_the_rank() -> None:
    uneven = np.tile(np.array([0, 0, 1, 0, 1], bool), (10, 1))
    assert chosen_from({"repeat": uneven}).hit_rate["active"] == [1, 1, 1, 1, 1]
