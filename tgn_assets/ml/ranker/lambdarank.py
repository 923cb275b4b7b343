"""LambdaRank on the candidates' features: gradient-boosted trees by LightGBM, blended with the networks.

Trees find thresholds and combinations in counts and ages that a network smooths over; the network learns from whole
lists.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.artifact_io import TrainingError
from tgn_assets.ml.config import MAX_SEED, LambdaRankConfig
from tgn_assets.ml.linalg.decision_trees import MAX_LEAVES, decision_trees
from tgn_assets.ml.ranker.training_set import RankingDataset
from tgn_assets.ml.safe_text import first_line

NUM_THREADS = re.compile(r"\[num_threads: \d+\]")
NEXT_BOOSTER = "\nnext booster\n"
"""Between the texts of two boosters."""
FIXED = {"objective": "lambdarank", "deterministic": True, "force_row_wise": True, "verbose": -1}
"""LightGBM parameters that are not tuned."""


Booster = Callable[[FloatArray], FloatArray]
"""Gives the scores [p] of candidates with features [p, F] float32."""
Boosters = tuple[Booster, ...]
"""Boosters of different seeds, whose mean score counts; none where there was nothing to learn."""


def fit_lambdarank(
    datasets: Sequence[RankingDataset], threads: int = 1, *, config: LambdaRankConfig, seed: int, boosters: int = 1
) -> str:
    """The text of `boosters` boosters that rank each user's positive candidates first; `load_boosters` reads it.

    They differ in their seed, and so in the pairs and features that are drawn. The same input gives the same text with
    any number of `threads`. Users without a positive candidate are left out. The text is empty if there is nothing to
    learn: no positive candidate, or no user with two candidates, as in a log with one event. TrainingError where
    LightGBM fails with `config`. After Burges, "From RankNet to LambdaRank to LambdaMART", 2010.
    """
    seeds = ((seed + at) % MAX_SEED for at in range(boosters))
    return NEXT_BOOSTER.join(filter(None, (_fit_booster(datasets, threads, config=config, seed=one) for one in seeds)))


def _fit_booster(datasets: Sequence[RankingDataset], threads: int, *, config: LambdaRankConfig, seed: int) -> str:
    has_positive = [dataset.has_positive[dataset.candidates.row] for dataset in datasets]
    share = min(1.0, config.max_pairs / max(sum(int(keep.sum()) for keep in has_positive), 1))
    rng = np.random.default_rng(seed)
    features, labels, sizes = [], [], []
    for dataset, keep in zip(datasets, has_positive, strict=True):
        if share < 1:
            keep = keep & (dataset.label | (rng.random(len(keep)) < share))
        rows = dataset.candidates.row[keep]
        features.append(dataset.candidates.features[keep])
        labels.append(dataset.label[keep])
        sizes.append(np.unique(rows, return_counts=True)[1])
    if not sum(label.sum() for label in labels) or max(size.max(initial=0) for size in sizes) < 2:
        return ""
    data = lgb.Dataset(np.concatenate(features), np.concatenate(labels).astype(np.int8), group=np.concatenate(sizes))
    tuned = config.model_dump(exclude={"rounds", "max_pairs"})
    try:
        booster = lgb.train(FIXED | tuned | {"seed": seed, "num_threads": threads}, data, config.rounds)
    except lgb.basic.LightGBMError as error:  # as where `bagging_fraction` is so small that no pair is drawn
        changed = config.model_dump(exclude_defaults=True)
        raise TrainingError(f"LightGBM: {first_line(error)}; look at trained_ranker's lambdarank: {changed}") from error
    # The trees do not depend on the number of threads, but the text names it.
    return NUM_THREADS.sub("[num_threads: 1]", booster.model_to_string())


def load_boosters(text: str) -> Boosters:
    """What `fit_lambdarank` wrote, ready to score."""
    return tuple(_scorer(lgb.Booster(model_str=one)) for one in text.split(NEXT_BOOSTER) if one)


def _scorer(booster: lgb.Booster) -> Booster:
    """LightGBM itself scores with larger trees than those of the default configuration."""
    if booster.params["num_leaves"] > MAX_LEAVES:
        return partial(_predict, booster)
    return decision_trees(booster.dump_model()).scores


def _predict(booster: lgb.Booster, features: FloatArray) -> FloatArray:
    return np.asarray(booster.predict(features, num_threads=1))


def lambdarank_scores(boosters: Boosters, features: FloatArray) -> FloatArray:
    """[p] scores of candidates with `features` [p, F]; zeros without boosters."""
    if not boosters or not len(features):
        return np.zeros(len(features))
    return np.mean([booster(features) for booster in boosters], axis=0)
