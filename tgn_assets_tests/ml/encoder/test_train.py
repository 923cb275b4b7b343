import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from tgn_assets.ml.artifact_io import TrainingError
from tgn_assets.ml.config import Batching, GNNConfig, NodeFeatureConfig, SoftmaxLossConfig
from tgn_assets.ml.encoder import softmax_loss, train, trainer
from tgn_assets.ml.encoder.batching import BatchingPlan
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint
from tgn_assets.ml.encoder.gnn import GNNEncoder
from tgn_assets.ml.encoder.linear_link_model import link_vectors
from tgn_assets.ml.encoder.train import can_warm_start_encoder, snapshot_weeks, train_gnn
from tgn_assets.ml.graph.snapshots import Snapshot
from tgn_assets.ml.graph.temporal_graph import WindowGraph
from tgn_assets.ml.processor import processor, seeded
from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, Row, habits, history, snapshots

WEEKS = 12
CONFIG = GNNConfig(dim=8, window=6, replay=3, epochs=6, warm_epochs=2, batching="full")
LAST = shift(START, WEEKS - 1)
Weeks = dict[str, Snapshot]


@pytest.fixture(scope="module")
def weeks() -> Weeks:
    return snapshots(habits(weeks=WEEKS), range(WEEKS))


@pytest.fixture(scope="module")
def cold(weeks: Weeks) -> GNNCheckpoint:
    return train_gnn(weeks, LAST, CONFIG)


@pytest.fixture(scope="module")
def linked_cold(weeks: Weeks) -> GNNCheckpoint:
    return train_gnn(weeks, LAST, CONFIG, history=history(habits(weeks=WEEKS), WEEKS - 1))


def bytes_of(checkpoint: GNNCheckpoint, directory: Path) -> bytes:
    checkpoint.save(directory)
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def changed(**fields: Any) -> GNNConfig:
    return CONFIG.model_copy(update=fields)


def weeks_before_last(weeks: Weeks) -> Weeks:
    return {week: snapshot for week, snapshot in weeks.items() if week < LAST}


@pytest.mark.parametrize("max_user_ids", [0, 2000])
def test_the_number_of_threads_does_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_user_ids: int
) -> None:
    monkeypatch.setattr(train, "EDGES_FOR_ALL_THREADS", 0)
    rows = [(f"u{user}", f"e{(user * 7 + week) % 600}", week, 1) for user in range(2000) for week in range(3)]
    config, threads = GNNConfig(epochs=2, replay=1, max_user_ids=max_user_ids), torch.get_num_threads()
    made = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            trained = train_gnn(snapshots(rows, range(3)), shift(START, 2), config)
            made.append(bytes_of(trained, tmp_path / str(number)))
    finally:
        torch.set_num_threads(threads)
    assert made[0] == made[1] == made[2]


def test_training_lowers_the_loss_and_records_its_curve(cold: GNNCheckpoint) -> None:
    first = [row for row in cold.curve if row["cutoff"] == shift(LAST, -2)]
    assert first[-1]["loss"] < first[0]["loss"]
    assert all(row["validation_loss"] > 0 for row in cold.curve if row["epoch"] != "final")


@pytest.mark.parametrize("batching", ["full", "sampled"])
def test_each_epoch_logs_links_done_of_at_most_so_many(weeks: Weeks, batching: Batching) -> None:
    logged = list[str]()
    checkpoint = train_gnn(weeks, LAST, changed(batching=batching, patience=1), progress=logged.append)
    told = [re.search(r"week (\S+) .*; ([\d,]+) of (?:at most )?([\d,]+) links", line) for line in logged]
    found = [match.groups() for match in told if match]
    assert [week for week, _, _ in found] == [row["cutoff"] for row in checkpoint.curve]
    done, expected = ([int(row[at].replace(",", "")) for row in found] for at in (1, 2))
    assert done == sorted(set(done)) and expected == sorted(expected, reverse=True)
    assert done[-1] <= expected[-1]  # less only where the last weeks ended early as well


