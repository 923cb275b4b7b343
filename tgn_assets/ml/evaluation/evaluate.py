"""What a closed week says about the lists published for it: one table, ours beside the baselines and the ceiling.

To add a value per user's list, enter it in `RANKING_METRICS`: every model gets its mean in every segment. To add any
other number about the week, write a function that yields rows and enter it in `MEASURES`.

Our lists are scored with all active users. All other lists have to be made first: they are scored with the users who
were drawn, and so are ours once more, under `drawn:<metric>`, where that was not everybody. Numbers are comparable if
they are over the same users.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np
import pandas as pd

from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.evaluation_input import BINS, ONE
from tgn_assets.ml.evaluation.intervals import mean_interval, paired_comparison, weighted_mean
from tgn_assets.ml.evaluation.metric_names import CANDIDATES, DRAWN, RANKING_METRICS
from tgn_assets.ml.evaluation.metrics import catalogue_coverage
from tgn_assets.ml.evaluation.scored_week import ScoredWeek
from tgn_assets.ml.schema import OURS, TABLES

COLUMNS = TABLES["eval_metrics"].names
GROUP_COLUMNS = TABLES["eval_user_groups"].names
GROUPED_SEGMENTS = ("all", "seen")
NAN = float("nan")
Row = tuple[str, str, str, float, float, float, int]
"""`COLUMNS` without the week."""


def evaluate_week(week: ScoredWeek) -> pd.DataFrame:
    """The rows of all `MEASURES`, as the table `eval_metrics` holds them.

    With the diagnostics of the ranker there are two more models, `candidates` and `without_fallback` (`metric_names`):
    a point lost lies between ceiling and candidates (recall), candidates and without_fallback (ranking), or
    without_fallback and ours (the fallback). `users` counts the users that the value is over: of the segment, all who
    were active or those who were drawn. Where there are none, values are NaN (NULL in the warehouse); so are the
    intervals of a single user.
    """
    rows = [(week.week, *row) for measure in MEASURES for row in measure(week)]
    return pd.DataFrame(rows, columns=COLUMNS)


def user_groups(week: ScoredWeek) -> pd.DataFrame:
    """The rows of `eval_user_groups`: every model's sum of NDCG over the drawn users of each group."""
    group, parts = week.drawn.user_group, []
    for segment in GROUPED_SEGMENTS:
        members = week.segments[segment]
        groups, group_index = np.unique(group[members], return_inverse=True)
        for model, metrics in week.metrics.items():
            sums = np.bincount(group_index, metrics.ndcg[members], len(groups))
            columns = (week.week, model, segment, groups, sums, np.bincount(group_index, minlength=len(groups)))
            parts.append(pd.DataFrame(dict(zip(GROUP_COLUMNS, columns, strict=True))))
    return pd.concat(parts, ignore_index=True)


def calibration(week: ScoredWeek) -> Iterator[Row]:
    """How far published scores are probabilities: of all published pairs of all users, active or not, and in the
    segment `new` of the list for new users, once for each of them.

    `brier`: mean squared difference between score and what happened (1 interacted with, 0 not); `brier_constant`: the
    same had every score been the mean frequency; `brier_skill`: by what share brier is below that, which no constant
    score is; `predicted:<bin>` and `observed:<bin>`: mean score and frequency of the pairs whose score lies in the bin.
    `users` counts pairs in these rows."""
    for segment, bins in {"all": week.published.bins, "new": week.published.new_user_bins}.items():
        if not (pairs := sum(of_bin.pairs for of_bin in bins)):
            continue
        frequency = sum(of_bin.hits for of_bin in bins) / pairs
        brier = float(Fraction(sum(of_bin.errors for of_bin in bins), pairs * ONE))
        constant = frequency * (1 - frequency)
        yield _number(OURS, segment, "brier", brier, pairs)
        yield _number(OURS, segment, "brier_constant", constant, pairs)
        yield _number(OURS, segment, "brier_skill", 1 - brier / constant if constant else NAN, pairs)
        for of_bin in bins:
            name = f"{BINS[of_bin.bin]:g}-{BINS[of_bin.bin + 1]:g}"
            predicted = float(Fraction(of_bin.scores, of_bin.pairs * ONE))
            yield _number(OURS, segment, f"predicted:{name}", predicted, of_bin.pairs)
            yield _number(OURS, segment, f"observed:{name}", of_bin.hits / of_bin.pairs, of_bin.pairs)


def hit_rate_by_reason(week: ScoredWeek) -> Iterator[Row]:
    """`hit_rate:<kind>`: share of the pairs on active users' lists with a reason of that kind that the user interacted
    with; `users` counts pairs."""
    for of_kind in week.published.reasons:
        yield _number(OURS, "all", f"hit_rate:{of_kind.kind}", of_kind.hits / of_kind.pairs, of_kind.pairs)


