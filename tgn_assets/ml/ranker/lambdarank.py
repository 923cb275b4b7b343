"""LambdaRank over the candidates' features: gradient-boosted trees, the second opinion beside the neural head.

Trees find thresholds and combinations in counts and ages that the network smooths over; the network learns from the
lists as a whole.
"""

import re
from collections.abc import Sequence

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.ranker.training_set import RankingDataset

ROUNDS = 100
THREADS = re.compile(r"\[num_threads: \d+\]")
MAX_PAIRS = 100_000
"""Pairs learnt from: beyond it untouched candidates are drawn, seeded, so that the cost of a week is bounded."""
PARAMETERS = {
    "objective": "lambdarank",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "max_bin": 63,
    "bin_construct_sample_cnt": 50_000,
    "min_data_in_leaf": 50,
    "lambdarank_truncation_level": 10,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


def fit_lambdarank(datasets: Sequence[RankingDataset], seed: int, threads: int = 1) -> str:
    """A forest, as LightGBM's text, that ranks each frame's touched candidates first. Same input, same text, however
    many `threads` it takes.

    Burges, "From RankNet to LambdaRank to LambdaMART", 2010. Users who touched none of their candidates teach nothing
    and are left out; empty where nobody did.
    """
    has_positive = [dataset.has_positive[dataset.candidates.row] for dataset in datasets]
    wanted = sum(int(keep.sum()) for keep in has_positive)
    share = min(1.0, MAX_PAIRS / max(wanted, 1))
    rng = np.random.default_rng(seed)
    features, labels, sizes = [], [], []
    for dataset, keep in zip(datasets, has_positive, strict=True):
        if share < 1:
            keep = keep & (dataset.label | (rng.random(len(keep)) < share))
        rows = dataset.candidates.row[keep]
        features.append(dataset.candidates.features[keep])
        labels.append(dataset.label[keep])
        sizes.append(np.unique(rows, return_counts=True)[1])
    if not sum(label.sum() for label in labels):
        return ""
    data = lgb.Dataset(np.concatenate(features), np.concatenate(labels).astype(np.int8), group=np.concatenate(sizes))
    parameters = PARAMETERS | {"seed": seed, "num_threads": threads}
    # The forest does not depend on how many threads there are, but its text names their number.
    return THREADS.sub("[num_threads: 1]", lgb.train(parameters, data, ROUNDS).model_to_string())


def load_booster(text: str) -> lgb.Booster | None:
    """What `fit_lambdarank` wrote, ready to score; None for no forest."""
    return lgb.Booster(model_str=text) if text else None


def lambdarank_scores(booster: lgb.Booster | None, features: np.ndarray) -> np.ndarray:
    """[p] scores of candidates with `features` [p, F]; zeros without a forest."""
    if booster is None or not len(features):
        return np.zeros(len(features))
    return np.asarray(booster.predict(features, num_threads=1))
