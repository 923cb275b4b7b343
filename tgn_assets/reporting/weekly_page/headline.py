"""The headline of the weekly report: what the numbers of a week mean, in plain words."""

from math import isfinite
from typing import NamedTuple

import pandas as pd

from tgn_assets.ml.evaluation.summary import lift_over_best
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.terminal import NDCG
from tgn_assets.reporting.weekly_page.queries import Facts

NAMES = {
    OURS: "ours",
    "popular": "popular",
    "repeat": "repeat",
    "item_knn": "item-kNN",
    "item_knn_new": "item-kNN, new events only",
}
"""The names on the page of the models of `eval_metrics` and of the sources of lists."""

SEGMENT_NAMES = {
    "all": "all active users",
    "seen": "with earlier interactions",
    "repeat": "repeated an event",
    "explore": "interacted with an event that was new to them",
    "new": "without earlier interactions",
}

AGAINST_BASELINE = {
    "better": "Better than the best baseline",
    "worse": "Worse than the best baseline",
    "same": "No clear difference from the best baseline",
    "unknown": "Too few users to compare with the baselines",
}
SINCE_LAST_WEEK = {
    "better": "better than last week",
    "worse": "worse than last week",
    "same": "no clear change since last week",
    "unknown": "no score of last week",
}
"""What a title says, by `Difference.word`."""


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
        return f"{signed(self.value)} [{signed(self.low)}, {signed(self.high)}]"


class Headline(NamedTuple):
    """`tone` compares with the best baseline: better, worse, same or unknown."""

    title: str
    tone: str
    sentences: list[str]


def headline(facts: Facts, metric: str = NDCG) -> Headline:
    """Compares the week with the one before and with the best baseline, and says whose lists were published."""
    lists = lists_sentence(facts)
    if (ours := ndcg(facts.metrics)) is None:
        why = f"Nobody was active in the week of {facts.week}, so the lists made for it have no score."
        if facts.metrics.empty:
            why = (
                f"No lists were published for the week of {facts.week}, so there is nothing to score: the first score "
                "comes one week after the first lists."
            )
        return Headline("This week has no score", "unknown", [why, lists])
    value, margin, users = ours
    interval = f" [{value - margin:.4f}, {value + margin:.4f}]" if isfinite(margin) else ""
    scored = f"The lists for the week of {facts.week} scored {metric} {value:.4f}{interval}"
    sentences = [f"{scored} over the {users:,} users who were active in it."]
    lift, change = lift_over_best(facts.metrics), change_since(facts)
    difference = Difference(lift.value, lift.ci_low, lift.ci_high) if lift else None
    if lift:
        sentences.append(f"Compared with the best baseline, {NAMES.get(lift.baseline, lift.baseline)}: {difference}.")
    sentences.append(
        f"Compared with the week before: {change}; other users were active then, so this compares weeks as well as "
        "lists."
        if change
        else "The week before has no score to compare with."
    )
    tone, since = (compared.word if compared else "unknown" for compared in (difference, change))
    return Headline(f"{AGAINST_BASELINE[tone]}; {SINCE_LAST_WEEK[since]}", tone, [*sentences, lists])


def ndcg(metrics: pd.DataFrame, segment: str = "all", model: str = OURS) -> tuple[float, float, int] | None:
    """NDCG, half of its 95% interval (NaN if it has none) and the users; None if nobody was scored."""
    row = metrics[(metrics.model == model) & (metrics.segment == segment) & (metrics.metric == "ndcg")]
    if row.empty or not isfinite(row.value.iloc[0]):
        return None
    value, low, high, users = row[["value", "ci_low", "ci_high", "users"]].to_numpy(float)[0]
    return value, (high - low) / 2, int(users)


def change_since(facts: Facts) -> Difference | None:
    """NDCG of this week minus that of the week before, taken as independent."""
    now, before = ndcg(facts.metrics), ndcg(facts.metrics_before)
    if now is None or before is None:
        return None
    value, margin = now[0] - before[0], (now[1] ** 2 + before[1] ** 2) ** 0.5
    return Difference(value, value - margin, value + margin)


def lists_sentence(facts: Facts) -> str:
    """Who made the lists that were published at the close of the week."""
    users, target = sum(facts.lists.values()), shift(facts.week, 1)
    if not users:
        again = f"run `tgn refresh --week {facts.week}` if there should be some"
        return f"No user has a list for the week of {target}: {again}."
    out = f"{users:,} {'user has' if users == 1 else 'users have'} a list for the week of {target}"
    baselines = {source: lists for source, lists in facts.lists.items() if source != OURS}
    if not baselines:
        return f"{out}, each made by the ranker."
    named = ", ".join(f"{NAMES.get(source, source)} {lists / users:.0%}" for source, lists in baselines.items())
    if OURS in facts.lists:
        share = facts.lists[OURS] / users
        return f"{out}: the ranker made {share:.0%} of them, baselines the others ({named})."
    return (
        f"{out}, all from baselines ({named}): they beat the ranker on the newest closed week, or the log "
        "is too young to learn from (it takes three weeks)."
    )


def signed(value: float) -> str:
    """`value` with its sign, and a typographic minus; a value that rounds to zero has no sign."""
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
