import numpy as np
import pytest

from tgn_assets.ml.linalg.per_user import group_softmax, group_zscore


def test_group_softmax_sums_to_one_however_large_the_scores() -> None:
    share = group_softmax(np.array([0, 0, 1, 1, 2]), np.array([1000.0, 1001.0, -5.0, -5.0, 0.0]))
    assert share[0] + share[1] == pytest.approx(1)
    assert share[2:] == pytest.approx([0.5, 0.5, 1])


def test_no_candidates_give_no_values() -> None:
    assert len(group_softmax(np.zeros(0, np.int64), np.zeros(0))) == 0
    assert len(group_zscore(np.zeros(0, np.int64), np.zeros(0))) == 0
