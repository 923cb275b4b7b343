"""The headline: what the numbers of a week mean, in plain words."""

from dataclasses import dataclass, field
from math import isfinite

import pandas as pd

from tgn_assets.ml.evaluation.summary import lift_over_best
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.weekly_page.queries import Facts

NDCG = "NDCG@5"
"""As it is called where lists have the usual length."""

NAMES = {
    OURS: "ours",
    "popular": "popular",
    "repeat": "repeat",
    "item_knn": "item-kNN",
    "item_knn_new": "item-kNN, new events only",
}
"""What the models of `eval_metrics` and the sources of lists are called on the page."""

SEGMENTS = {
    "all": "all active users",
    "seen": "with a history",
    "repeat": "came back to an event of their own",
    "explore": "met an event that was new to them",
    "new": "without a history",
}


@dataclass(frozen=True)
class Difference:
    """A difference and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """better, worse, or same where the interval holds zero; unknown without an interval."""
        if not (isfinite(self.low) and isfinite(self.high)):
            return "unknown"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "same"

    def __str__(self) -> str:
        return f"{signed(self.value)} [{signed(self.low)}, {signed(self.high)}]"


@dataclass(frozen=True)
class Headline:
    """`tone` is better, worse, same or unknown, against the best simple rule."""

    title: str
    tone: str = "unknown"
    sentences: list[str] = field(default_factory=list)


def headline(facts: Facts, metric: str = NDCG) -> Headline:
    """Better or worse than last week and than the best simple rule by the `metric`, and whose lists are out."""
    lists = lists_sentence(facts)
    if facts.metrics.empty:
        why = (
            f"No lists were published for the week of {facts.week}, so there is nothing to score: the first score "
            "comes one week after the first lists."
        )
        return Headline("This week has no score", sentences=[why, lists])
    ours = ndcg(facts.metrics)
    if ours is None:
        nobody = f"Nobody was active in the week of {facts.week}, so the lists made for it have no score."
        return Headline("This week has no score", sentences=[nobody, lists])
    value, margin, users = ours
    sentences = [
        f"The lists for the week of {facts.week} scored {metric} {value:.4f}"
        + (f" [{value - margin:.4f}, {value + margin:.4f}]" if isfinite(margin) else "")
        + f" over the {users:,} users who were active in it."
    ]
    lift, change = lift_over_best(facts.metrics), change_since(facts)
    against_rule = Difference(lift.value, lift.ci_low, lift.ci_high) if lift else None
    if lift and against_rule:
        sentences.append(f"Against the best simple rule, {NAMES.get(lift.baseline, lift.baseline)}: {against_rule}.")
    if change:
        sentences.append(
            f"Against the week before: {change}; other users were active then, so this compares weeks, not only lists."
        )
    else:
        sentences.append("The week before has no score, so there is nothing to hold this one against.")
    return Headline(_title(against_rule, change), against_rule.word if against_rule else "unknown", [*sentences, lists])


def ndcg(metrics: pd.DataFrame, segment: str = "all", model: str = OURS) -> tuple[float, float, int] | None:
    """NDCG, half of its 95% interval (NaN if it has none) and the users; None if nobody was scored."""
    row = metrics[(metrics.model == model) & (metrics.segment == segment) & (metrics.metric == "ndcg")]
    if row.empty or not isfinite(row.value.iloc[0]):
        return None
    value, low, high, users = row[["value", "ci_low", "ci_high", "users"]].to_numpy(float)[0]
    return value, (high - low) / 2, int(users)


def change_since(facts: Facts) -> Difference | None:
    """NDCG of this week minus that of the week before, whose users are taken as other ones."""
    now, before = ndcg(facts.metrics), ndcg(facts.metrics_before)
    if now is None or before is None:
        return None
    margin = (now[1] ** 2 + before[1] ** 2) ** 0.5
    value = now[0] - before[0]
    return Difference(value, value - margin, value + margin)


def lists_sentence(facts: Facts) -> str:
    """Who made the lists that were published when the week closed."""
    users, target = sum(facts.lists.values()), shift(facts.week, 1)
    if not users:
        again = f"run `tgn refresh --week {facts.week}` if there should be some"
        return f"No user has a list for the week of {target}: {again}."
    out = f"{users:,} {'user has' if users == 1 else 'users have'} a list for the week of {target}"
    rules = {source: lists for source, lists in facts.lists.items() if source != OURS}
    if not rules:
        return f"{out}, each made by the ranker."
    named = ", ".join(f"{NAMES.get(source, source)} {lists / users:.0%}" for source, lists in rules.items())
    if OURS in facts.lists:
        share = facts.lists[OURS] / users
        return f"{out}: the ranker made {share:.0%} of them, simple rules the others ({named})."
    return (
        f"{out}, all from simple rules ({named}): the ranker did not beat them on the newest closed week, or the log "
        "is too young to learn from (it takes three weeks)."
    )


def signed(value: float) -> str:
    """`value` with its sign, and a real minus; what rounds to nothing has none."""
    said = f"{value:+.4f}"
    return said[1:] if float(said) == 0 else said.replace("-", "\N{MINUS SIGN}")


def _title(rule: Difference | None, change: Difference | None) -> str:
    against_rule = {
        "better": "Better than the best simple rule",
        "worse": "Worse than the best simple rule",
        "same": "No clear difference from the best simple rule",
        "unknown": "Too few users to compare with the simple rules",
    }[rule.word if rule else "unknown"]
    since = {
        "better": "better than last week",
        "worse": "worse than last week",
        "same": "no clear change since last week",
        "unknown": "nothing to say about last week",
    }[change.word if change else "unknown"]
    return f"{against_rule}; {since}"
