import numpy as np
import pytest

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import BlendConfig
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.ranker.blend import blend_scores

ROW = np.array([0, 0, 0, 1, 1, 2])
NETWORK, BOOSTED = np.array([1.0, 2, 4, 3, 1, 0]), np.array([0.3, 0.1, 0.2, 0.5, 0.9, 0.7])
CONFIG = BlendConfig(tree_weight=0.4, contenders=30)


class Booster:
    """Scores a candidate by its first feature, and counts the candidates."""

    scored = 0

    def __call__(self, features: FloatArray) -> FloatArray:
        self.scored += len(features)
        return features[:, 0]


def candidates(row: IntArray, features: FloatArray) -> Candidates:
    users = np.arange(int(row[-1]) + 1)
    return Candidates(users, row, np.arange(len(row)), features[:, None], np.ones((len(row), 1), bool))


def blended(
    network: FloatArray, boosted: FloatArray, row: IntArray = ROW, k: int = 5, booster: Booster | None = None
) -> FloatArray:
    scorer = booster or Booster()
    return blend_scores(candidates(row, boosted), network, boosters=(scorer,), k=k, config=CONFIG)


def test_the_scale_of_the_network_does_not_matter() -> None:
    np.testing.assert_allclose(blended(NETWORK, BOOSTED), blended(50 * NETWORK + 7, BOOSTED), atol=1e-12)


def test_lambdarank_is_added_with_its_weight() -> None:
    np.testing.assert_allclose(blended(NETWORK, BOOSTED), group_zscore(ROW, NETWORK) + 0.4 * BOOSTED)


def test_without_a_booster_the_network_decides() -> None:
    alone = blend_scores(candidates(ROW, BOOSTED), NETWORK, boosters=(), k=5, config=CONFIG)
    np.testing.assert_array_equal(alone, group_zscore(ROW, NETWORK))


def test_lambdarank_scores_all_where_the_network_is_level() -> None:
    row, boosted = np.zeros(100, np.int64), np.random.default_rng(0).permutation(100).astype(float)
    assert np.argsort(blended(np.ones(100), boosted, row)).tolist() == np.argsort(boosted).tolist()


@pytest.mark.parametrize("k", [5, CONFIG.contenders + 10])
def test_only_contenders_are_scored_and_they_stay_ahead(k: int) -> None:
    rng, users = np.random.default_rng(0), 7
    row = np.repeat(np.arange(users), 90)
    network, boosted, booster = rng.random(len(row)), rng.normal(0, 9, len(row)), Booster()
    score = blended(network, boosted, row, k, booster)
    contenders = max(CONFIG.contenders, k)
    assert booster.scored == users * contenders
    favourites = np.argsort(-network.reshape(users, -1), axis=1)[:, :contenders]
    for user, order in enumerate(np.argsort(-score.reshape(users, -1), axis=1)):
        assert set(order[:contenders]) == set(favourites[user])
        rest = order[contenders:]
        assert (np.diff(network.reshape(users, -1)[user][rest]) < 0).all()  # in the network's order
