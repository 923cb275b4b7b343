from dataclasses import replace

import numpy as np
import pytest
import torch

from tgn_assets.ml.arrays import BoolArray, FloatArray
from tgn_assets.ml.config import FallbackConfig
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.judged_week import (
    JudgedWeek,
    PairedResults,
    ScoredPairs,
    judged_from_tensors,
    judged_tensors,
    pooled_with,
)
from tgn_assets.ml.ranker.baseline_fallback import (
    BaselineFallback,
    best_baselines,
    choose_per_segment,
    ndcg_of,
    segment_of,
)
from tgn_assets.ml.schema import OURS
from tgn_assets_tests.support.worlds import history

CONFIG = FallbackConfig(active_weeks=4, confidence=0.9, min_users=20, weeks=8, half_life=4)
NO_PAIRS = ScoredPairs(np.zeros(0), np.zeros(0), np.zeros(0, int))
WEEK = 2000


def hits(good: int, users: int = 100) -> BoolArray:
    """The first `good` users have a hit at rank 1."""
    values = np.zeros((users, 5), bool)
    values[:good, 0] = True
    return values


def judged(
    week: int, sources: dict[str, BoolArray], segment: int = 0, first_user: int = 0, inactive: int = 0
) -> JudgedWeek:
    """The result of a week in which users of one segment were active, `inactive` others of it were not."""
    users = len(sources[OURS])
    ndcg = {name: ndcg_of(of, np.ones(users, int)) for name, of in sources.items()}
    members = np.zeros(2, int)
    members[segment] = users + inactive
    rates = {name: np.zeros((2, 5)) for name in sources}
    for name, of in sources.items():
        rates[name][segment] = of.sum(0) / members[segment]
    gain = {name: ndcg[name] - ndcg[OURS] for name in sources if name != OURS}
    user = np.arange(first_user, first_user + users)
    return JudgedWeek(week, PairedResults(user, np.full(users, segment), gain, rates, members), NO_PAIRS)


def fallback(ours: int, baseline: int, users: int = 100, config: FallbackConfig = CONFIG) -> BaselineFallback:
    sources = {OURS: hits(ours, users), "repeat": hits(baseline, users), "popular": hits(1, users)}
    return choose_per_segment([judged(WEEK, sources)], config=config)


def of_ndcg(week: int, ours: FloatArray, others: FloatArray, user: np.ndarray, segment: np.ndarray) -> JudgedWeek:
    """A week in which the ranker had the NDCG `ours` [n] and each baseline one of `others` [baselines, n]."""
    gain = {name: other - ours for name, other in zip(BASELINES, others, strict=True)}
    rates = {name: np.zeros((2, 5)) for name in (OURS, *BASELINES)}
    return JudgedWeek(week, PairedResults(user, segment, gain, rates, np.array([500, 500])), NO_PAIRS)


def simulated(rng: np.random.Generator, weeks: int, users: int, better: float = 0.0) -> list[JudgedWeek]:
    """Weeks in which `users` of 300 users were active, and five equal rankers; the last is `better` by some hits."""
    found = []
    for week in range(WEEK - weeks + 1, WEEK + 1):
        user = np.sort(rng.choice(300, users, replace=False))
        hit_rate = 0.3 + np.array([0.0] * len(BASELINES) + [better])[:, None]
        ndcg = (rng.random((len(BASELINES) + 1, users)) < hit_rate) * rng.choice([1.0, 0.63, 0.5, 0.39], users)
        found.append(of_ndcg(week, ndcg[0], ndcg[1:], user, np.zeros(users, int)))
    return found


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
    assert chosen.hit_rate["active"] == pytest.approx([0.6, 0, 0, 0, 0])


def test_a_difference_within_the_noise_keeps_the_ranker() -> None:
    assert fallback(ours=8, baseline=10, users=20).source["active"] == OURS
    lenient = CONFIG.model_copy(update={"confidence": 0.5})
    assert fallback(ours=8, baseline=10, users=20, config=lenient).source["active"] == "repeat"


@pytest.mark.parametrize(("weeks", "users"), [(1, 100), (1, 25), (6, 25)])
@pytest.mark.usefixtures("few_draws")
def test_equal_rankers_are_swapped_at_the_nominal_rate(weeks: int, users: int) -> None:
    rng = np.random.default_rng(weeks * users)
    swapped = [choose_per_segment(simulated(rng, weeks, users), config=CONFIG).source["active"] for _ in range(200)]
    share = np.mean([source != OURS for source in swapped])
    assert 0.05 <= share <= 0.14, "with a confidence of 90%, one in ten"


def test_a_clearly_better_baseline_wins_in_a_few_weeks() -> None:
    def share(weeks: int) -> float:
        rng = np.random.default_rng(7)
        found = [choose_per_segment(simulated(rng, weeks, 25, 0.2), config=CONFIG).source["active"] for _ in range(60)]
        return float(np.mean([source == list(BASELINES)[-1] for source in found]))

    assert share(1) < 0.6, "a week of 25 users says little"
    assert share(6) >= 0.85


