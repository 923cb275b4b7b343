"""Intervals of means over users, paired comparisons, and the test whether the best of several rankers beats ours.

What is drawn at random is a user: who was active in several weeks counts as one cluster, whose weeks are not
independent. All intervals are closed formulas, so that the same numbers give the same bytes.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from tgn_assets.ml.arrays import FloatArray, IntArray

UPPER_QUANTILE = 0.975
"""Quantile of the upper limit of a two-sided 95% interval."""
MICROS = 1_000_000
"""Metrics have six decimals."""
DRAWS = 20_000
"""Draws from the distribution of the largest of several statistics: a probability has an error of .002 at .1."""

PseudoUsers = tuple[tuple[float, float], ...]
"""Pairs (value, number of users who have it) that are added to what was observed."""
MEAN_PSEUDO_USERS: PseudoUsers = ((0.0, 2.0), (1.0, 2.0))
"""Agresti and Coull 1998, "Approximate is better than exact", for values in [0, 1]: two successes and two failures."""
DIFFERENCE_PSEUDO_USERS: PseudoUsers = ((-1.0, 0.5), (0.0, 1.0), (1.0, 0.5))
"""Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions"."""


class _Estimate(NamedTuple):
    """The mean [m] with the pseudo users, its standard error [m] and degrees of freedom."""

    mean: FloatArray
    error: FloatArray
    freedom: float

    def limits(self, lowest: float) -> tuple[FloatArray, FloatArray]:
        """The 95% limits [m] of a mean between `lowest` and 1."""
        margin = stdtrit(self.freedom, UPPER_QUANTILE) * self.error
        return np.clip(self.mean - margin, lowest, 1), np.clip(self.mean + margin, lowest, 1)


