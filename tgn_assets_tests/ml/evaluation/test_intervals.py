"""Intervals cover what they promise in simulations, stay within their bounds, and count a user once."""

import numpy as np
import pytest

from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.evaluation.intervals import (
    clustered_interval,
    mean_interval,
    p_of_best,
    paired_comparison,
    weighted_mean,
)

GAINS = np.array([1, 0.6309, 0.5, 0.4307, 0.3869, 0.8, 0.2])
"""What a list with hits may score: NDCG@5."""


def ndcg_of_users(rng: np.random.Generator, hit_rate: float, shape: tuple[int, ...]) -> FloatArray:
    """NDCG of lists of which the share `hit_rate` has hits."""
    return (rng.random(shape) < hit_rate) * rng.choice(GAINS, shape)


@pytest.mark.parametrize("users", [5, 10, 25, 50, 200])
@pytest.mark.parametrize("hit_rate", [0.05, 0.1, 0.3, 0.6, 0.9])
def test_interval_covers_with_few_users_too(users: int, hit_rate: float) -> None:
    rng = np.random.default_rng(users)
    hits = (rng.random((users, 2000)) < hit_rate).astype(float)
    ndcg = ndcg_of_users(rng, hit_rate, (users, 2000))
    for values, mean in ((hits, hit_rate), (ndcg, hit_rate * GAINS.mean())):
        low, high = mean_interval(values)  # 2,000 samples of users
        assert ((low <= mean) & (mean <= high)).mean() >= 0.93
        assert low.min() >= 0 and high.max() <= 1
        assert ((low <= values.mean(0) + 1e-12) & (values.mean(0) - 1e-12 <= high)).all()


def test_interval_of_many_users_is_no_wider_than_it_must_be() -> None:
    values = ndcg_of_users(np.random.default_rng(0), 0.5, (2000, 1))
    low, high = mean_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std(0, ddof=1) / np.sqrt(2000), rel=0.01)


@pytest.mark.parametrize("users", [10, 50])
def test_paired_interval_covers_with_few_users_too(users: int) -> None:
    rng = np.random.default_rng(users)
    covered, wrong = [], []
    for _ in range(1000):
        shared = ndcg_of_users(rng, 0.4, (users,))
        ours, theirs = (np.where(rng.random(users) < 0.3, ndcg_of_users(rng, 0.4, (users,)), shared) for _ in "ab")
        gain = paired_comparison(ours, theirs)
        covered.append(gain.ci_low <= 0 <= gain.ci_high)
        wrong.append(gain.p < 0.05)
    assert np.mean(covered) >= 0.93
    assert np.mean(wrong) <= 0.06


def test_fewer_than_two_users_give_no_interval() -> None:
    for users in (0, 1):
        low, high = mean_interval(np.ones((users, 2)))
        assert np.isnan([low, high]).all()
        comparison = paired_comparison(np.ones(users), np.zeros(users))
        assert np.isnan([comparison.ci_low, comparison.ci_high, comparison.p]).all()
    assert comparison.difference == 1
    assert np.isnan(comparison.relative)


def test_paired_comparison_by_hand() -> None:
    theirs = np.random.default_rng(7).random(300)
    better = paired_comparison(theirs + 0.01, theirs)
    assert better.difference == pytest.approx(0.01)
    assert better.relative == pytest.approx(0.01 / theirs.mean())
    # 302 users, two of them pseudo users: mean 3 / 302, squares 300 * .01 ** 2 + 1.
    error = np.sqrt((300 * 0.01**2 + 1) / 302 - (3 / 302) ** 2) / np.sqrt(301)
    assert (better.ci_low, better.ci_high) == pytest.approx(
        (3 / 302 - 1.968 * error, 3 / 302 + 1.968 * error), abs=1e-5
    )
    assert better.p < 0.01
    same = paired_comparison(theirs, theirs)
    assert (same.difference, same.p) == (0, 0.5)
    assert same.ci_low == -same.ci_high and 0 < same.ci_high < 0.01


def test_pairing_detects_a_small_gain() -> None:
    rng = np.random.default_rng(8)
    theirs = rng.random(400)
    ours = theirs + rng.normal(0.01, 0.02, 400)
    low, high = mean_interval(np.stack([ours, theirs], 1))
    assert low[0] < high[1]
    assert paired_comparison(ours, theirs).ci_low > 0


def test_weeks_of_one_user_are_not_independent() -> None:
    rng = np.random.default_rng(3)
    covered = dict[str, list[bool]](users=[], user_weeks=[])
    for _ in range(400):
        habit = rng.random(40)[:, None]  # 40 users, active in eight weeks: most of what differs is who they are
        hits = (rng.random((40, 8)) < habit).astype(float)
        limits = {
            "users": clustered_interval(hits.sum(1, keepdims=True), np.full(40, 8.0)),
            "user_weeks": mean_interval(hits.reshape(-1, 1)),
        }
        for name, (low, high) in limits.items():
            covered[name].append(bool(low[0] <= 0.5 <= high[0]))
    assert np.mean(covered["users"]) >= 0.93
    assert np.mean(covered["user_weeks"]) < 0.85


@pytest.mark.parametrize("users", [(3, 0, 2, 5), (4000, 1, 2500, 3000), (0, 1, 0, 0), (0, 0, 0, 0)])
def test_weighted_mean_is_that_of_repeated_rows(users: tuple[int, ...]) -> None:
    values = np.array([[0.1, 1.0], [0.7, 0.25], [0.0, 0.0], [0.333333, 0.5]])
    number = np.array(users)
    rows = np.repeat(values, number, axis=0)
    mean, low, high = weighted_mean(values, number)
    if len(rows):
        np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    else:
        assert np.isnan(mean).all()
    np.testing.assert_allclose((low, high), mean_interval(rows), rtol=1e-10)


@pytest.mark.parametrize("users", [20, 200])
@pytest.mark.usefixtures("few_draws")
def test_best_of_equal_rankers_is_found_better_at_the_nominal_rate(users: int) -> None:
    rng, found = np.random.default_rng(5), []
    for _ in range(600):
        ours, *others = ndcg_of_users(rng, 0.4, (5, users))
        _, p = p_of_best(np.stack([other - ours for other in others], 1), np.ones(users))
        found.append(p.min() < 0.1)
    assert np.mean(found) == pytest.approx(0.1, abs=0.035)


def test_a_better_ranker_is_found_among_several() -> None:
    rng = np.random.default_rng(6)
    gains = rng.normal([0.0, 0.1, 0.0, -0.1], 0.3, (150, 4))
    mean, p = p_of_best(gains, np.ones(150))
    assert p.argmin() == 1 and p[1] < 0.01 and (p[[0, 2, 3]] > 0.1).all()
    np.testing.assert_allclose(mean, gains.mean(0))


def test_best_of_rankers_that_never_differ_is_no_better() -> None:
    assert p_of_best(np.zeros((30, 2)), np.ones(30))[1].tolist() == [1, 1]
    assert p_of_best(np.ones((1, 2)), np.ones(1))[1].tolist() == [1, 1], "one user says nothing"
    twins = np.repeat(np.random.default_rng(1).normal(0, 1, (30, 1)), 2, axis=1)
    p = p_of_best(twins, np.ones(30))[1]
    assert p[0] == p[1] == pytest.approx(p_of_best(twins[:, :1], np.ones(30))[1][0], abs=0.02)
