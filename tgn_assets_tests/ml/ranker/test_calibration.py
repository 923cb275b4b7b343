import numpy as np
import pytest
from scipy.special import expit

from tgn_assets.ml.ranker.calibration import MIN_SLOPE, Calibration, Logistic, calibrate, fit_activity


def world(users: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Users' features, whether they come back, the share of one event, whether it is touched (only by who is back)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(5, 2, (users, 2))
    active = rng.random(users) < expit(features[:, 0] - 6)
    share = rng.uniform(0.01, 0.6, users)
    return features, active, share, active & (rng.random(users) < share)


def test_activity_is_learnt_from_the_feature_that_tells_it() -> None:
    features, active, _, _ = world()
    activity = fit_activity(features, active)
    assert activity.weights == pytest.approx([1, 0], abs=0.1)
    assert activity.intercept == pytest.approx(-6, abs=0.5)


def test_a_probability_is_as_frequent_as_it_says_on_users_it_has_not_seen() -> None:
    features, active, share, touched = world()
    calibration = calibrate(fit_activity(features, active), share, features, touched)
    features, _, share, touched = world(seed=1)
    probability = calibration.probability(share, features)
    for low, high in [(0.01, 0.05), (0.05, 0.2), (0.2, 0.5)]:
        within = (probability >= low) & (probability < high)
        assert within.sum() > 500
        assert touched[within].mean() == pytest.approx(probability[within].mean(), rel=0.25)


def test_a_larger_share_never_gets_a_smaller_probability_even_if_one_week_spoke_against_it() -> None:
    share = np.linspace(0.01, 0.9, 200)
    calibration = calibrate(Logistic(0, [0.0]), share, np.zeros((200, 1)), share < 0.2)
    assert calibration.touch.weights[0] == MIN_SLOPE
    assert (np.diff(calibration.probability(share, np.zeros((200, 1)))) > 0).all()


def test_a_week_in_which_nothing_was_touched_gives_small_probabilities_not_an_error() -> None:
    calibration = calibrate(Logistic(0, [0.0]), np.full(50, 0.2), np.zeros((50, 1)), np.zeros(50, bool))
    assert 0 <= calibration.probability(np.array([0.2]), np.zeros((1, 1)))[0] < 0.01


def test_a_calibration_survives_its_meta() -> None:
    calibration = Calibration(Logistic(0.5, [1.0, 2.0]), Logistic(-1.0, [0.7, 0.9]))
    assert Calibration.from_meta(calibration.to_meta()) == calibration
