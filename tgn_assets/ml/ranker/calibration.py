"""From a ranker's shares to probabilities: how likely is it that the user touches the event in the week to come?

A softmax over a user's candidates says which event, as if the user were certain to come back. Most users are not. How
likely they are, their past says, and many closed weeks can be learnt from; how far the ranker's shares can be trusted
is known for the newest closed week alone, the one that the ranker has not learnt from.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

MIN_SLOPE = 0.05
"""Least weight of the share: a better rank is never given a lower probability."""
RIDGE = 1.0
SMALLEST_SHARE = 1e-9


@dataclass(frozen=True)
class Logistic:
    """logit p = intercept + inputs . weights"""

    intercept: float
    weights: list[float]

    def logit(self, inputs: np.ndarray) -> np.ndarray:
        """[n] for inputs [n, m]."""
        return self.intercept + inputs @ np.array(self.weights)


@dataclass(frozen=True)
class Calibration:
    """`activity`: will the user be active, from the user's features. `touch`: will the user touch the event, from the
    logarithm of its share and the logit of the user's activity."""

    activity: Logistic
    touch: Logistic

    def probability(self, share: np.ndarray, user_features: np.ndarray) -> np.ndarray:
        """[p] for shares [p] of a list's softmax and features [p, F] of the users they are for."""
        return expit(self.touch.logit(_inputs(share, self.activity.logit(user_features))))

    def to_meta(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "Calibration":
        return cls(Logistic(**meta["activity"]), Logistic(**meta["touch"]))


def fit_activity(user_features: np.ndarray, active: np.ndarray) -> Logistic:
    """From the features [n, F] of users at the close of past weeks, and whether they were active in the week after."""
    mean, scale = user_features.mean(0), np.maximum(user_features.std(0), 1e-3)
    found = _fit((user_features - mean) / scale, active, np.zeros(user_features.shape[1]))
    weights = np.array(found.weights) / scale
    return Logistic(float(found.intercept - mean @ weights), weights.tolist())


def calibrate(activity: Logistic, share: np.ndarray, user_features: np.ndarray, touched: np.ndarray) -> Calibration:
    """Fitted to pairs of a closed week: their share [p], user features [p, F], and whether they were touched [p].

    The pairs must be those of all users, the ones who stayed away included, and from a ranker that has not learnt from
    that week. After Platt, "Probabilistic outputs for support vector machines", 1999, with a second input.
    """
    # Until the data say otherwise, shares and activity are taken at their word: a prior of one for both.
    inputs = _inputs(share, activity.logit(user_features))
    return Calibration(activity, _fit(inputs, touched, np.ones(2), least=(MIN_SLOPE, MIN_SLOPE)))


def _fit(inputs: np.ndarray, happened: np.ndarray, prior: np.ndarray, least: tuple[float, ...] = ()) -> Logistic:
    """Logistic regression with a ridge penalty towards `prior`; the first weights are at least `least`."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = weights[0] + inputs @ weights[1:]
        off = weights[1:] - prior
        value = np.logaddexp(0, logit).sum() - logit[happened].sum() + RIDGE * off @ off / 2
        error = expit(logit) - happened
        return value, np.append(error.sum(), error @ inputs + RIDGE * off)

    bounds = [(None, None), *((low, None) for low in least), *[(None, None)] * (len(prior) - len(least))]
    found = minimize(loss, np.append(0.0, prior), jac=True, bounds=bounds, method="L-BFGS-B").x
    return Logistic(float(found[0]), found[1:].tolist())


def _inputs(share: np.ndarray, activity: np.ndarray) -> np.ndarray:
    return np.column_stack([np.log(np.maximum(share, SMALLEST_SHARE)), activity])
