import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.metrics import LinkPredCoverage
from torch_geometric.metrics.link_pred import LinkPredMetricData

from tgn_assets.ml.evaluation import metrics
from tgn_assets.ml.evaluation.metric_names import RANKING_METRICS, RankingMetric
from tgn_assets.ml.evaluation.metrics import (
    catalogue_coverage,
    from_hits,
    per_user,
    perfect_lists,
)

EVENTS = 9
DISCOUNT = 1 / np.log2(np.arange(2, 7))


def pairs(truth: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    user = [row for row, events in enumerate(truth) for _ in events]
    return np.array(user, np.int64), np.array([event for events in truth for event in sorted(events)], np.int64)


def by_the_book(listed: list[int], truth: set[int], k: int) -> dict[str, float]:
    """The protocol's definitions, place by place."""
    hits = [event in truth for event in listed]
    ideal = min(len(truth), k)
    precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
    return {
        "precision": sum(hits) / k,
        "recall": sum(hits) / len(truth),
        "ndcg": sum(1 / np.log2(i + 2) for i, hit in enumerate(hits) if hit)
        / sum(1 / np.log2(i + 2) for i in range(ideal)),
        "map": sum(precisions) / ideal,
        "hit_rate": float(any(hits)),
        "mrr": max([1 / (i + 1) for i, hit in enumerate(hits) if hit], default=0.0),
    }


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, list[set[int]]]:
    users, k = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    lists = [
        draw(st.permutations(range(EVENTS)))[: draw(st.integers(0, k))] + [-1] * k for _ in range(users)
    ]  # some shorter than k
    truth = draw(st.lists(st.sets(st.integers(0, EVENTS - 1), min_size=1), min_size=users, max_size=users))
    return np.array([row[:k] for row in lists]), truth


def test_per_user_metrics_by_hand() -> None:
    values = per_user(np.array([[7, 3, 8, 1, 5]]), *pairs([{1, 3, 4}])).iloc[0]
    assert values["precision"] == pytest.approx(2 / 5)
    assert values["recall"] == pytest.approx(2 / 3, abs=1e-6)
    assert values["ndcg"] == pytest.approx((DISCOUNT[1] + DISCOUNT[3]) / DISCOUNT[:3].sum(), abs=1e-6)
    assert values["map"] == pytest.approx((1 / 2 + 2 / 4) / 3, abs=1e-6)
    assert values["hit_rate"] == 1
    assert values["mrr"] == 0.5


def test_user_without_truth_has_no_value() -> None:
    values = per_user(np.array([[0], [1]]), *pairs([{0}, set()]))
    assert values.loc[1].isna().all()
    assert values.ndcg.mean() == 1


def test_no_users_give_an_empty_frame() -> None:
    values = per_user(np.empty((0, 5), np.int64), *pairs([]))
    assert list(values.columns) == list(RANKING_METRICS)
    assert values.empty


def test_repeated_event_is_refused() -> None:
    with pytest.raises(ValueError, match="list holds an event twice"):
        per_user(np.array([[3, 1, 3]]), *pairs([{1}]))
    with pytest.raises(ValueError, match="truth twice"):
        per_user(np.array([[3, 1, 2]]), np.array([0, 0]), np.array([1, 1]))


@given(rankings())
@settings(max_examples=40, deadline=None)
def test_per_user_metrics_follow_their_definitions(
    ranking: tuple[np.ndarray, list[set[int]]],
) -> None:
    lists, truth = ranking
    values = per_user(lists, *pairs(truth))
    assert values.to_numpy().min() >= 0
    assert values.to_numpy().max() <= 1
    for row, (listed, events) in enumerate(zip(lists.tolist(), truth, strict=True)):
        expected = by_the_book(listed, events, lists.shape[1])
        assert values.loc[row, [*expected]].to_dict() == pytest.approx(expected, abs=2e-6)


@given(rankings(), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_user_order_does_not_change_values(
    ranking: tuple[np.ndarray, list[set[int]]], random: np.random.Generator
) -> None:
    lists, truth = ranking
    order = list(range(len(lists)))
    random.shuffle(order)
    moved = per_user(lists[order], *pairs([truth[row] for row in order]))
    np.testing.assert_array_equal(moved, per_user(lists, *pairs(truth)).loc[order])


@given(rankings(), st.integers(0, EVENTS))
@settings(max_examples=25, deadline=None)
def test_no_list_beats_the_perfect_one(ranking: tuple[np.ndarray, list[set[int]]], known: int) -> None:
    lists, truth = ranking
    user, event = pairs(truth)
    perfect = perfect_lists(user, event, event < known, rows=len(truth), k=lists.shape[1])
    assert perfect.max() < known
    assert (per_user(perfect, user, event) >= per_user(np.where(lists < known, lists, -1), user, event)).all(axis=None)
    if known == EVENTS:
        assert (per_user(perfect, user, event)[["ndcg", "map", "mrr", "hit_rate"]] == 1).all(axis=None)


def test_catalogue_coverage_as_in_torch_geometric() -> None:
    lists = np.array([[0, 3, 2], [3, 1, 0]])
    reference = LinkPredCoverage(3, num_dst_nodes=8)
    reference.update(torch.from_numpy(lists), torch.empty(2, 0, dtype=torch.long))
    assert catalogue_coverage(lists, 8) == float(reference.compute()) == 0.5
    assert catalogue_coverage(np.array([[0, 9, -1]]), 8) == 1 / 8
    assert np.isnan(catalogue_coverage(lists, 0))


def test_metric_added_to_the_registry_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_first_hit(data: LinkPredMetricData, k: int) -> torch.Tensor:
        return data.pred_rel_mat[:, 0]

    monkeypatch.setattr(metrics, "RANKING_METRICS", {"top1": RankingMetric("Top 1", is_first_hit)})
    assert per_user(np.array([[7, 3], [3, 7]]), *pairs([{3}, {3}])).top1.tolist() == [0, 1]


@given(rankings())
@settings(max_examples=25, deadline=None)
def test_hits_alone_give_the_same_metrics(ranking: tuple[np.ndarray, list[set[int]]]) -> None:
    lists, truth = ranking
    hits = [
        sum(1 << place for place, event in enumerate(listed) if event in events)
        for listed, events in zip(lists.tolist(), truth, strict=True)
    ]
    num_relevant = np.array([len(events) for events in truth])
    expected = per_user(lists, *pairs(truth))
    pd.testing.assert_frame_equal(from_hits(hits, num_relevant, lists.shape[1]), expected, check_exact=True)


def test_hits_beyond_rank_64_count() -> None:
    assert from_hits([1 << 99], np.array([1]), 100).mrr.tolist() == [0.01]
