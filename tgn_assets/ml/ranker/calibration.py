"""From scores to probabilities: how likely is it that the user interacts with the event in the next week?

A softmax over a user's candidates says which event, as if the user were certain to be active. Most users are not. How
likely they are to be active is learned from many closed weeks; how far the ranker's softmax can be trusted is learned
from the weeks that it was judged on, the newest ones of those that it had not learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from tgn_assets.ml.arrays import BoolArray, FloatArray
from tgn_assets.ml.config import CalibrationConfig
from tgn_assets.ml.evaluation.judged_week import JudgedWeek, recency_weights

SMALLEST_SHARE = 1e-9
"""Smaller shares are taken for this one, whose logarithm is finite."""
SMALLEST_STD = 1e-3
"""Smaller standard deviations of a feature are taken for this one."""


@dataclass(frozen=True)
class Logistic:
    """logit p = intercept + inputs . weights, but at least `lowest`."""

    intercept: float
    weights: list[float]
    lowest: float | None = None

    def logit(self, inputs: FloatArray) -> FloatArray:
        """[n] for inputs [n, m]."""
        value = self.intercept + inputs @ np.array(self.weights)
        return value if self.lowest is None else np.maximum(value, self.lowest)


@dataclass(frozen=True)
class Calibration:
    """p = sigmoid(b + w1 * log(share) + w2 * log(P(active))), where share is the softmax share among the user's
    candidates. `activity` gives P(active) from the user's features, `interaction` holds b, w1 and w2.

    With w1 = w2 = 1 the logarithms add up to that of the product. The logit of P(active) in the place of its logarithm
    has no upper bound: scores of the most active users were too high.
    """

    activity: Logistic
    interaction: Logistic

    def probability(self, share: FloatArray, user_features: FloatArray) -> FloatArray:
        """[p] for softmax shares [p] and the features [p, F] of their users."""
        return expit(self.interaction.logit(_inputs(share, self.activity.logit(user_features))))

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "Calibration":
        """From the `dataclasses.asdict` of one."""
        return cls(Logistic(**meta["activity"]), Logistic(**meta["interaction"]))


def fit_activity(user_features: FloatArray, active: BoolArray, *, config: CalibrationConfig) -> Logistic:
    """Fits P(active) to the features [n, F] of users at past cut-offs, and whether they were active in the week after.

    P(active) is at least 1 / (n + 2): Laplace's rule of succession for what none of n users did. Without that bound it
    would fall towards zero for features beyond those seen, such as a silence longer than any before.
    """
    mean, scale = user_features.mean(0), np.maximum(user_features.std(0), SMALLEST_STD)
    inputs, prior = (user_features - mean) / scale, np.zeros(user_features.shape[1])
    fitted = _fit(inputs, active, prior, np.ones(len(active)), ridge=config.ridge)
    weights = np.array(fitted.weights) / scale
    lowest = float(logit(1 / (len(active) + 2)))
    return Logistic(float(fitted.intercept - mean @ weights), weights.tolist(), lowest)


def calibrate(activity: Logistic, judged: Sequence[JudgedWeek], *, config: CalibrationConfig) -> Calibration:
    """Fitted to the pairs of closed weeks, oldest first, whose weight fades.

    The pairs must be those of all users, inactive ones included, and from a ranker that has not learned from their
    week. After Platt, "Probabilistic outputs for support vector machines", 1999, with a second input.
    """
    pairs, least = [one.pairs for one in judged], (config.min_slope, config.min_slope)
    inputs = np.concatenate([_inputs(of.share.astype(float), of.activity.astype(float)) for of in pairs])
    positive = np.concatenate([of.label > 0 for of in pairs])
    weight = np.repeat(recency_weights(judged, config.half_life), [len(of.label) for of in pairs])
    # The prior takes share and activity at face value: a weight of one for both.
    return Calibration(activity, _fit(inputs, positive, np.ones(2), weight, ridge=config.ridge, least=least))


def _fit(
    inputs: FloatArray,
    outcome: BoolArray,
    prior: FloatArray,
    weight: FloatArray,
    *,
    ridge: float,
    least: tuple[float, ...] = (),
) -> Logistic:
    """Logistic regression on rows of `weight` [n], with a ridge penalty towards `prior`; the first weights are at least
    `least`."""

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logit = weights[0] + inputs @ weights[1:]
        off = weights[1:] - prior
        value = (weight * (np.logaddexp(0, logit) - logit * outcome)).sum() + ridge * off @ off / 2
        error = weight * (expit(logit) - outcome)
        # No matrix product: its sum over many rows depends on the number of threads.
        return value, np.append(error.sum(), (error[:, None] * inputs).sum(0) + ridge * off)

    bounds = [(None, None), *((low, None) for low in least), *[(None, None)] * (len(prior) - len(least))]
    fitted = minimize(loss, np.append(0.0, prior), jac=True, bounds=bounds, method="L-BFGS-B").x
    return Logistic(float(fitted[0]), fitted[1:].tolist())


def _inputs(share: FloatArray, activity: FloatArray) -> FloatArray:
    """[n, 2] of softmax shares [n] and the logits of activity [n]."""
    return np.column_stack([np.log(np.maximum(share, SMALLEST_SHARE)), log_expit(activity)])
