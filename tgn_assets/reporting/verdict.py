"""Whether the lists of a week were better than the best baseline, in one line, for the report and the UI."""

from math import isfinite
from typing import NamedTuple

import pandas as pd

from tgn_assets.ml.evaluation.summary import lift_over_best
from tgn_assets.ml.schema import OURS

AGAINST_BASELINE = {
    "better": "better than the best baseline",
    "worse": "worse than the best baseline",
    "same": "no clear difference from the best baseline",
    "unknown": "too few users to compare with the baselines",
}
"""What is said by `Difference.word`."""


class Difference(NamedTuple):
    """A difference and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """better, worse, or same if the interval contains zero; unknown without an interval."""
        if not (isfinite(self.low) and isfinite(self.high)):
            return "unknown"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "same"

    def __str__(self) -> str:
        known = isfinite(self.low) and isfinite(self.high)
        return signed(self.value) + (f" [{signed(self.low)}, {signed(self.high)}]" if known else "")


class Ndcg(NamedTuple):
    """A mean NDCG over `users`, with its 95% interval; NaN if it has none."""

    value: float
    low: float
    high: float
    users: int

    @property
    def margin(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.4f}" + (f" [{self.low:.4f}, {self.high:.4f}]" if isfinite(self.margin) else "")


def verdict(metrics: pd.DataFrame, metric: str) -> str:
    """Our NDCG, called `metric`, of a week's rows of `eval_metrics`, with its interval, beside the best baseline's.

    The difference is over the drawn users, and says so where these were not all.
    """
    if (ours := ndcg(metrics)) is None:
        return "no score: nobody was active in this week"
    scored, lift = f"{metric} {ours} over {ours.users:,} active users", lift_over_best(metrics)
    if lift is None:
        return f"{scored}: {AGAINST_BASELINE['unknown']}"
    difference = Difference(lift.value, lift.ci_low, lift.ci_high)
    drawn = f" with {lift.users:,} drawn ones" if lift.users < ours.users else ""
    return f"{scored}: {AGAINST_BASELINE[difference.word]}, {lift.baseline} ({difference}{drawn})"


def ndcg(metrics: pd.DataFrame, segment: str = "all", model: str = OURS) -> Ndcg | None:
    """The NDCG of `model` in `segment`; None if nobody was scored."""
    row = metrics[(metrics.model == model) & (metrics.segment == segment) & (metrics.metric == "ndcg")]
    if row.empty or not isfinite(row.value.iloc[0]):
        return None
    value, low, high, users = row[["value", "ci_low", "ci_high", "users"]].to_numpy(float)[0]
    return Ndcg(value, low, high, int(users))


def signed(value: float) -> str:
    """`value` with its sign, and a typographic minus; a value that rounds to zero has no sign."""
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
