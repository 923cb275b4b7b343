from typing import Any

import numpy as np
import pytest
import torch

from tgn_assets.ml.artifact_io import TrainingError
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import LambdaRankConfig
from tgn_assets.ml.linalg.decision_trees import MAX_LEAVES
from tgn_assets.ml.ranker import lambdarank
from tgn_assets.ml.ranker.lambdarank import fit_lambdarank, lambdarank_scores, load_boosters
from tgn_assets.ml.ranker.training_set import RankingDataset

CONFIG = LambdaRankConfig()


def dataset(users: int, seed: int = 0, positive: bool = True) -> RankingDataset:
    """Each user has 12 candidates with three features; the positive one has the largest first feature."""
    rng = np.random.default_rng(seed)
    row, event = np.repeat(np.arange(users), 12), np.tile(np.arange(12), users)
    features = rng.random((users * 12, 3)).astype(np.float32)
    best = features[:, 0].reshape(users, 12).argmax(1)
    label = (event == best[row]) & positive
    candidates = Candidates(np.arange(users), row, event, features, np.ones((len(row), 1), bool))
    none = torch.zeros(users, 1, 1)
    return RankingDataset(candidates, none, none[..., 0].bool(), torch.zeros(12, 1), label, np.ones(users, int))


def fitted(*datasets: RankingDataset, threads: int = 1, config: LambdaRankConfig = CONFIG) -> str:
    return fit_lambdarank(datasets, threads, config=config, seed=0)


def share_found(booster: str, of: RankingDataset) -> float:
    scores = lambdarank_scores(load_boosters(booster), of.candidates.features).reshape(-1, 12)
    return float((scores.argmax(1) == of.label.reshape(-1, 12).argmax(1)).mean())


def test_boosting_learns_what_makes_a_candidate_positive() -> None:
    assert share_found(fitted(dataset(200), dataset(200, seed=1)), dataset(200, seed=2)) > 0.8


def test_the_config_reaches_lightgbm() -> None:
    text = fitted(dataset(100), config=LambdaRankConfig(rounds=3, num_leaves=4))
    assert text.count("\nTree=") == 3 and "[num_leaves: 4]" in text


def test_fields_that_lightgbm_cannot_fit_with_are_named() -> None:
    with pytest.raises(TrainingError, match=r"look at trained_ranker's lambdarank: {'bagging_fraction': 1e-09}"):
        fitted(dataset(100), config=LambdaRankConfig(bagging_fraction=1e-9))


def test_beyond_max_pairs_only_negatives_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, lightgbm_dataset = list[tuple[int, int, int]](), lambdarank.lgb.Dataset

    def recorded(features: Any, label: Any, group: Any) -> Any:
        drawn.append((label.sum(), len(label), group.sum()))
        return lightgbm_dataset(features, label, group=group)

    monkeypatch.setattr(lambdarank.lgb, "Dataset", recorded)
    booster = fitted(dataset(300), config=LambdaRankConfig(max_pairs=1_500))
    assert share_found(booster, dataset(100, seed=2)) > 0.7
    [(positives, pairs, grouped)] = drawn
    assert positives == 300 and pairs == grouped < 2_000


def test_without_a_positive_candidate_there_is_no_booster() -> None:
    assert fitted(dataset(50, positive=False)) == fitted() == ""
    assert lambdarank_scores(load_boosters(""), np.ones((4, 3), np.float32)).tolist() == [0] * 4


def test_a_log_with_one_user_and_event_has_nothing_to_rank() -> None:
    alone = np.zeros(1, int)
    candidates = Candidates(alone, alone, alone, np.ones((1, 3), np.float32), np.ones((1, 1), bool))
    none = torch.zeros(1, 1, 1)
    one = RankingDataset(candidates, none, none[..., 0].bool(), torch.zeros(1, 1), np.ones(1, bool), np.ones(1, int))
    assert fitted(one) == "" and fitted(one, dataset(20)) != ""


def test_the_number_of_threads_changes_nothing() -> None:
    assert len({fitted(dataset(300), dataset(300, seed=1), threads=threads) for threads in (1, 2, 3)}) == 1


def test_several_boosters_score_by_their_mean() -> None:
    weeks, features = [dataset(100)], dataset(50, seed=2).candidates.features
    texts = [fit_lambdarank(weeks, config=CONFIG, seed=seed) for seed in (5, 6)]
    both = fit_lambdarank(weeks, config=CONFIG, seed=5, boosters=2)
    alone = [lambdarank_scores(load_boosters(text), features) for text in texts]
    assert not np.array_equal(alone[0], alone[1])
    assert lambdarank_scores(load_boosters(both), features) == pytest.approx(np.mean(alone, axis=0))


def test_trees_of_any_size_score() -> None:
    of = dataset(200)
    small, large = (
        fitted(of, config=LambdaRankConfig(num_leaves=leaves, min_data_in_leaf=5)) for leaves in (MAX_LEAVES, 40)
    )
    assert min(share_found(small, of), share_found(large, of)) > 0.8
