import pickle
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.artifact_io import ArtifactError
from tgn_assets.ml.candidates.retrieval import CHANNELS, CandidateGenerator, user_shard
from tgn_assets.ml.config import BlendConfig, GNNConfig, RankerConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.evaluation import baselines
from tgn_assets.ml.ranker.baseline_fallback import ndcg_of
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, can_warm_start_ranker, temporal_embeddings
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.judge import BlendedRanker, Judgement, judge
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView
from tgn_assets.ml.recommend.top_k import Recommendations, diagnose, recommend
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 10
LAST = shift(START, WEEKS - 1)
CONFIG = RankerConfig(dim=16, heads=2, origins=4, sequence=3, networks=2, epochs=6, candidates=8)
GNN = GNNConfig(dim=8, window=4, replay=6, epochs=2, warm_epochs=1, batching="full")
PAST = history(habits(weeks=WEEKS), WEEKS - 1)


@pytest.fixture(scope="module")
def embedding_history() -> EmbeddingHistory:
    return train_gnn(snapshots(habits(weeks=WEEKS), range(WEEKS)), LAST, GNN).embeddings


@pytest.fixture(scope="module")
def ranker(embedding_history: EmbeddingHistory) -> RankerCheckpoint:
    return train_ranker(PAST, embedding_history, LAST, config=CONFIG)


def lists_of(
    ranker: RankerCheckpoint, embedding_history: EmbeddingHistory, past: InteractionHistory = PAST
) -> Recommendations:
    return recommend(past, ranker, embedding_history, temporal_embeddings(ranker, past, embedding_history))


@pytest.fixture(scope="module")
def lists(embedding_history: EmbeddingHistory, ranker: RankerCheckpoint) -> Recommendations:
    return lists_of(ranker, embedding_history)


def test_the_ranker_learns_and_records_its_validation(ranker: RankerCheckpoint) -> None:
    assert ranker.trained
    assert ranker.curve[-1]["loss"] < ranker.curve[0]["loss"]
    assert set(ranker.validation) >= {"ndcg_tgn_assets", "ndcg_repeat", "ndcg_popular", "ndcg_lambdarank"}


def test_progress_counts_lists_learned_from(embedding_history: EmbeddingHistory) -> None:
    said, eager = list[str](), CONFIG.model_copy(update={"patience": 1})
    checkpoint = train_ranker(PAST, embedding_history, LAST, config=eager, progress=said.append)
    told = [re.search(r"^ranker, .*epoch \d+, .*; ([\d,]+) of (?:at most )?([\d,]+) lists", line) for line in said]
    done = [[int(number.replace(",", "")) for number in found.groups()] for found in told if found]
    assert len(done) == sum(row["epoch"] != "final" for row in checkpoint.curve) > 0
    each = done[0][0]
    assert [lists % each for lists, _ in done] == [0] * len(done) and done == sorted(done)
    assert all(lists <= total <= each * CONFIG.epochs * CONFIG.networks for lists, total in done)