def mean_interval(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper 95% limit [m] of the mean over users of each column of `values` [n, m], all in [0, 1].

    Student's t with the pseudo users `MEAN_PSEUDO_USERS`: it stays in [0, 1], and covers where few users or rare hits
    leave a bootstrap nothing to resample. NaN for fewer than two users: one user says nothing about how users differ.

    >>> low, high = mean_interval(np.zeros((10, 1)))
    >>> low.tolist(), high.round(2).tolist()
    ([0.0], [0.35])
    """
    return clustered_interval(values, np.ones(len(values)))


def clustered_interval(sums: FloatArray, users: FloatArray | IntArray) -> tuple[FloatArray, FloatArray]:
    """`mean_interval` where values come in n clusters: their `sums` [n, m] over so many `users` [n] each.

    A cluster is one user in several weeks, or some users.
    """
    return _limits(sums, users, np.ones(len(users)))


def weighted_mean(values: FloatArray, users: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(mean [m], its limits as of `mean_interval`) of `values` [g, m], where `users` [g] users have each value.

    Values have six decimals, as those of `per_user`: the sums are exact, whatever the order.

    >>> [part.tolist() for part in weighted_mean(np.array([[0.2], [0.6]]), np.array([3, 1]))[:1]]
    [[0.3]]
    """
    number = int(users.sum())
    if not number:
        return (np.full(values.shape[1], np.nan),) * 3
    mean = (np.rint(values * MICROS).astype(np.int64) * users[:, None]).sum(0) / (MICROS * number)
    return (mean, *_limits(values, np.ones(len(users)), users))


class PairedComparison(NamedTuple):
    """How two rankers differ on the same users; `ci_low`, `ci_high` and `p` are NaN for fewer than two users."""

    difference: float  # mean of ours minus theirs
    relative: float  # difference divided by their mean; NaN where that is 0
    ci_low: float  # 95% limits of the difference
    ci_high: float
    p: float  # that ours is not better: one-sided


def paired_comparison(ours: FloatArray, theirs: FloatArray, users: FloatArray | None = None) -> PairedComparison:
    """Compares one metric in [0, 1] of two rankers, [n] each, row for row the same user.

    Student's t with the pseudo users `DIFFERENCE_PSEUDO_USERS`. With `users` [n], rows are clusters of so many users,
    and metrics are sums over them.

    >>> gain = paired_comparison(np.array([0.75, 0.5]), np.array([0.5, 0.25]))
    >>> (gain.difference, round(gain.relative, 4), round(gain.ci_low, 2), round(gain.ci_high, 2))
    (0.25, 0.6667, -0.82, 1.0)
    """
    users = np.ones(len(ours)) if users is None else users
    gain = (ours - theirs)[:, None]
    difference = base = low = high = p = float("nan")
    if len(gain):
        difference, base = float(gain.sum() / users.sum()), float(theirs.sum() / users.sum())
    if len(gain) > 1:
        estimate = _estimate(gain, users, np.ones(len(gain)), DIFFERENCE_PSEUDO_USERS)
        low, high = (float(limit[0]) for limit in estimate.limits(-1))
        p = float(stdtr(estimate.freedom, -estimate.mean[0] / estimate.error[0]))
    return PairedComparison(difference, difference / base if base else float("nan"), low, high, p)


def p_of_best(gains: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(mean gain [m], one-sided p [m]) of m rankers compared with one reference ranker on n users.

    `gains` [n, m] are sums over each user's weeks and `weight` [n] what these weeks count. p is the chance that any of
    m rankers that are no better would show so large a t: Dunnett 1955, "A multiple comparison procedure for comparing
    several treatments with a control", with the correlation that is observed. 1 where nothing differs, or for fewer
    than two users. Draws are seeded.

    >>> mean, p = p_of_best(np.array([[0.5, 0.0], [0.25, 0.0], [0.5, 0.0], [0.25, 0.0]]), np.ones(4))
    >>> mean.tolist(), p.round(2).tolist()
    ([0.375, 0.0], [0.01, 1.0])
    """
    n, m = gains.shape
    if n < 2 or not weight.sum():
        return np.zeros(m), np.ones(m)
    mean = gains.sum(0) / weight.sum()
    residual = gains - mean * weight[:, None]
    # No matrix product: its sum may depend on the number of threads.
    covariance = (residual[:, :, None] * residual[:, None, :]).sum(0) * n / (n - 1) / weight.sum() ** 2
    error = np.sqrt(np.diag(covariance))
    differs = error > 0
    if not differs.any():
        return mean, np.where(mean > 0, 0.0, 1.0)
    freedom = max(weight.sum() ** 2 / (weight**2).sum() - 1, 1.0)
    scale = error[differs]
    values, vectors = np.linalg.eigh(covariance[np.ix_(differs, differs)] / np.outer(scale, scale))
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((DRAWS, len(scale))) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    largest = drawn.max(1) / np.sqrt(rng.chisquare(freedom, DRAWS) / freedom)
    p = np.where(mean > 0, 0.0, 1.0)
    p[differs] = (largest[:, None] >= mean[differs] / scale).mean(0)
    return mean, p


def _limits(
    sums: FloatArray, users: FloatArray | IntArray, repeats: FloatArray | IntArray
) -> tuple[FloatArray, FloatArray]:
    if repeats.sum() < 2:
        return np.full(sums.shape[1], np.nan), np.full(sums.shape[1], np.nan)
    return _estimate(sums, users, repeats, MEAN_PSEUDO_USERS).limits(0)


def _estimate(
    sums: FloatArray, users: FloatArray | IntArray, repeats: FloatArray | IntArray, pseudo: PseudoUsers
) -> _Estimate:
    """The ratio of the `sums` [n, m] of clusters to their `users` [n], each cluster being there `repeats` [n]."""
    value, number = (np.array(part)[:, None] for part in zip(*pseudo, strict=True))
    clusters, total = repeats.sum() + number.sum(), (users * repeats).sum() + number.sum()
    mean = ((sums * repeats[:, None]).sum(0) + (value * number).sum()) / total
    squares = ((sums - mean * users[:, None]) ** 2 * repeats[:, None]).sum(0) + ((value - mean) ** 2 * number).sum(0)
    error = np.sqrt(squares * clusters / (clusters - 1)) / total
    return _Estimate(mean, error, float(clusters - 1))
