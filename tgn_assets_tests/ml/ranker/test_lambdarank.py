import numpy as np
import torch

from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.ranker import lambdarank
from tgn_assets.ml.ranker.lambdarank import fit_trees, read_trees, tree_scores
from tgn_assets.ml.ranker.training_set import Frame


def frame(users: int, seed: int = 0, touched: bool = True) -> Frame:
    """Each user has 12 candidates with three features; the touched one has the largest first feature."""
    rng = np.random.default_rng(seed)
    row, event = np.repeat(np.arange(users), 12), np.tile(np.arange(12), users)
    features = rng.random((users * 12, 3)).astype(np.float32)
    best = features[:, 0].reshape(users, 12).argmax(1)
    label = (event == best[row]) & touched
    candidates = Candidates(np.arange(users), row, event, features, np.ones((len(row), 1), bool))
    none = torch.zeros(users, 1, 1)
    return Frame(candidates, none, none[..., 0].bool(), torch.zeros(12, 1), label, np.ones(users, int))


def share_found(trees: str, of: Frame) -> float:
    scores = tree_scores(read_trees(trees), of.candidates.features).reshape(-1, 12)
    return float((scores.argmax(1) == of.label.reshape(-1, 12).argmax(1)).mean())


def test_trees_learn_what_makes_a_candidate_touched() -> None:
    trees = fit_trees([frame(200), frame(200, seed=1)], seed=0)
    assert share_found(trees, frame(200, seed=2)) > 0.8


def test_the_same_weeks_and_seed_give_the_same_texts() -> None:
    assert fit_trees([frame(100)], seed=0) == fit_trees([frame(100)], seed=0)


def test_beyond_the_limit_only_untouched_candidates_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(lambdarank, "MAX_PAIRS", 1_500)
    drawn = []
    dataset = lambdarank.lgb.Dataset
    monkeypatch.setattr(
        lambdarank.lgb,
        "Dataset",
        lambda x, y, group: drawn.append((y.sum(), len(y), group.sum())) or dataset(x, y, group=group),
    )
    assert share_found(fit_trees([frame(300)], seed=0), frame(100, seed=2)) > 0.7
    [(touched, pairs, grouped)] = drawn
    assert touched == 300 and pairs == grouped < 2_000


def test_where_nobody_touched_a_candidate_there_is_nothing_to_learn() -> None:
    assert fit_trees([frame(50, touched=False)], seed=0) == fit_trees([], seed=0) == ""
    assert tree_scores(read_trees(""), np.ones((4, 3), np.float32)).tolist() == [0] * 4


def test_the_number_of_threads_changes_nothing() -> None:
    assert len({fit_trees([frame(300), frame(300, seed=1)], 0, threads) for threads in (1, 2, 3)}) == 1
