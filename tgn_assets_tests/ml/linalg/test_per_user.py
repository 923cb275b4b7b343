import numpy as np
import pytest

from tgn_assets.ml.linalg.per_user import group_softmax, group_zscore

ROW = np.array([0, 0, 0, 1, 1, 2])


def test_group_zscore_standardises_within_each_user() -> None:
    score = np.array([1.0, 2.0, 3.0, 100.0, 300.0, 7.0])
    third = np.sqrt(1.5)
    assert group_zscore(ROW, score) == pytest.approx([-third, 0, third, -1, 1, 0])


def test_group_softmax_sums_to_one_however_large_the_scores() -> None:
    share = group_softmax(ROW, np.array([1000.0, 1001.0, 1000.0, -5.0, -5.0, 0.0]))
    assert np.bincount(ROW, share) == pytest.approx([1, 1, 1])
    assert share[3:] == pytest.approx([0.5, 0.5, 1])


def test_no_candidates_give_no_values() -> None:
    assert len(group_softmax(np.zeros(0, np.int64), np.zeros(0))) == 0
    assert len(group_zscore(np.zeros(0, np.int64), np.zeros(0))) == 0
