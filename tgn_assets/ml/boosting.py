"""Gradient-boosted trees over the candidates' features: the second opinion beside the neural head.

Trees find thresholds and combinations in counts and ages that the network smooths over; the network learns from the
lists as a whole. Two forests, grown for different losses from different draws, err differently: LambdaRank (Burges,
"From RankNet to LambdaRank to LambdaMART", 2010) and XE-NDCG (arXiv 1911.09798).
"""

from collections.abc import Sequence

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.blend import standardised
from tgn_assets.ml.frames import Frame

ROUNDS = 100
MAX_PAIRS = 200_000
"""Pairs learnt from: beyond it untouched candidates are drawn, seeded, so that the cost of a week is bounded."""
OBJECTIVES = ("lambdarank", "rank_xendcg")
PARAMETERS = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "max_bin": 63,
    "min_data_in_leaf": 50,
    "lambdarank_truncation_level": 10,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
    "num_threads": 1,  # beside torch's threads more of them stall each other, and the text names their number
}

Forests = tuple[lgb.Booster, ...]


def fit_trees(frames: Sequence[Frame], seed: int) -> tuple[str, ...]:
    """A forest for each of `OBJECTIVES`, as LightGBM's text, that ranks each frame's touched candidates first.

    Same input, same texts. Users who touched none of their candidates teach nothing and are left out; no forest where
    nobody did.
    """
    grown = (_grow(frames, objective, seed + at) for at, objective in enumerate(OBJECTIVES))
    return tuple(text for text in grown if text)


def read_trees(texts: Sequence[str]) -> Forests:
    """What `fit_trees` wrote, ready to score."""
    return tuple(lgb.Booster(model_str=text) for text in texts)


def tree_scores(forests: Forests, row: np.ndarray, features: np.ndarray) -> np.ndarray:
    """[p] sum of the forests' standardised scores of candidates with `features` [p, F] of the users `row` [p]; zeros
    without forests."""
    total = np.zeros(len(features))
    for forest in forests if len(features) else ():
        total += standardised(row, np.asarray(forest.predict(features, num_threads=1)))
    return total


def _grow(frames: Sequence[Frame], objective: str, seed: int) -> str:
    taught = [_taught(frame) for frame in frames]
    wanted = sum(int(keep.sum()) for keep in taught)
    share = min(1.0, MAX_PAIRS / max(wanted, 1))
    rng = np.random.default_rng(seed)
    features, labels, sizes = [], [], []
    for frame, keep in zip(frames, taught, strict=True):
        if share < 1:
            keep = keep & (frame.label | (rng.random(len(keep)) < share))
        rows = frame.candidates.row[keep]
        features.append(frame.candidates.features[keep])
        labels.append(frame.label[keep])
        sizes.append(np.unique(rows, return_counts=True)[1])
    if not sum(label.sum() for label in labels):
        return ""
    data = lgb.Dataset(np.concatenate(features), np.concatenate(labels).astype(np.int8), group=np.concatenate(sizes))
    parameters = PARAMETERS | {"objective": objective, "seed": seed}
    return str(lgb.train(parameters, data, ROUNDS).model_to_string())


def _taught(frame: Frame) -> np.ndarray:
    """[p] bool: the pair's user touched at least one candidate."""
    touched = np.bincount(frame.candidates.row, frame.label, len(frame.truth_size)) > 0
    return touched[frame.candidates.row]
