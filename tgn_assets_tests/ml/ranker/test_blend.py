import numpy as np
import pytest

from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.ranker.blend import CONTENDERS, TREE_WEIGHT, blend_scores

ROW = np.array([0, 0, 0, 1, 1, 2])


class Forest:
    """Scores a candidate by its first feature, and remembers how many it was asked about."""

    asked = 0

    def predict(self, features: np.ndarray, **_: int) -> np.ndarray:
        self.asked += len(features)
        return features[:, 0]


def mixed(network: np.ndarray, trees: np.ndarray, row: np.ndarray = ROW, k: int = 5) -> np.ndarray:
    return blend_scores(row, network, Forest(), trees[:, None], k)  # type: ignore[arg-type]


def test_the_scale_of_the_network_does_not_matter() -> None:
    network, trees = np.array([1.0, 2, 4, 3, 1, 0]), np.array([0.3, 0.1, 0.2, 0.5, 0.9, 0.7])
    np.testing.assert_allclose(mixed(network, trees), mixed(50 * network + 7, trees), atol=1e-12)


def test_the_trees_have_their_say_beside_the_network() -> None:
    network, trees = np.array([1.0, 2, 4, 3, 1, 0]), np.array([0.3, 0.1, 0.2, 0.5, 0.9, 0.7])
    np.testing.assert_allclose(mixed(network, trees), group_zscore(ROW, network) + TREE_WEIGHT * trees)


def test_without_trees_the_network_is_left_alone() -> None:
    score = np.array([1.0, 2, 4, 3, 1, 0])
    np.testing.assert_array_equal(blend_scores(ROW, score, None, np.zeros((6, 1)), 5), group_zscore(ROW, score))


def test_where_the_network_says_nothing_the_trees_are_asked_about_everyone() -> None:
    row, trees = np.zeros(100, np.int64), np.random.default_rng(0).permutation(100).astype(float)
    assert np.argsort(mixed(np.ones(100), trees, row)).tolist() == np.argsort(trees).tolist()


@pytest.mark.parametrize("k", [5, CONTENDERS + 10])
def test_the_trees_are_asked_about_the_networks_favourites_alone_and_these_stay_ahead(k: int) -> None:
    rng, users = np.random.default_rng(0), 7
    row = np.repeat(np.arange(users), 90)
    network, trees, booster = rng.random(len(row)), rng.normal(0, 9, len(row)), Forest()
    score = blend_scores(row, network, booster, trees[:, None], k)  # type: ignore[arg-type]
    asked = max(CONTENDERS, k)
    assert booster.asked == users * asked
    favourites = np.argsort(-network.reshape(users, -1), axis=1)[:, :asked]
    for user, first in enumerate(np.argsort(-score.reshape(users, -1), axis=1)):
        assert set(first[:asked]) == set(favourites[user])
        rest = first[asked:]
        assert (np.diff(network.reshape(users, -1)[user][rest]) < 0).all()  # in the network's order
