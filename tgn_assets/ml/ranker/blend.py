"""The network's and the trees' scores of the same candidates made one."""

import lightgbm as lgb
import numpy as np

from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.linalg.topk import grouped_bar
from tgn_assets.ml.ranker.lambdarank import lambdarank_scores

TREE_WEIGHT = 0.4
"""Weight of the trees where the network has one."""
CONTENDERS = 30
"""Candidates of a user that the trees are asked about: those that the network likes best."""


def blend_scores(
    row: np.ndarray, network: np.ndarray, booster: lgb.Booster | None, features: np.ndarray, k: int
) -> np.ndarray:
    """[p] scores of the network and the trees together, for candidates with `features` [p, F] of the users `row` [p].

    The network's scores are standardised; those of the trees, which LambdaRank keeps at about that scale, are added for
    the `CONTENDERS` (or `k`, if that is more). No other candidate can then come before a contender. On weeks before the
    reported ones the lists were the same as with the trees asked about all candidates, and scores standardised per user
    were no better (docs/quality.md).
    """
    score = group_zscore(row, network.astype(float))
    if booster is None or not len(row):
        return score
    users, contenders = int(row[-1]) + 1, max(CONTENDERS, k)
    asked = np.flatnonzero(
        score >= grouped_bar(row, score, users, contenders)[row]
    )  # with those that are level with the last of them
    opinion = lambdarank_scores(booster, features[asked])
    lowest = np.full(users, np.inf)
    np.minimum.at(lowest, row[asked], opinion)
    score += TREE_WEIGHT * lowest[row]
    score[asked] += TREE_WEIGHT * (opinion - lowest[row[asked]])
    return score
