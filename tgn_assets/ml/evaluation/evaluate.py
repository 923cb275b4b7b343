"""What a closed week says about the lists published for it: one table, ours beside the baselines and the ceiling.

To add a value per user's list, write a function of `metrics.METRICS`: every model gets its mean in every segment. To
add any other number about the week, write a function that yields rows and enter it in `MEASURES`.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import BoolArray
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.metric_names import CANDIDATES, with_former_names
from tgn_assets.ml.evaluation.metrics import METRICS, catalogue_coverage, mean_interval, paired_bootstrap
from tgn_assets.ml.evaluation.scored_week import ScoredWeek, look_up, made_by
from tgn_assets.ml.schema import OURS, TABLES

COLUMNS = TABLES["eval_metrics"].names
NAN = float("nan")
Row = tuple[str, str, str, float, float, float, int]
"""`COLUMNS` without the week."""

BINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Edges of the bins of published scores in which predicted and observed frequency are compared."""


def evaluate_week(week: ScoredWeek) -> pd.DataFrame:
    """The rows of all `MEASURES`, as the table `eval_metrics` holds them.

    With the diagnostics of the ranker there are two more models, `candidates` and `without_fallback` (`metric_names`):
    a point lost lies between ceiling and candidates (recall), candidates and without_fallback (ranking), or
    without_fallback and ours (the fallback). `users` counts the active users of the segment. Where there are none,
    values are NaN (NULL in the warehouse); so are the intervals of a single user.
    """
    rows = [(week.week, *row) for measure in MEASURES for row in measure(week)]
    return with_former_names(pd.DataFrame(rows, columns=COLUMNS))


def calibration(week: ScoredWeek) -> Iterator[Row]:
    """`brier`: mean squared difference between score and what happened (1 interacted with, 0 not), over all published
    pairs of all users, active or not; `brier_constant`: the same had every score been the mean frequency;
    `predicted:<bin>` and `observed:<bin>`: mean score and frequency of the pairs whose score lies in the bin. `users`
    counts pairs in these rows. There are none if the predictions have no score."""
    predictions, truth = week.predictions, week.truth
    if "score" not in predictions or predictions.empty:
        return
    users, events = (pd.Index(truth[name].unique(), dtype=object) for name in ("user_id", "event_id"))
    (user, event), happened = (
        (look_up(users, frame.user_id), look_up(events, frame.event_id)) for frame in (predictions, truth)
    )
    pairs = np.where((user < 0) | (event < 0), -1, user * len(events) + event)
    hit = np.isin(pairs, happened[0] * len(events) + happened[1]).astype(float)
    score = predictions.score.to_numpy(float)
    frequency = hit.mean()
    yield _number(OURS, "all", "brier", float(((score - hit) ** 2).mean()), len(score))
    yield _number(OURS, "all", "brier_constant", float(frequency * (1 - frequency)), len(score))
    bins = np.digitize(score, BINS[1:-1])
    for at in np.unique(bins):
        name, here = f"{BINS[at]:g}-{BINS[at + 1]:g}", bins == at
        yield _number(OURS, "all", f"predicted:{name}", float(score[here].mean()), int(here.sum()))
        yield _number(OURS, "all", f"observed:{name}", float(hit[here].mean()), int(here.sum()))


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
    """Each of `METRICS` for every model in every segment: its mean over users and the 95% interval of the mean."""
    for segment, members in week.segments.items():
        values = np.hstack([of_model[members].to_numpy() for of_model in week.metrics.values()])
        mean = values.mean(0) if len(values) else np.full(values.shape[1], NAN)
        low, high = (np.clip(limits, 0, 1) for limits in mean_interval(values))  # the normal interval may lie beyond
        names = [(model, segment, metric) for model in week.metrics for metric in METRICS]
        for name, m, a, b in zip(names, mean, low, high, strict=True):
            yield (*name, float(m), float(a), float(b), len(values))


def lifts(week: ScoredWeek) -> Iterator[Row]:
    """In the rows of a baseline, by segment. `ndcg_lift`: our NDCG minus the baseline's, with its paired interval;
    `ndcg_lift_relative`: the same divided by the baseline's; `ndcg_lift_p`: share of resamples without a gain."""
    for segment, members in week.segments.items():
        ours = week.metrics[OURS][members].ndcg.to_numpy()
        for baseline in BASELINES:
            lift = paired_bootstrap(ours, week.metrics[baseline][members].ndcg.to_numpy())
            yield (baseline, segment, "ndcg_lift", lift.difference, lift.ci_low, lift.ci_high, len(ours))
            yield _number(baseline, segment, "ndcg_lift_relative", lift.relative, len(ours))
            yield _number(baseline, segment, "ndcg_lift_p", lift.p, len(ours))


def served(week: ScoredWeek) -> Iterator[Row]:
    """`served`, by segment: share of the active users who had a list of their own. A count, without an interval."""
    for segment, members in week.segments.items():
        yield _number(OURS, segment, "served", _mean(week.served[members]), int(members.sum()))


def coverage(week: ScoredWeek) -> Iterator[Row]:
    """`coverage` of ours and each baseline: share of the known events that the lists of the active users hold."""
    for model in (OURS, *BASELINES):
        value = catalogue_coverage(week.lists[model], week.history.num_events) if len(week.active) else NAN
        yield _number(model, "all", "coverage", value, len(week.active))


def shares_of_sources(week: ScoredWeek) -> Iterator[Row]:
    """`share_of_source:<name>`: share of the active users whose list came from that source."""
    for source in sorted(week.predictions.source.unique()) if "source" in week.predictions else []:
        yield _number(
            OURS,
            "all",
            f"share_of_source:{source}",
            _mean(made_by(source, week.predictions, week.active.ids)),
            len(week.active),
        )


MEASURES: tuple[Callable[[ScoredWeek], Iterable[Row]], ...]
MEASURES = (calibration, candidate_recall, list_metrics, lifts, served, coverage, shares_of_sources)
"""What is measured of a week."""


def _number(model: str, segment: str, metric: str, value: float, users: int) -> Row:
    """A row without an interval."""
    return model, segment, metric, value, NAN, NAN, users


def _mean(flags: BoolArray) -> float:
    return float(flags.mean()) if len(flags) else NAN
