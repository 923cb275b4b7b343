"""The headline of the weekly report: what the numbers of a week mean, in plain words."""

from typing import NamedTuple

from tgn_assets.ml.evaluation.summary import lift_over_best
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.terminal import NDCG
from tgn_assets.reporting.verdict import AGAINST_BASELINE, Difference, ndcg
from tgn_assets.reporting.weekly_page.queries import Facts

NAMES = {
    OURS: "ours",
    "popular": "popular",
    "repeat": "repeat",
    "item_knn": "item-kNN",
    "item_knn_new": "item-kNN, new events only",
}
"""The names on the page of the models of `eval_metrics` and of the sources of lists; others keep theirs."""

SEGMENT_NAMES = {
    "all": "all active users",
    "seen": "with earlier interactions",
    "repeat": "repeated an event",
    "explore": "interacted with an event that was new to them",
    "new": "without earlier interactions",
    "left_out": "left out, as they had been silent for too long",
}

SINCE_LAST_WEEK = {
    "better": "better than last week",
    "worse": "worse than last week",
    "same": "no clear change since last week",
    "unknown": "no score of last week",
}
"""What a title says, by `Difference.word`."""


class Headline(NamedTuple):
    """`tone` compares with the best baseline: better, worse, same or unknown."""

    title: str
    tone: str
    sentences: list[str]


def headline(facts: Facts, metric: str = NDCG) -> Headline:
    """Compares the week with the one before and with the best baseline, and says whose lists were published."""
    lists = [lists_sentence(facts), *([f"{facts.left_out}."] if facts.left_out else [])]
    if (ours := ndcg(facts.metrics)) is None:
        why = f"Nobody was active in the week of {facts.week}, so the lists made for it have no score."
        if facts.metrics.empty:
            why = (
                f"No lists were published for the week of {facts.week}, so there is nothing to score: the first score "
                "comes one week after the first lists."
            )
        return Headline("This week has no score", "unknown", [why, *lists])
    sentences = [
        f"The lists for the week of {facts.week} scored {metric} {ours} over the {ours.users:,} users who were active "
        "in it."
    ]
    lift, change = lift_over_best(facts.metrics), change_since(facts)
    difference = Difference(lift.value, lift.ci_low, lift.ci_high) if lift else None
    if lift:
        drawn = f" with {lift.users:,} of them, drawn" if lift.users < ours.users else ""
        best = NAMES.get(lift.baseline, lift.baseline)
        sentences.append(f"Compared with the best baseline, {best}{drawn}: {difference}.")
    sentences.append(
        f"Compared with the week before: {change}; other users were active then, so this compares weeks as well as "
        "lists."
        if change
        else "The week before has no score to compare with."
    )
    tone, since = (compared.word if compared else "unknown" for compared in (difference, change))
    return Headline(f"{AGAINST_BASELINE[tone].capitalize()}; {SINCE_LAST_WEEK[since]}", tone, [*sentences, *lists])


def change_since(facts: Facts) -> Difference | None:
    """NDCG of this week minus that of the week before, taken as independent."""
    now, before = ndcg(facts.metrics), ndcg(facts.metrics_before)
    if now is None or before is None:
        return None
    value, margin = now.value - before.value, (now.margin**2 + before.margin**2) ** 0.5
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
        f"{out}, all from baselines ({named}): they beat the ranker in the last closed weeks, or the log "
        "is too young to learn from (it takes three weeks)."
    )
