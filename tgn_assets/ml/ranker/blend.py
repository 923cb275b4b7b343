"""Blend the networks' and LambdaRank's scores of the same candidates."""

import numpy as np

from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.candidates.retrieval import Candidates
from tgn_assets.ml.config import BlendConfig
from tgn_assets.ml.linalg.per_user import group_zscore
from tgn_assets.ml.linalg.topk import grouped_kth_largest
from tgn_assets.ml.ranker.lambdarank import Boosters, lambdarank_scores


def blend_scores(
    candidates: Candidates, network: FloatArray, *, boosters: Boosters, k: int, config: BlendConfig
) -> FloatArray:
    """[p] blended scores of the p candidates, whose networks' scores are `network` [p].

    The networks' scores are standardised per user. LambdaRank scores, of about that scale already, are added with a
    weight that is configured, not learned, for each user's `config.contenders` (or `k`, if that is more) best
    candidates by the networks, and no other candidate can overtake these. In weeks before the reported ones LambdaRank
    scores of all candidates gave the same lists, and standardising them was no better (docs/quality.md).
    """
    row, score = candidates.row, group_zscore(candidates.row, network.astype(float))
    if not boosters or not len(row):
        return score
    users, contenders = int(row[-1]) + 1, max(config.contenders, k)
    # With those that tie with the last contender.
    contending = np.flatnonzero(score >= grouped_kth_largest(row, score, users, contenders)[row])
    boosted = lambdarank_scores(boosters, candidates.features[contending])
    lowest = np.full(users, np.inf)
    np.minimum.at(lowest, row[contending], boosted)
    score += config.tree_weight * lowest[row]
    score[contending] += config.tree_weight * (boosted - lowest[row[contending]])
    return score
