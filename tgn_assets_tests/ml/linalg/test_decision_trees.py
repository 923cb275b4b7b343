import lightgbm as lgb
import numpy as np
import pytest

from tgn_assets.ml.linalg import decision_trees as trees
from tgn_assets.ml.linalg.decision_trees import MAX_LEAVES, decision_trees

SMALLEST = 1e-34
"""LightGBM takes features nearer to zero for zero, and puts thresholds there."""


def booster(features: np.ndarray, leaves: int = MAX_LEAVES) -> lgb.Booster:
    """Trees that tell rows apart by the first two of their features, and by whether the first is known."""
    label = np.sin(9 * features[:, 0]).round(1) + features[:, 1] + np.isnan(features[:, 0])
    config = {"verbose": -1, "num_leaves": leaves, "min_data_in_leaf": 2, "deterministic": True, "num_threads": 1}
    return lgb.train(config, lgb.Dataset(features, np.nan_to_num(label)), 20)


def features(missing: float, rows: int = 400) -> np.ndarray:
    """[rows, 3] float32, of which the share `missing` is NaN."""
    rng = np.random.default_rng(int(100 * missing))
    values = rng.integers(-30, 30, (rows, 3)).astype(np.float32) / 7
    values[rng.random(values.shape) < missing] = np.nan
    return values


@pytest.mark.parametrize("missing_in_training", [0.0, 0.3])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_scores_are_those_of_lightgbm(missing_in_training: float, missing: float) -> None:
    model = booster(features(missing_in_training))
    rows = np.concatenate([features(missing), np.array([[-1e38, 0, 1e38], [0, 1e-36, -0.0]], np.float32)])
    assert decision_trees(model.dump_model()).scores(rows).tolist() == np.asarray(model.predict(rows)).tolist()


def test_a_row_next_to_a_threshold_goes_the_same_way() -> None:
    model = booster(features(0.0))
    roots = [tree["tree_structure"]["threshold"] for tree in model.dump_model()["tree_info"]]
    at = [threshold for threshold in roots if abs(threshold) > SMALLEST]
    near = np.array([np.nextafter(np.float32(x), np.float32(to)) for x in at for to in (-np.inf, x, np.inf)])
    rows = np.stack([near, near, near], axis=1)
    assert decision_trees(model.dump_model()).scores(rows).tolist() == np.asarray(model.predict(rows)).tolist()


def test_rows_are_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    of, rows = decision_trees(booster(features(0.0)).dump_model()), features(0.1)
    whole = of.scores(rows)
    monkeypatch.setattr(trees, "ROWS_TOGETHER", 7)
    assert of.scores(rows).tolist() == whole.tolist()


def test_a_tree_without_a_node_gives_its_only_value() -> None:
    constant = lgb.train({"verbose": -1}, lgb.Dataset(np.ones((40, 1)), np.full(40, 3.0)), 1)
    assert decision_trees(constant.dump_model()).scores(np.array([[1], [2]], np.float32)).tolist() == [3.0, 3.0]


def test_larger_trees_are_refused() -> None:
    with pytest.raises(ValueError, match="17 leaves, more than 16"):
        decision_trees(booster(features(0.0), leaves=MAX_LEAVES + 1).dump_model())
