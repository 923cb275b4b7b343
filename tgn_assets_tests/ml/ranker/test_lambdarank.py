import numpy as np
import torch

from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.ranker import lambdarank
from tgn_assets.ml.ranker.lambdarank import fit_lambdarank, lambdarank_scores, load_booster
from tgn_assets.ml.ranker.training_set import RankingDataset


def dataset(users: int, seed: int = 0, touched: bool = True) -> RankingDataset:
    """Each user has 12 candidates with three features; the touched one has the largest first feature."""
    rng = np.random.default_rng(seed)
    row, event = np.repeat(np.arange(users), 12), np.tile(np.arange(12), users)
    features = rng.random((users * 12, 3)).astype(np.float32)
    best = features[:, 0].reshape(users, 12).argmax(1)
    label = (event == best[row]) & touched
    candidates = Candidates(np.arange(users), row, event, features, np.ones((len(row), 1), bool))
    none = torch.zeros(users, 1, 1)
    return RankingDataset(candidates, none, none[..., 0].bool(), torch.zeros(12, 1), label, np.ones(users, int))


def share_found(trees: str, of: RankingDataset) -> float:
    scores = lambdarank_scores(load_booster(trees), of.candidates.features).reshape(-1, 12)
    return float((scores.argmax(1) == of.label.reshape(-1, 12).argmax(1)).mean())


def test_trees_learn_what_makes_a_candidate_touched() -> None:
    trees = fit_lambdarank([dataset(200), dataset(200, seed=1)], seed=0)
    assert share_found(trees, dataset(200, seed=2)) > 0.8


def test_the_same_weeks_and_seed_give_the_same_texts() -> None:
    assert fit_lambdarank([dataset(100)], seed=0) == fit_lambdarank([dataset(100)], seed=0)


def test_beyond_the_limit_only_untouched_candidates_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(lambdarank, "MAX_PAIRS", 1_500)
    drawn = []
    lightgbm_dataset = lambdarank.lgb.Dataset
    monkeypatch.setattr(
        lambdarank.lgb,
        "Dataset",
        lambda x, y, group: drawn.append((y.sum(), len(y), group.sum())) or lightgbm_dataset(x, y, group=group),
    )
    assert share_found(fit_lambdarank([dataset(300)], seed=0), dataset(100, seed=2)) > 0.7
    [(touched, pairs, grouped)] = drawn
    assert touched == 300 and pairs == grouped < 2_000


def test_where_nobody_touched_a_candidate_there_is_nothing_to_learn() -> None:
    assert fit_lambdarank([dataset(50, touched=False)], seed=0) == fit_lambdarank([], seed=0) == ""
    assert lambdarank_scores(load_booster(""), np.ones((4, 3), np.float32)).tolist() == [0] * 4


def test_the_number_of_threads_changes_nothing() -> None:
    assert len({fit_lambdarank([dataset(300), dataset(300, seed=1)], 0, threads) for threads in (1, 2, 3)}) == 1
