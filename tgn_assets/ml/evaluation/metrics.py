"""How good top-k lists are: a value per user, then means over users with their uncertainty.

The values come from `torch_geometric.metrics`, whose definitions are the protocol's: precision divided by k whatever
the list holds, NDCG and MAP against an ideal of min(|truth|, k) hits. Their `compute` gives a mean alone; segments,
intervals and paired comparisons need every user, hence the metrics' per-example hook.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch_geometric import metrics as pyg
from torch_geometric.metrics.link_pred import LinkPredMetricData

from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray

Metric = Callable[[LinkPredMetricData, int], torch.Tensor]
"""(lists and truth of n users, k) -> [n] a value per user; `data.pred_rel_mat` [n, k] is 1 where a list has a hit."""


def _link_pred(metric: type[pyg.LinkPredMetric]) -> Metric:
    """The value per user of one of PyG's metrics."""
    return lambda data, k: metric(k)._compute(data)


METRICS: Mapping[str, Metric] = {
    "precision": _link_pred(pyg.LinkPredPrecision),
    "recall": _link_pred(pyg.LinkPredRecall),
    "ndcg": _link_pred(pyg.LinkPredNDCG),
    "map": _link_pred(pyg.LinkPredMAP),
    "hit_rate": _link_pred(pyg.LinkPredHitRatio),
    "mrr": _link_pred(pyg.LinkPredMRR),
}
"""The registry of ranking metrics, all in [0, 1]: every model of `eval_metrics` gets each of them in each segment."""

RESAMPLES = 1_000
TAILS = np.array([0.025, 0.975])
NORMAL_LIMITS = np.array([NormalDist().inv_cdf(tail) for tail in TAILS])
ROUNDING = 1e-9
"""A mean gain no larger than this is none: the sum of exactly balanced gains and losses need not be exactly zero."""
RESAMPLED_USERS = 5_000
"""With more users an interval is the normal one, which the mean of so many bounded values no longer departs from."""
MICROS = 1_000_000
"""Metrics have six decimals."""
DRAWS = 500_000
"""Users drawn at a time while resampling: bounds the memory."""


