from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.ranker.baseline_fallback import choose_per_segment, ndcg_of
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend.top_k import Recommendations, recommend
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS, WARM_WEEKS = 16, 5
CONFIG = RankerConfig(dim=16, heads=2, origins=4, sequence=3, networks=2, epochs=12, candidates=8)
GNN = GNNConfig(dim=8, window=4, replay=12, epochs=2, warm_epochs=1, batching="full")
ROWS = habits(users=60, weeks=WEEKS)
KNOWN = history(ROWS, WEEKS - 1)
Train = Callable[..., RankerCheckpoint]


@pytest.fixture(scope="module")
def embedding_history() -> EmbeddingHistory:
    return train_gnn(snapshots(ROWS, range(WEEKS)), shift(START, WEEKS - 1), GNN).embeddings


@pytest.fixture(scope="module")
def train(embedding_history: EmbeddingHistory) -> Train:
    def trained(
        at: int,
        earlier: RankerCheckpoint | None = None,
        config: RankerConfig = CONFIG,
        embedding_history: EmbeddingHistory = embedding_history,
    ) -> RankerCheckpoint:
        week = shift(START, at)
        seen = {key: embeddings for key, embeddings in embedding_history.items() if key <= week}
        return train_ranker(KNOWN.as_of(week_number(week)), seen, week, config=config, earlier=earlier)

    return trained


@pytest.fixture(scope="module")
def chain(train: Train) -> list[RankerCheckpoint]:
    """Rankers of consecutive weeks, the first one from a cold start; the week after the last is the log's last."""
    rankers = [train(WEEKS - 2 - WARM_WEEKS)]
    for at in range(WEEKS - 1 - WARM_WEEKS, WEEKS - 1):
        rankers.append(train(at, rankers[-1]))
    return rankers


def lists_of(ranker: RankerCheckpoint, embedding_history: EmbeddingHistory) -> Recommendations:
    past = KNOWN.as_of(week_number(ranker.week))
    seen = {key: embeddings for key, embeddings in embedding_history.items() if key <= ranker.week}
    return recommend(past, ranker, seen, temporal_embeddings(ranker, past, seen))


def quality(lists: Recommendations) -> float:
    """NDCG@5 in the week after, over the users who were active in it."""
    user, event = KNOWN.in_week(lists.week + 1)
    size = np.bincount(user, minlength=KNOWN.num_users)
    active = np.flatnonzero(size)
    hits = np.isin(active[:, None] * KNOWN.num_events + lists.events[active], user * KNOWN.num_events + event)
    return float(ndcg_of(hits, size[active]).mean())


def test_validation_is_of_the_ranker_before_the_newest_week(
    chain: list[RankerCheckpoint], embedding_history: EmbeddingHistory
) -> None:
    before, after = chain[-2:]
    fallback = replace(before.fallback, source=dict.fromkeys(before.fallback.source, OURS))
    expected = quality(lists_of(replace(before, fallback=fallback), embedding_history))
    assert after.validation[f"ndcg_{OURS}"] == pytest.approx(expected)


def test_judged_weeks_are_pooled_along_the_chain(chain: list[RankerCheckpoint], tmp_path: Path) -> None:
    last = week_number(chain[-1].week)
    assert [one.week for one in chain[-1].judged] == list(range(last - WARM_WEEKS, last + 1))
    assert chain[-1].judged[:-1] == chain[-2].judged, "what was found on a closed week stays"
    chain[-1].save(tmp_path / "kept")
    loaded = RankerCheckpoint.load(tmp_path / "kept")
    fallback = choose_per_segment(loaded.judged, config=CONFIG.fallback)
    assert fallback == chain[-1].fallback == loaded.fallback


def test_no_later_week_judges(chain: list[RankerCheckpoint], train: Train) -> None:
    """What was judged in a week that has not closed yet must not reach an earlier one."""
    at = WEEKS - 4
    earlier = next(ranker for ranker in chain if ranker.week == shift(START, at - 1))
    leaking = replace(earlier, judged=chain[-1].judged)
    with pytest.raises(ValueError, match="a week after"):
        train(at, leaking)


def test_warm_starts_rank_as_well_as_a_cold_one(
    chain: list[RankerCheckpoint], train: Train, embedding_history: EmbeddingHistory
) -> None:
    warm, cold = chain[-1], train(WEEKS - 2)
    assert warm.warm_from == chain[-2].week and cold.warm_from is None
    assert len(warm.curve) < len(cold.curve)
    of_warm, of_cold = (quality(lists_of(ranker, embedding_history)) for ranker in (warm, cold))
    assert of_warm > 0.97 * of_cold


def test_a_warm_start_learns_the_newest_week(chain: list[RankerCheckpoint], train: Train) -> None:
    before, after = chain[-2:]
    assert any((after.state[name] != value).any() for name, value in before.state.items())
    assert after.booster != before.booster and after.calibration != before.calibration


def test_a_warm_start_widens_the_range_of_the_features(chain: list[RankerCheckpoint]) -> None:
    wider = 0
    for before, after in pairwise(chain):
        for name in ("members.0.feature_low", "members.0.feature_high"):
            change = after.state[name] - before.state[name]
            assert ((change <= 0) if name.endswith("low") else (change >= 0)).all()
            wider += int((change != 0).sum())
    assert wider


def test_a_warm_start_from_the_same_week_is_refused(chain: list[RankerCheckpoint], train: Train) -> None:
    with pytest.raises(ValueError, match="data of another week"):
        train(WEEKS - 2, chain[-1])


def test_a_ranker_of_another_shape_is_no_warm_start(chain: list[RankerCheckpoint], train: Train) -> None:
    assert train(WEEKS - 2, chain[-2], CONFIG.model_copy(update={"dim": 8, "epochs": 1})).warm_from is None


def test_a_cold_encoder_makes_the_ranker_cold_too(
    chain: list[RankerCheckpoint], train: Train, embedding_history: EmbeddingHistory
) -> None:
    other = train_gnn(snapshots(ROWS, range(WEEKS)), shift(START, WEEKS - 1), GNN.model_copy(update={"seed": 1}))
    assert set(other.embeddings) == set(embedding_history)
    assert train(WEEKS - 2, chain[-2], CONFIG.model_copy(update={"epochs": 1}), other.embeddings).warm_from is None


def test_a_week_without_active_users_leaves_the_ranker_as_it_was(
    chain: list[RankerCheckpoint], embedding_history: EmbeddingHistory
) -> None:
    last = chain[-1]
    quiet = history([row for row in ROWS if row[2] < WEEKS - 1], WEEKS - 1)
    week = shift(START, WEEKS - 1)
    after = train_ranker(quiet, embedding_history, week, config=CONFIG, earlier=last)
    assert after.week == week and after.warm_from == last.week and after.trained
    assert (after.booster, after.fallback, after.calibration) == (last.booster, last.fallback, last.calibration)
    assert after.curve == []
    assert all((after.state[name] == value).all() for name, value in last.state.items())


def test_the_origin_of_a_warm_start_survives_the_file(chain: list[RankerCheckpoint], tmp_path: Path) -> None:
    chain[-1].save(tmp_path / "kept")
    loaded = RankerCheckpoint.load(tmp_path / "kept")
    assert (loaded.warm_from, loaded.embeddings) == (chain[-2].week, chain[-1].embeddings)