def candidate_recall(week: ScoredWeek) -> Iterator[Row]:
    """`candidate_recall`: share of a user's events that were among the user's candidates, mean over the users seen
    before; `candidate_recall:<channel>`: the share that one channel retrieved. None without diagnostics."""
    if week.retrieved is None:
        return
    names, row, channels = week.retrieved
    seen = np.flatnonzero(week.active.position >= 0)
    size = np.bincount(week.active.row, minlength=len(week.active))[seen]
    by_channel = {f"candidate_recall:{name}": channels[:, at] for at, name in enumerate(names)}
    for metric, had in {"candidate_recall": channels.any(1), **by_channel}.items():
        share = np.bincount(row, had, len(week.active))[seen] / size
        yield _number(CANDIDATES, "seen", metric, float(share.mean()) if len(seen) else NAN, len(seen))


def list_metrics(week: ScoredWeek) -> Iterator[Row]:
    """Each of `RANKING_METRICS` for every model in every segment: its mean over users and the 95% interval of the mean.

    Ours are over all active users; where not all of them were drawn, `drawn:<metric>` are ours over those who were.
    """
    for segment, members in week.segments_of_kinds.items() if week.is_sample else ():
        number = week.published.kinds.users.to_numpy()[members]
        mean, low, high = weighted_mean(week.metrics_of_kinds[members].to_numpy(), number)
        for metric, m, a, b in zip(RANKING_METRICS, mean, low, high, strict=True):
            yield OURS, segment, metric, float(m), float(a), float(b), int(number.sum())
    ours = DRAWN if week.is_sample else ""
    for segment, members in week.segments.items():
        values = np.hstack([of_model[members].to_numpy() for of_model in week.metrics.values()])
        mean = values.mean(0) if len(values) else np.full(values.shape[1], NAN)
        low, high = mean_interval(values)
        names = [
            (model, segment, (ours if model == OURS else "") + metric)
            for model in week.metrics
            for metric in RANKING_METRICS
        ]
        for name, m, a, b in zip(names, mean, low, high, strict=True):
            yield (*name, float(m), float(a), float(b), len(values))


def lifts(week: ScoredWeek) -> Iterator[Row]:
    """In the rows of a baseline, by segment. `ndcg_lift`: our NDCG minus the baseline's, with its paired interval;
    `ndcg_lift_relative`: the same divided by the baseline's; `ndcg_lift_p`: one-sided p of no gain."""
    for segment, members in week.segments.items():
        ours = week.metrics[OURS][members].ndcg.to_numpy()
        for baseline in BASELINES:
            lift = paired_comparison(ours, week.metrics[baseline][members].ndcg.to_numpy())
            yield (baseline, segment, "ndcg_lift", lift.difference, lift.ci_low, lift.ci_high, len(ours))
            yield _number(baseline, segment, "ndcg_lift_relative", lift.relative, len(ours))
            yield _number(baseline, segment, "ndcg_lift_p", lift.p, len(ours))


def served(week: ScoredWeek) -> Iterator[Row]:
    """`served`, by segment: share of the active users who had a list of their own. A count, without an interval."""
    kinds = week.published.kinds
    for segment, members in week.segments_of_kinds.items():
        yield _share(segment, "served", kinds.users[members & kinds.source.notna()], kinds.users[members])


def coverage(week: ScoredWeek) -> Iterator[Row]:
    """`coverage` of ours and each baseline: share of the known events that the lists of the active users hold.

    It grows with the number of users: of ours, only `drawn:coverage` can be compared with that of drawn users.
    """
    known = week.history.num_events
    if week.is_sample:
        value = week.published.distinct_events / known if known else NAN
        yield _number(OURS, "all", "coverage", value, week.published.users)
    for model in (OURS, *BASELINES):
        value = catalogue_coverage(week.lists[model], known) if len(week.active) else NAN
        metric = f"{DRAWN}coverage" if week.is_sample and model == OURS else "coverage"
        yield _number(model, "all", metric, value, len(week.active))


def shares_of_sources(week: ScoredWeek) -> Iterator[Row]:
    """`share_of_source:<name>`: share of the active users whose list came from that source."""
    kinds = week.published.kinds
    for source in week.published.sources:
        yield _share("all", f"share_of_source:{source}", kinds.users[kinds.source == source], kinds.users)


def overlap(week: ScoredWeek) -> Iterator[Row]:
    """`overlap`: share of the events of an active user's list that were on the user's list of the week before as well,
    mean over the users who had both; none without lists of that week."""
    of_users = week.published.overlap
    if len(of_users):
        share = (of_users.common / of_users.listed).to_numpy().round(6)
        mean, low, high = weighted_mean(share[:, None], of_users.users.to_numpy())
        yield OURS, "all", "overlap", float(mean[0]), float(low[0]), float(high[0]), int(of_users.users.sum())


MEASURES: tuple[Callable[[ScoredWeek], Iterable[Row]], ...]
MEASURES = (
    *(calibration, hit_rate_by_reason, candidate_recall, list_metrics, lifts, served, coverage, shares_of_sources),
    overlap,
)
"""What is measured of a week."""


def _number(model: str, segment: str, metric: str, value: float, users: int) -> Row:
    """A row without an interval."""
    return model, segment, metric, value, NAN, NAN, users


def _share(segment: str, metric: str, some: pd.Series, users: pd.Series) -> Row:
    """`some` of `users`, numbers of users by kind, as a share."""
    number = int(users.sum())
    return _number(OURS, segment, metric, int(some.sum()) / number if number else NAN, number)