def test_user_scores_events_of_its_community_higher(cold: GNNCheckpoint) -> None:
    embeddings = cold.embeddings[LAST]
    logits = embeddings.users[:, :-1] @ embeddings.events[:, :-1].T  # without popularity, which both communities share
    same = (torch.arange(40)[:, None] % 2) == (torch.arange(20)[None] // 10)
    assert logits[same].mean() > logits[~same].mean()


def test_cold_start_replays_weeks_and_warm_start_trains_one(weeks: Weeks, cold: GNNCheckpoint) -> None:
    assert sorted(cold.embeddings) == [shift(LAST, back) for back in (-2, -1, 0)]
    assert cold.warm_from is None
    before = train_gnn(weeks_before_last(weeks), shift(LAST, -1), CONFIG)
    warm = train_gnn(weeks, LAST, CONFIG, warm=before)
    assert list(warm.embeddings) == [LAST] and warm.warm_from == shift(LAST, -1)


def test_embeddings_of_earlier_weeks_may_lie_on_disk(weeks: Weeks, cold: GNNCheckpoint, tmp_path: Path) -> None:
    on_disk = train_gnn(weeks, LAST, CONFIG, scratch=tmp_path / "scratch")
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == [shift(LAST, -2), shift(LAST, -1)]
    assert bytes_of(on_disk, tmp_path / "disk") == bytes_of(cold, tmp_path / "memory")
    loaded = GNNCheckpoint.load(tmp_path / "disk")
    assert {week: known.digest for week, known in loaded.embeddings.items()} == {
        week: known.digest for week, known in cold.embeddings.items()
    }
    assert torch.equal(loaded.embeddings[shift(LAST, -2)].users, cold.embeddings[shift(LAST, -2)].users)


def test_beyond_a_limit_users_have_no_ids_and_still_their_community(weeks: Weeks) -> None:
    without = train_gnn(weeks_before_last(weeks), shift(LAST, -1), changed(max_user_ids=39))
    assert "ids.user" not in without.state and len(without.embeddings[shift(LAST, -1)].users) == 40
    test_user_scores_events_of_its_community_higher(train_gnn(weeks, LAST, changed(max_user_ids=39), warm=without))
    grown = train_gnn(weeks, LAST, changed(max_user_ids=40), warm=without)
    assert grown.state["ids.user"].shape == (40, 8) and grown.warm_from == shift(LAST, -1)


def test_warm_start_keeps_learned_ids_and_new_nodes_get_fresh_ones() -> None:
    rows = [*habits(weeks=WEEKS), ("aaa-new", "aaa-new", WEEKS - 1, 1)]
    grown = snapshots(rows, range(WEEKS))
    before = train_gnn(weeks_before_last(grown), shift(LAST, -1), CONFIG)
    after = train_gnn(grown, LAST, changed(learning_rate=1e-12), warm=before)
    torch.testing.assert_close(after.state["ids.event"][:20], before.state["ids.event"])
    assert after.state["ids.event"].shape == (21, 8) and after.state["ids.event"][20].any()


def test_warm_start_drops_the_bias_that_earlier_versions_had(weeks: Weeks, tmp_path: Path) -> None:
    before = train_gnn(weeks_before_last(weeks), shift(LAST, -1), CONFIG)
    with_bias = replace(before, state=before.state | {"popularity.bias": torch.ones(1)})
    first, second = (train_gnn(weeks, LAST, CONFIG, warm=warm) for warm in (before, with_bias))
    assert bytes_of(first, tmp_path / "a") == bytes_of(second, tmp_path / "b")


def test_changed_width_starts_cold(weeks: Weeks, cold: GNNCheckpoint) -> None:
    wider = train_gnn(weeks, LAST, changed(dim=10, replay=1), warm=cold)
    assert wider.warm_from is None and wider.embeddings[LAST].users.shape[1] == 11


@pytest.mark.parametrize(
    ("fields", "warm"),
    [
        ({"epochs": 9, "learning_rate": 0.1, "window": 3}, True),
        ({"layers": 3}, False),
        ({"features": NodeFeatureConfig(recent_half_lives=[0.3, 1.0])}, False),
    ],
)
def test_warm_start_needs_same_shape_and_features(fields: dict[str, Any], warm: bool) -> None:
    assert can_warm_start_encoder(changed(**fields), CONFIG) is warm


def test_same_seed_gives_same_bytes(weeks: Weeks, cold: GNNCheckpoint, tmp_path: Path) -> None:
    again = train_gnn(weeks, LAST, CONFIG)
    other = train_gnn(weeks, LAST, changed(seed=1))
    assert bytes_of(again, tmp_path / "a") == bytes_of(cold, tmp_path / "b")
    assert bytes_of(other, tmp_path / "c") != bytes_of(cold, tmp_path / "b")


@pytest.mark.parametrize("batching", ["full", "sampled"])
def test_training_leaves_the_global_random_state_alone(weeks: Weeks, batching: Batching) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_gnn(weeks, LAST, changed(replay=1, epochs=1, batching=batching))
    assert torch.rand(1) == expected


def test_snapshot_newer_than_the_week_is_refused(weeks: Weeks) -> None:
    with pytest.raises(ValueError, match="is trained on the snapshots up to it"):
        train_gnn(weeks, shift(LAST, -1), CONFIG)


def test_replayed_embeddings_do_not_depend_on_later_weeks(cold: GNNCheckpoint) -> None:
    later = [(f"u{user:03}", f"e{(7 * user) % 20:03}", WEEKS - 1, 9) for user in range(40)]
    other = train_gnn(snapshots(habits(weeks=WEEKS - 1) + later, range(WEEKS)), LAST, CONFIG)
    for week in (shift(LAST, -2), shift(LAST, -1)):
        assert torch.equal(other.embeddings[week].users, cold.embeddings[week].users)
        assert torch.equal(other.embeddings[week].events, cold.embeddings[week].events)
    assert not torch.equal(other.embeddings[LAST].users, cold.embeddings[LAST].users)


@pytest.mark.parametrize("batching", ["full", "sampled"])
@pytest.mark.parametrize("rows", [[], [("ann", "tea", WEEKS - 1, 1)], [("ann", "tea", w, 1) for w in range(WEEKS)]])
def test_empty_and_tiny_logs_train(rows: list[Row], batching: Batching) -> None:
    checkpoint = train_gnn(snapshots(rows, range(WEEKS)), LAST, changed(batching=batching))
    assert torch.isfinite(checkpoint.embeddings[LAST].users).all()


def test_link_vectors_are_those_of_each_weeks_close(cold: GNNCheckpoint, linked_cold: GNNCheckpoint) -> None:
    rows = habits(weeks=WEEKS)
    assert sorted(linked_cold.embeddings) == sorted(cold.embeddings)
    for week, known in linked_cold.embeddings.items():
        at = week_number(week) - week_number(START)
        direct = link_vectors(history([row for row in rows if row[2] <= at], at))
        assert known.link_users is not None and known.link_events is not None
        assert torch.equal(known.link_users, direct.users.half())
        assert torch.equal(known.link_events, direct.events.half())
        assert torch.equal(known.users, cold.embeddings[week].users)
        assert known.digest != cold.embeddings[week].digest


@pytest.mark.parametrize("edges", [0, train.EDGES_FOR_ALL_THREADS])
def test_link_vectors_fitted_alongside_or_after_are_same_bytes(
    weeks: Weeks, linked_cold: GNNCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edges: int
) -> None:
    monkeypatch.setattr(train, "EDGES_FOR_ALL_THREADS", edges)
    again = train_gnn(weeks, LAST, CONFIG, history=history(habits(weeks=WEEKS), WEEKS - 1))
    assert bytes_of(again, tmp_path / "a") == bytes_of(linked_cold, tmp_path / "b")


def test_history_of_another_week_is_refused(weeks: Weeks) -> None:
    with pytest.raises(ValueError, match="is trained with the history up to it, not up to"):
        train_gnn(weeks, LAST, CONFIG, history=history(habits(weeks=WEEKS), WEEKS - 2))


def test_checkpoint_survives_its_file(cold: GNNCheckpoint, linked_cold: GNNCheckpoint, tmp_path: Path) -> None:
    cold.save(tmp_path / LAST)
    loaded = GNNCheckpoint.load(tmp_path / LAST)
    assert (loaded.week, loaded.config, loaded.curve) == (cold.week, cold.config, cold.curve)
    assert loaded.batching == cold.batching == BatchingPlan("full", "full", None)
    assert loaded.processor == cold.processor == processor("cpu")
    assert torch.equal(loaded.embeddings[LAST].events, cold.embeddings[LAST].events)
    assert loaded.embeddings[LAST].link_users is None
    linked_cold.save(tmp_path / LAST)
    again, saved = GNNCheckpoint.load(tmp_path / LAST).embeddings[LAST].to_tensors(), linked_cold.embeddings[LAST]
    assert {"link_users", "link_events"} <= set(again)
    assert all(torch.equal(again[name], tensor) for name, tensor in saved.to_tensors().items())


def test_links_are_planned_once_unless_each_epoch_draws_others(weeks: Weeks, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_links = Mock(side_effect=softmax_loss.plan_links)
    monkeypatch.setattr(trainer, "plan_links", plan_links)

    def count(max_logits: int) -> int:
        plan_links.reset_mock()
        train_gnn(weeks, LAST, changed(replay=1, epochs=2, loss=SoftmaxLossConfig(max_logits=max_logits)))
        return plan_links.call_count

    assert count(2**25) == CONFIG.window
    # In each of two epochs a week is learned from or held out, and in the final one it is learned from.
    assert count(1) == 3 * CONFIG.window


def test_sampled_training_lowers_the_loss_and_embeds_layer_by_layer(weeks: Weeks) -> None:
    config = changed(batching="sampled", replay=1, fan_out=[5, 5], batch_size=64, sampler="native")
    checkpoint = train_gnn(weeks, LAST, config)
    assert checkpoint.curve[-1]["loss"] < checkpoint.curve[0]["loss"]
    assert checkpoint.batching == BatchingPlan("sampled", "sampled", "native")
    sizes = {kind: len(checkpoint.node_idx[kind]) for kind in (USER, EVENT)}
    embeddings = checkpoint.embeddings[LAST]
    assert (len(embeddings.users), len(embeddings.events)) == (sizes[USER], sizes[EVENT])


def test_diverged_training_names_what_to_change(weeks: Weeks) -> None:
    with pytest.raises(TrainingError, match="lower its learning_rate"):
        train_gnn(weeks, LAST, changed(learning_rate=1e30))


def test_id_of_an_event_new_in_a_cold_starts_last_week_stays_fresh() -> None:
    weeks = snapshots([*habits(weeks=WEEKS), ("u001", "new", WEEKS - 1, 1)], range(WEEKS))
    sizes = {kind: len(weeks[LAST].data[kind].node_idx) for kind in (USER, EVENT)}
    with seeded(CONFIG.seed, week_number(LAST)):
        fresh = GNNEncoder(sizes, WindowGraph(weeks, CONFIG.half_life).num_features, CONFIG).state_dict()["ids.event"]
    trained = train_gnn(weeks, LAST, CONFIG).state["ids.event"]
    assert torch.equal(trained[-1], fresh[-1]) and fresh[-1].any()  # indices follow the weeks in which events came
    assert not torch.equal(trained[0], fresh[0])


def test_ids_of_silent_users_and_events_are_not_forgotten() -> None:
    rows = [*habits(weeks=WEEKS), *(("zoe", "zoo", week, 1) for week in (0, 1))]
    config = changed(window=3, weight_decay=0.1)
    weeks = snapshots(rows, range(WEEKS))
    before = train_gnn(weeks_before_last(weeks), shift(LAST, -1), config)
    ids = {name: torch.ones_like(before.state[name]) for name in ("ids.user", "ids.event")}
    after = train_gnn(weeks, LAST, config, warm=replace(before, state=before.state | ids)).state
    silent, active = (after["ids.user"][-1], after["ids.user"][0])  # in the order of their ids
    assert (silent == 1).all() and not (active == 1).all()


def test_a_cold_start_reads_all_weeks_that_its_oldest_cutoff_needs(weeks: Weeks, tmp_path: Path) -> None:
    config = changed(window=2, replay=3)

    def trained(read: int, warm: GNNCheckpoint | None = None) -> bytes:
        newest = {week: weeks[week] for week in sorted(weeks)[-read:]}
        return bytes_of(train_gnn(newest, LAST, config, warm=warm), tmp_path / str(read))

    # The oldest of three cut-offs is two weeks back; its two weeks of links see two weeks before them each.
    assert len(snapshot_weeks("2024-07-01", config, None)) == 6
    assert trained(6) == trained(WEEKS) != trained(5)
    before = train_gnn(weeks_before_last(weeks), shift(LAST, -1), config)
    assert len(snapshot_weeks("2024-07-01", config, before)) == 4
    assert trained(4, before) == trained(WEEKS, before) != trained(3, before)
    assert len(snapshot_weeks("2024-07-01", config, replace(before, config=changed(window=2, replay=3, dim=4)))) == 6
    assert len(snapshot_weeks("2024-07-01", GNNConfig(), None)) == 27