def per_user(lists: IntArray, truth_user: IntArray, truth_event: IntArray) -> pd.DataFrame:
    """The `METRICS` of every list: one row per row of `lists`, NaN for a user without truth.

    `lists` [n, k] holds distinct event codes, best first, -1 for an empty place. `truth_user` (a row of `lists`) and
    `truth_event` (an event code), both [m], are distinct pairs. Values are rounded to the six decimals that PyG's
    float32 holds for certain. Raises ValueError if an event is twice in a list, or a pair twice in the truth.

    >>> values = per_user(np.array([[7, 3]]), truth_user=np.array([0]), truth_event=np.array([3]))
    >>> values[["precision", "recall", "mrr"]].to_dict("records")
    [{'precision': 0.5, 'recall': 1.0, 'mrr': 0.5}]
    """
    rows, k = lists.shape
    ordered = np.sort(lists, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("a list holds an event twice")
    nobodys = max(lists.max(initial=-1), truth_event.max(initial=-1)) + 1
    if len(np.unique(truth_user * nobodys + truth_event)) < len(truth_user):
        raise ValueError("a pair is in the truth twice; the truth is the distinct events of each user")
    data = LinkPredMetricData(
        # PyG matches by row * events + event: a -1 would match the last event of the row before.
        pred_index_mat=torch.from_numpy(np.where(lists < 0, nobodys, lists).astype(np.int64)),
        edge_label_index=torch.from_numpy(np.stack([truth_user, truth_event]).astype(np.int64)),
    )
    values = {name: metric(data, k).double().numpy().round(6) for name, metric in METRICS.items()}
    has_truth = np.bincount(truth_user, minlength=rows) > 0
    return pd.DataFrame({name: np.where(has_truth, value, np.nan) for name, value in values.items()})


def from_hits(hits: Sequence[int], num_relevant: IntArray, k: int) -> pd.DataFrame:
    """The `METRICS` of lists of which only their hits are known: bit r - 1 of `hits` [n] is the one at rank r.

    `num_relevant` [n] are the events that the user interacted with.

    >>> from_hits([0b10], np.array([1]), k=2)[["precision", "recall", "mrr"]].to_dict("records")
    [{'precision': 0.5, 'recall': 1.0, 'mrr': 0.5}]
    """
    is_hit = np.array([[bits >> place & 1 for place in range(k)] for bits in hits], bool).reshape(-1, k)
    missed = num_relevant - is_hit.sum(1)
    place_of_miss = np.arange(missed.sum()) - np.repeat(np.cumsum(missed) - missed, missed)
    row, place = np.nonzero(is_hit)
    user = np.append(row, np.repeat(np.arange(len(hits)), missed))
    return per_user(np.tile(np.arange(k), (len(hits), 1)), user, np.append(place, k + place_of_miss))


def perfect_lists(truth_user: IntArray, truth_event: IntArray, reachable: BoolArray, *, rows: int, k: int) -> IntArray:
    """What a ranker that knows the truth would list: up to `k` of each user's `reachable` [m] true events. [rows, k]

    >>> user, event, reachable = np.array([0, 0, 1]), np.array([4, 2, 9]), np.array([True, True, False])
    >>> perfect_lists(user, event, reachable, rows=2, k=3).tolist()
    [[2, 4, -1], [-1, -1, -1]]
    """
    user, event = truth_user[reachable], truth_event[reachable]
    order = np.lexsort((event, user))
    user, event = user[order], event[order]
    rank = np.arange(len(user)) - np.searchsorted(user, user)
    lists = np.full((rows, k), -1)
    lists[user[rank < k], rank[rank < k]] = event[rank < k]
    return lists


def catalogue_coverage(lists: IntArray, num_events: int) -> float:
    """Share of the catalogue, codes 0 to `num_events` - 1, that is in any of the lists; NaN without a catalogue.

    >>> catalogue_coverage(np.array([[0, 1], [0, -1]]), num_events=4)
    0.5
    """
    listed = np.unique(lists)
    return float(((listed >= 0) & (listed < num_events)).sum() / num_events) if num_events else float("nan")


def mean_interval(values: FloatArray, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Lower and upper 95% limit [m] of the mean over users of each column of `values` [n, m].

    Percentile bootstrap over users (Efron and Tibshirani 1993, ch. 13), beyond `RESAMPLED_USERS` users the normal
    interval. NaN for fewer than two users: one user says nothing about how users differ.

    >>> low, high = mean_interval(np.array([[0.2], [0.2], [0.2]]))
    >>> low.round(6).tolist(), high.round(6).tolist()
    ([0.2], [0.2])
    """
    if len(values) < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    if len(values) > RESAMPLED_USERS:
        low, high = values.mean(0) + np.outer(NORMAL_LIMITS, _standard_error(values))
    else:
        low, high = np.quantile(_resampled_means(values, resamples, seed), TAILS, axis=0)
    return low, high


def weighted_mean(values: FloatArray, users: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The mean [m] of `values` [g, m] that `users` [g] users have each, and its limits as of `mean_interval`.

    Values have six decimals, as those of `per_user`: the sums are exact, whatever the order.

    >>> [part.tolist() for part in weighted_mean(np.array([[0.2], [0.6]]), np.array([3, 1]))[:1]]
    [[0.3]]
    """
    number = int(users.sum())
    if not number:
        return (np.full(values.shape[1], np.nan),) * 3
    mean = (np.rint(values * MICROS).astype(np.int64) * users[:, None]).sum(0) / (MICROS * number)
    if number <= RESAMPLED_USERS:
        return (mean, *mean_interval(np.repeat(values, users, axis=0)))
    error = np.sqrt((users[:, None] * (values - mean) ** 2).sum(0) / (number - 1) / number)
    low, high = mean + np.outer(NORMAL_LIMITS, error)
    return mean, low, high


class PairedComparison(NamedTuple):
    """How two rankers differ on the same users; `ci_low`, `ci_high` and `p` are NaN for fewer than two users."""

    difference: float  # mean of ours minus theirs
    relative: float  # difference divided by their mean; NaN where that is 0
    ci_low: float  # 95% limits of the difference
    ci_high: float
    p: float  # share of resamples in which ours is not better: one-sided


def paired_bootstrap(ours: FloatArray, theirs: FloatArray) -> PairedComparison:
    """Compares one metric of two rankers, [n] each, row for row the same user, as `mean_interval` does for one.

    >>> gain = paired_bootstrap(np.array([0.75, 0.5]), np.array([0.5, 0.25]))
    >>> (gain.difference, round(gain.relative, 4), gain.ci_low, gain.ci_high, gain.p)
    (0.25, 0.6667, 0.25, 0.25, 0.0)
    """
    gain = (ours - theirs)[:, None]
    difference = base = low = high = p = float("nan")
    if len(gain):
        difference, base = float(gain.mean()), float(theirs.mean())
    if len(gain) > RESAMPLED_USERS:
        error = float(_standard_error(gain)[0])
        low, high = difference + error * NORMAL_LIMITS
        p = NormalDist().cdf(-difference / error) if error else float(difference <= 0)
    elif len(gain) > 1:
        gains = _resampled_means(gain, RESAMPLES, seed=0)
        low, high = np.quantile(gains, TAILS)
        p = float((gains <= ROUNDING).mean())
    return PairedComparison(difference, difference / base if base else float("nan"), float(low), float(high), p)


def _standard_error(values: FloatArray) -> FloatArray:
    return values.std(0, ddof=1) / np.sqrt(len(values))


def _resampled_means(values: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Means [resamples, m] of users drawn with replacement, as often as there are users."""
    users = len(values)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, step := max(1, DRAWS // users)):
        draws = min(step, resamples - start)
        drawn = rng.integers(0, users, (draws, users)) + users * np.arange(draws)[:, None]
        times = np.bincount(drawn.ravel(), minlength=draws * users).reshape(draws, users)
        means.append(times @ values / users)
    return np.concatenate(means)