def test_progress_counts_users_embedded_and_ranked(
    embedding_history: EmbeddingHistory, ranker: RankerCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tgn_assets.ml.progress.SECONDS_BETWEEN", 0.0)
    said = list[str]()
    embeddings = temporal_embeddings(ranker, PAST, embedding_history, progress=said.append)
    recommend(PAST, ranker, embedding_history, embeddings, progress=said.append)
    diagnostics = diagnose(PAST, ranker, embedding_history, embeddings, progress=said.append)
    diagnostics.lists(np.arange(3))
    diagnostics.found(np.arange(3), np.arange(3), np.arange(3))
    told = {line.split(":")[0]: line for line in said}
    assert set(told) == {"embeddings", "lists", "lists before the fallback", "candidates that active users had"}
    assert "40 of 40 users" in told["embeddings"] and "3 of 3 users" in told["candidates that active users had"]


def test_fallback_and_calibration_are_set_before_the_newest_week(embedding_history: EmbeddingHistory) -> None:
    eve = shift(LAST, -1)
    seen = {week: embeddings for week, embeddings in embedding_history.items() if week <= eve}
    before = train_ranker(PAST.as_of(PAST.week - 1), seen, eve, config=CONFIG)
    rates = (CONFIG.model_copy(update={"learning_rate": rate}) for rate in (0.05, 1e-12))
    learned, stood_still = (
        train_ranker(PAST, embedding_history, LAST, config=config, earlier=before) for config in rates
    )
    assert (learned.calibration, learned.fallback) == (stood_still.calibration, stood_still.fallback)
    assert any(not torch.equal(weights, stood_still.state[name]) for name, weights in learned.state.items())


@pytest.mark.parametrize("weeks", [3, WEEKS])
def test_the_week_that_judges_chooses_no_epoch(weeks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cold start judges does not depend on the newest week, whatever happened in it."""
    rows, newest = habits(weeks=weeks), weeks - 1
    past = [row for row in rows if row[2] < newest]
    seen = train_gnn(snapshots(past, range(newest)), shift(START, newest - 1), GNN).embeddings
    another = [(user, event, newest, 1) for user, event in dict.fromkeys((user, past[0][1]) for user, *_ in past)]
    judged = list[tuple[Ensemble, bytes]]()

    def spied(ranker: BlendedRanker, *given: Any, **named: Any) -> Judgement:
        judged.append((deepcopy(ranker.model), pickle.dumps(ranker.boosters)))
        return judge(ranker, *given, **named)

    monkeypatch.setattr("tgn_assets.ml.ranker.train.judge", spied)
    rankers = [
        train_ranker(history(log, newest), seen, shift(START, newest), config=CONFIG) for log in (rows, past + another)
    ]
    (one, booster), (other, other_booster) = judged
    assert booster == other_booster
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name])
    gains = [ranker.judged[-1].results.gain["repeat"].tolist() for ranker in rankers]
    assert gains[0] != gains[1], "what was found depends on it"


def test_every_user_gets_five_distinct_events_by_score(lists: Recommendations) -> None:
    assert lists.users.tolist() == list(range(PAST.num_users))
    assert (lists.events >= 0).all()
    assert all(len(set(row)) == 5 for row in lists.events.tolist())
    assert (np.diff(lists.scores) <= 0).all() and ((lists.scores >= 0) & (lists.scores <= 1)).all()


def test_the_lists_beat_popularity_on_the_week_after(lists: Recommendations) -> None:
    truth = history(habits(weeks=WEEKS + 1), WEEKS)
    user, event = truth.in_week(truth.week)
    positive = set(zip(user.tolist(), event.tolist(), strict=True))
    sizes = np.bincount(user, minlength=PAST.num_users)
    assert (sizes > 0).all()

    def quality(events: IntArray) -> float:
        hits = np.array([[(u, e) in positive for e in row] for u, row in enumerate(events.tolist())])
        return float(ndcg_of(hits, sizes).mean())

    popular = np.tile(baselines.popular(PAST), (PAST.num_users, 1))
    assert quality(lists.events) > 1.5 * quality(popular)


def test_same_seed_gives_the_same_bytes(
    embedding_history: EmbeddingHistory, ranker: RankerCheckpoint, tmp_path: Path
) -> None:
    ranker.save(tmp_path / "one")
    train_ranker(PAST, embedding_history, LAST, config=CONFIG).save(tmp_path / "two")
    for name in ("tensors.safetensors", "judged.safetensors", "meta.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_checkpoint_survives_its_file(
    embedding_history: EmbeddingHistory, ranker: RankerCheckpoint, lists: Recommendations, tmp_path: Path
) -> None:
    ranker.save(tmp_path / LAST)
    loaded = RankerCheckpoint.load(tmp_path / LAST)
    again = lists_of(loaded, embedding_history)
    np.testing.assert_array_equal(again.events, lists.events)
    np.testing.assert_array_equal(again.scores, lists.scores)


def test_blocks_of_users_do_not_change_a_list(
    embedding_history: EmbeddingHistory,
    ranker: RankerCheckpoint,
    lists: Recommendations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tgn_assets.ml.recommend.top_k.RANKING_SHARD", 7)
    monkeypatch.setattr("tgn_assets.ml.ranker.checkpoint.USERS_EMBEDDED_TOGETHER", 7)
    again = lists_of(ranker, embedding_history)
    np.testing.assert_array_equal(again.events, lists.events)


def test_a_segment_that_falls_back_gets_the_baselines_list(
    embedding_history: EmbeddingHistory, ranker: RankerCheckpoint
) -> None:
    fallback = type(ranker.fallback)({"active": "repeat", "lapsed": OURS}, ranker.fallback.hit_rate)
    lists = lists_of(replace(ranker, fallback=fallback), embedding_history)
    assert set(lists.source) == {"repeat"}
    np.testing.assert_array_equal(lists.events, baselines.baseline_lists(["repeat"], PAST, lists.users)["repeat"])


def test_diagnostics_show_lists_before_the_fallback_and_channels(
    embedding_history: EmbeddingHistory, ranker: RankerCheckpoint
) -> None:
    sources = [dict.fromkeys(ranker.fallback.source, name) for name in ("repeat", OURS)]
    with_fallback, without_fallback = (
        replace(ranker, fallback=replace(ranker.fallback, source=source)) for source in sources
    )
    embeddings = temporal_embeddings(ranker, PAST, embedding_history)
    own = recommend(PAST, without_fallback, embedding_history, embeddings).events
    row = np.append(np.repeat(np.arange(PAST.num_users), 5)[::-1], 0)
    event = np.append(own.ravel()[::-1], PAST.num_events - 1)
    diagnostics = diagnose(PAST, with_fallback, embedding_history, embeddings)
    np.testing.assert_array_equal(diagnostics.lists(np.arange(PAST.num_users)), own)
    everyone = user_shard(PAST, embedding_history[LAST], np.arange(PAST.num_users))
    candidates = CandidateGenerator(PAST, embedding_history[LAST]).candidates(everyone, CONFIG.candidates)
    pairs = candidates.row * PAST.num_events + candidates.event
    of_channel = diagnostics.found(np.arange(PAST.num_users), row, event)
    for key, found in zip(row * PAST.num_events + event, of_channel, strict=True):
        assert found.tolist() == (candidates.channels[pairs == key].tolist() or [[False] * len(CHANNELS)])[0]


@pytest.mark.parametrize("weeks", [1, 2])
def test_a_log_too_short_to_learn_from_is_served_by_a_baseline(weeks: int) -> None:
    young, key = history(habits(weeks=weeks), weeks - 1), shift(START, weeks - 1)
    embedding_history = train_gnn(snapshots(habits(weeks=weeks), range(weeks)), key, GNN).embeddings
    ranker = train_ranker(young, embedding_history, key, config=CONFIG)
    lists = lists_of(ranker, embedding_history, young)
    assert not ranker.trained and OURS not in lists.source
    assert (lists.events >= 0).all() and len(lists.users) == young.num_users


def test_a_catalogue_of_three_gives_lists_of_three() -> None:
    rows = [(f"u{user}", f"e{(user + week) % 3}", week, 1) for user in range(9) for week in range(6)]
    small, key = history(rows, 5), shift(START, 5)
    embedding_history = train_gnn(snapshots(rows, range(6)), key, GNN).embeddings
    ranker = train_ranker(small, embedding_history, key, config=CONFIG)
    lists = lists_of(ranker, embedding_history, small)
    assert (lists.events[:, 3:] == -1).all()
    assert all(sorted(row) == [0, 1, 2] for row in lists.events[:, :3].tolist())


def test_weeks_in_which_nobody_took_up_a_known_event_teach_nothing() -> None:
    rows = [(f"u{user}", f"e{user % 3}-{week}", week, 1) for user in range(9) for week in range(6)]
    of_new_events, key = history(rows, 5), shift(START, 5)
    embedding_history = train_gnn(snapshots(rows, range(6)), key, GNN).embeddings
    ranker = train_ranker(of_new_events, embedding_history, key, config=CONFIG)
    lists = lists_of(ranker, embedding_history, of_new_events)
    assert not ranker.trained and OURS not in lists.source
    assert (lists.events >= 0).all()


@pytest.mark.parametrize("user", range(4))
def test_the_only_user_to_learn_from_may_be_any_one(user: int) -> None:
    new = [(f"u{one}", f"e{one}-{week}", week, 1) for one in range(4) if one != user for week in range(3)]
    rows = [*new, *((f"u{user}", "again", week, 1) for week in range(3))]
    small, key = history(rows, 2), shift(START, 2)
    embedding_history = train_gnn(snapshots(rows, range(3)), key, GNN).embeddings
    assert train_ranker(small, embedding_history, key, config=CONFIG).trained


def test_no_history_at_all_gives_no_lists() -> None:
    no_log = history([], 0)
    ranker = train_ranker(no_log, {}, START, config=CONFIG)
    lists = lists_of(ranker, {}, no_log)
    assert len(lists.users) == 0 and (lists.new_user_events == -1).all()


def test_data_of_another_week_is_refused(embedding_history: EmbeddingHistory) -> None:
    with pytest.raises(ValueError, match="data of another week"):
        train_ranker(PAST, embedding_history, shift(LAST, -1), config=CONFIG)


def test_embeddings_of_other_nodes_are_refused(embedding_history: EmbeddingHistory, ranker: RankerCheckpoint) -> None:
    embeddings = temporal_embeddings(ranker, PAST, embedding_history)
    grown = history([*habits(weeks=WEEKS), ("a late user", "a late event", 0, 1)], WEEKS - 1)
    assert embeddings.fits(PAST.user_idx, PAST.event_idx) and not embeddings.fits(grown.user_idx, grown.event_idx)
    with pytest.raises(ValueError, match="other nodes"):
        recommend(grown, ranker, embedding_history, embeddings)
    with pytest.raises(ValueError, match="other nodes"):
        diagnose(grown, ranker, embedding_history, embeddings).lists(np.arange(3))


def test_the_tuned_numbers_are_kept_with_the_checkpoint(ranker: RankerCheckpoint, tmp_path: Path) -> None:
    tuned = replace(ranker, config=CONFIG.model_copy(update={"blend": BlendConfig(tree_weight=0.7)}))
    tuned.save(tmp_path / LAST)
    assert RankerCheckpoint.load(tmp_path / LAST).config.blend.tree_weight == 0.7
    assert tuned.meta()["config"]["lambdarank"]["rounds"] == 100


def test_a_checkpoint_with_other_pair_features_is_refused(
    embedding_history: EmbeddingHistory, ranker: RankerCheckpoint
) -> None:
    renamed = replace(ranker, features=("another", *ranker.features[1:]))
    with pytest.raises(ArtifactError, match=f"the ranker of {LAST} .* other pair features"):
        temporal_embeddings(renamed, PAST, embedding_history)
    week, later = shift(LAST, 1), history(habits(weeks=WEEKS + 1), WEEKS)
    inputs = PointInTimeView(later, {**embedding_history, week: embedding_history[LAST]}, CONFIG)
    assert can_warm_start_ranker(ranker, inputs) and not can_warm_start_ranker(renamed, inputs)


@pytest.mark.parametrize("silent", [1, 2])
def test_cold_start_after_silent_weeks_holds_out_the_newest_with_activity(silent: int) -> None:
    rows = habits(weeks=WEEKS - silent)
    past, weeks = history(rows, WEEKS - 1), range(WEEKS)
    known = train_gnn(snapshots(rows, weeks), LAST, GNN).embeddings
    ranker = train_ranker(past, known, LAST, config=CONFIG)
    assert ranker.trained and ranker.calibration is not None and "ndcg_tgn_assets" in ranker.validation
    assert lists_of(ranker, known, past).scores.max() > 0
    week = shift(LAST, -silent)
    seen = {key: embeddings for key, embeddings in known.items() if key <= week}
    eve = train_ranker(past.as_of(week_number(week)), seen, week, config=CONFIG)
    assert ranker.validation.keys() == eve.validation.keys()
    assert ranker.validation["ndcg_repeat"] == eve.validation["ndcg_repeat"]
