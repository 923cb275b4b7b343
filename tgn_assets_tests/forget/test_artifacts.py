"""What tensors hold of a node's index becomes zero; the index stays, as a tombstone."""

import numpy as np

from tgn_assets.forget.artifacts import zeroed
from tgn_assets.ml.evaluation.judged_week import JudgedWeek, PairedResults, ScoredPairs, judged_tensors


def test_a_judged_week_loses_what_it_found_of_a_user() -> None:
    results = PairedResults(
        user=np.array([4, 7, 9]),
        segment=np.array([0, 1, 0]),
        gain={"popular": np.array([0.5, -0.25, 0.75]), "repeat": np.array([0.1, 0.2, 0.3])},
        hit_rate={"popular": np.array([[0.5], [0.25]])},
        members=np.array([2, 1]),
    )
    pairs = ScoredPairs(np.array([0.5]), np.array([0.0]), np.array([1]))
    tensors = judged_tensors([JudgedWeek(2800, results, pairs)])
    clean = zeroed(tensors, {"user": [7], "event": [4]})
    changed = {name.partition("/")[2] for name in tensors if not clean[name].equal(tensors[name])}
    assert changed == {"gain.popular", "gain.repeat"}
    (popular,) = (tensor.tolist() for name, tensor in clean.items() if name.endswith("gain.popular"))
    assert popular == [0.5, 0.0, 0.75]
    assert zeroed(tensors, {"user": [5], "event": [4]}) is tensors