def test_a_ranker_that_got_worse_is_replaced_in_a_few_weeks() -> None:
    good, bad = {OURS: hits(40), "repeat": hits(30)}, {OURS: hits(20), "repeat": hits(40)}
    past = [judged(WEEK - 8 + week, good, first_user=100 * week) for week in range(6)]
    sources = []
    for _ in range(3):
        past.append(judged(past[-1].week + 1, bad, first_user=100 * len(past)))
        sources.append(choose_per_segment(past, config=CONFIG).source["active"])
    assert sources[0] == OURS and sources[-1] == "repeat"


def test_small_segments_are_decided_together() -> None:
    def lapsed(gain: float, users: int) -> str:
        rng, active = np.random.default_rng(0), 100
        number = active + users
        segment = np.append(np.zeros(active, int), np.ones(users, int))
        ours = (rng.random(number) < 0.3).astype(float)
        others = np.stack([np.clip(ours + gain, 0, 1), *np.zeros((len(BASELINES) - 1, number))])
        return choose_per_segment([of_ndcg(WEEK, ours, others, np.arange(number), segment)], config=CONFIG).source[
            "lapsed"
        ]

    assert lapsed(0.3, users=5) == next(iter(BASELINES)), "five users alone could not tell"
    assert lapsed(-0.3, users=5) == OURS


def test_weeks_of_few_users_add_up() -> None:
    week = {OURS: hits(0, 8), "repeat": hits(5, 8)}
    weeks = [judged(WEEK - 2 + at, week, first_user=8 * at) for at in range(3)]
    assert choose_per_segment(weeks[:1], config=CONFIG).source["active"] == OURS, "eight users are too few"
    assert choose_per_segment(weeks, config=CONFIG).source["active"] == "repeat"
    again = [replace(one, results=replace(one.results, user=weeks[0].results.user)) for one in weeks]
    assert choose_per_segment(again, config=CONFIG).source["active"] == OURS, "they are eight users still"


def test_without_a_trained_ranker_the_best_baseline_serves() -> None:
    results = judged(WEEK, {OURS: hits(0), "repeat": hits(3), "popular": hits(9)}).results
    ndcg = {"repeat": hits(3)[:, 0].astype(float), "popular": hits(9)[:, 0].astype(float)}
    found = best_baselines(results, ndcg)
    assert found.source == {"active": "popular", "lapsed": "repeat"}
    assert found.hit_rate["active"] == pytest.approx([0.09, 0, 0, 0, 0])


def test_hit_rates_are_of_all_weeks_and_users() -> None:
    weeks = [
        judged(WEEK - 4, {OURS: hits(0), "repeat": hits(80)}),
        judged(WEEK, {OURS: hits(0), "repeat": hits(50)}, inactive=100),
    ]
    found = choose_per_segment(weeks, config=CONFIG)
    # Half a life ago, 80 of 100 users; now 50 of 200.
    assert found.source["active"] == "repeat"
    assert found.hit_rate["active"] == pytest.approx([(0.5 * 80 + 50) / (0.5 * 100 + 200), 0, 0, 0, 0])


def test_hit_rates_never_rise_with_the_rank() -> None:
    uneven = np.tile(np.array([0, 0, 1, 0, 1], bool), (50, 1))
    found = choose_per_segment([judged(WEEK, {OURS: hits(0, 50), "repeat": uneven})], config=CONFIG)
    assert found.hit_rate["active"] == pytest.approx([0.4] * 5)


def test_only_earlier_weeks_are_pooled() -> None:
    weeks = [judged(WEEK + at, {OURS: hits(1), "repeat": hits(2)}) for at in range(-9, 2)]
    *past, newest, later = weeks
    assert [one.week for one in pooled_with(past, newest, weeks=8)] == list(range(WEEK - 7, WEEK + 1))
    assert [one.week for one in pooled_with([*past, newest], newest, weeks=3)] == [WEEK - 2, WEEK - 1, WEEK]
    with pytest.raises(ValueError, match="a week after"):
        pooled_with([*past, later], newest, weeks=8)
    others = judged(WEEK - 1, {OURS: hits(1), "another": hits(2)})
    assert pooled_with([others], newest, weeks=8) == (newest,), "of other baselines there is nothing to pool"


def test_judged_weeks_survive_their_tensors() -> None:
    pairs = ScoredPairs(np.array([0.25, 0.5]), np.array([-1.5, 2.0]), np.array([0, 1]))
    weeks = [replace(judged(WEEK + at, {OURS: hits(1), "repeat": hits(2)}), pairs=pairs) for at in (1, 0)]
    tensors = judged_tensors(weeks)
    found = judged_from_tensors(tensors)
    assert [one.week for one in found] == [WEEK, WEEK + 1]
    assert judged_tensors(found).keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in judged_tensors(found).items())
    assert found[0].pairs.label.tolist() == [0, 1]
