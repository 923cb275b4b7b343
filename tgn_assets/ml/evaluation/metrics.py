"""How good top-k lists are: a value per user. Means over users and their uncertainty are in `intervals`.

The values come from `torch_geometric.metrics`, whose definitions are the protocol's: precision divided by k whatever
the list holds, NDCG and MAP against an ideal of min(|truth|, k) hits. Their `compute` gives a mean alone; segments,
intervals and paired comparisons need every user, hence the metrics' per-example hook.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch_geometric.metrics.link_pred import LinkPredMetricData

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.evaluation.metric_names import RANKING_METRICS


def per_user(lists: IntArray, truth_user: IntArray, truth_event: IntArray) -> pd.DataFrame:
    """The `RANKING_METRICS` of every list: one row per row of `lists`, NaN for a user without truth.

    `lists` [n, k] holds distinct event codes, best first, -1 for an empty rank. `truth_user` (a row of `lists`) and
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
    values = {name: metric.per_user(data, k).double().numpy().round(6) for name, metric in RANKING_METRICS.items()}
    has_truth = np.bincount(truth_user, minlength=rows) > 0
    return pd.DataFrame({name: np.where(has_truth, value, np.nan) for name, value in values.items()})


def from_hits(hits: Sequence[int], num_relevant: IntArray, k: int) -> pd.DataFrame:
    """The `RANKING_METRICS` of lists of which only their hits are known: bit r - 1 of `hits` [n] is the one at rank r.

    `num_relevant` [n] are the events that the user interacted with.

    >>> from_hits([0b10], np.array([1]), k=2)[["precision", "recall", "mrr"]].to_dict("records")
    [{'precision': 0.5, 'recall': 1.0, 'mrr': 0.5}]
    """
    is_hit = np.array([[bits >> rank & 1 for rank in range(k)] for bits in hits], bool).reshape(-1, k)
    missed = num_relevant - is_hit.sum(1)
    missed_event = k + np.arange(missed.sum()) - np.repeat(np.cumsum(missed) - missed, missed)
    row, event = np.nonzero(is_hit)
    user = np.append(row, np.repeat(np.arange(len(hits)), missed))
    return per_user(np.tile(np.arange(k), (len(hits), 1)), user, np.append(event, missed_event))


def perfect_lists(truth_user: IntArray, truth_event: IntArray, reachable: BoolArray, *, rows: int, k: int) -> IntArray:
    """[rows, k] the lists of a ranker that knows the truth: up to `k` of each user's `reachable` [m] true events.

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
