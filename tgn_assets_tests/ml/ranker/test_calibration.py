from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import expit

from tgn_assets.ml.arrays import BoolArray, FloatArray
from tgn_assets.ml.config import CalibrationConfig
from tgn_assets.ml.evaluation.judged_week import JudgedWeek, PairedResults, ScoredPairs
from tgn_assets.ml.ranker.calibration import Calibration, Logistic, calibrate, fit_activity

CONFIG = CalibrationConfig(min_slope=0.05, ridge=1.0)


def world(users: int = 20_000, seed: int = 0) -> tuple[FloatArray, BoolArray, FloatArray, BoolArray]:
    """Users' features, whether they are active, the share of one event, whether active users interact with it."""
    rng = np.random.default_rng(seed)
    features = rng.normal(5, 2, (users, 2))
    active = rng.random(users) < expit(features[:, 0] - 6)
    share = rng.uniform(0.01, 0.6, users)
    return features, active, share, active & (rng.random(users) < share)


def week(
    number: int, share: FloatArray, features: FloatArray, positive: BoolArray, activity: Logistic | None = None
) -> JudgedWeek:
    """A judged week with these pairs, and no results."""
    nothing = PairedResults(np.zeros(0, int), np.zeros(0, int), {}, {}, np.zeros(2, int))
    logit = (activity or Logistic(0, [0.0] * features.shape[1])).logit(features)
    return JudgedWeek(number, nothing, ScoredPairs(share, logit, positive.astype(int)))


def test_activity_is_learned_from_the_feature_that_tells_it() -> None:
    features, active, _, _ = world()
    activity = fit_activity(features, active, config=CONFIG)
    assert activity.weights == pytest.approx([1, 0], abs=0.1)
    assert activity.intercept == pytest.approx(-6, abs=0.5)


def test_a_probability_is_as_frequent_as_it_says_on_other_users() -> None:
    features, active, share, positive = world()
    activity = fit_activity(features, active, config=CONFIG)
    calibration = calibrate(activity, [week(9, share, features, positive, activity)], config=CONFIG)
    features, _, share, positive = world(seed=1)
    probability = calibration.probability(share, features)
    for low, high in [(0.01, 0.05), (0.05, 0.2), (0.2, 0.5)]:
        within = (probability >= low) & (probability < high)
        assert within.sum() > 500
        assert positive[within].mean() == pytest.approx(probability[within].mean(), rel=0.25)


def test_a_larger_share_never_gets_a_smaller_probability() -> None:
    share = np.linspace(0.01, 0.9, 200)
    calibration = calibrate(Logistic(0, [0.0]), [week(9, share, np.zeros((200, 1)), share < 0.2)], config=CONFIG)
    assert calibration.interaction.weights[0] == CONFIG.min_slope
    assert (np.diff(calibration.probability(share, np.zeros((200, 1)))) > 0).all()


def test_a_week_without_a_hit_gives_small_probabilities() -> None:
    no_hits = np.zeros(50, bool)
    pairs = week(9, np.full(50, 0.2), np.zeros((50, 1)), no_hits)
    calibration = calibrate(Logistic(0, [0.0]), [pairs], config=CONFIG)
    assert 0 <= calibration.probability(np.array([0.2]), np.zeros((1, 1)))[0] < 0.01


def test_scores_of_the_most_active_users_are_not_too_high() -> None:
    rng = np.random.default_rng(2)

    def pairs(users: int) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Most users are hardly ever active, some always: of these, an event's share is its probability."""
        logit = np.where(rng.random(users) < 0.9, -3.0, rng.uniform(2, 8, users))
        share = rng.uniform(0.02, 0.5, users)
        return logit[:, None], share, (rng.random(users) < expit(logit)) & (rng.random(users) < share)

    features, share, positive = pairs(40_000)
    itself = Logistic(0, [1.0])
    calibration = calibrate(itself, [week(9, share, features, positive, itself)], config=CONFIG)
    features, share, positive = pairs(40_000)
    often, score = features[:, 0] > 6, calibration.probability(share, features)
    assert score[often].mean() == pytest.approx(positive[often].mean(), rel=0.07)
    upper = score > 0.35
    assert score[upper].mean() < 1.05 * positive[upper].mean()


def test_weeks_are_pooled_with_fading_weight() -> None:
    share, features = np.full(1000, 0.5), np.zeros((1000, 1))
    rates = {1: 0.8, 5: 0.2}  # of the pairs came true, four weeks ago and now
    weeks = [week(number, share, features, np.arange(1000) < 1000 * rate) for number, rate in rates.items()]
    found = calibrate(Logistic(0, [0.0]), weeks, config=CONFIG).probability(share[:1], features[:1])
    assert found[0] == pytest.approx((0.5 * 0.8 + 0.2) / 1.5, abs=0.01)


def test_pooled_weeks_are_calibrated_better_on_the_next() -> None:
    def upper_bin(weeks: int, seed: int) -> float:
        """Predicted minus observed of the pairs with the largest scores, in a week after `weeks` of 60 users."""
        made = [world(users=60, seed=100 * seed + number) for number in range(weeks)]
        activity = fit_activity(*world(users=5000)[:2], config=CONFIG)
        past = [week(at, share, features, hits, activity) for at, (features, _, share, hits) in enumerate(made)]
        features, _, share, positive = world(seed=1)
        score = calibrate(activity, past, config=CONFIG).probability(share, features)
        upper = score >= np.quantile(score, 0.98)
        return float(score[upper].mean() - positive[upper].mean())

    error = {weeks: np.sqrt(np.mean([upper_bin(weeks, seed) ** 2 for seed in range(12)])) for weeks in (1, 8)}
    assert error[8] < 0.7 * error[1]


def test_chance_of_activity_has_a_floor_beyond_what_was_seen() -> None:
    silent = np.repeat([0.0, 1.0, 2.0], 100)[:, None]  # weeks since the last interaction; who is silent never returns
    activity = fit_activity(silent, silent[:, 0] == 0, config=CONFIG)
    chance = expit(activity.logit(np.array([[0.0], [3.0], [500.0]])))
    assert chance[0] > 0.9
    assert chance[2] == pytest.approx(1 / 302)
    calibration = Calibration(activity, Logistic(-1.0, [0.7, 0.9]))
    assert Calibration.from_meta(asdict(calibration)) == calibration
