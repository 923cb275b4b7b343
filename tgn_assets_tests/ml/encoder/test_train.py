import re
from functools import partial

import pytest
import torch

from tgn_assets.ml.artifact_io import TrainingError
from tgn_assets.ml.config import GNNConfig
from tgn_assets.ml.encoder import softmax_loss, train
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint
from tgn_assets.ml.encoder.gnn import GNNEncoder
from tgn_assets.ml.encoder.linear_link_model import link_vectors
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.graph.temporal_graph import WindowGraph, user_rows
from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 12
CONFIG = GNNConfig(dim=8, window=6, replay=3, epochs=6, warm_epochs=2, batching="full")
LAST = shift(START, WEEKS - 1)


@pytest.fixture(scope="module")
def weeks():
    return snapshots(habits(weeks=WEEKS), range(WEEKS))


@pytest.fixture(scope="module")
def cold(weeks):
    return train_gnn(weeks, LAST, CONFIG)


@pytest.fixture(scope="module")
def linked_cold(weeks):
    return train_gnn(weeks, LAST, CONFIG, history=history(habits(weeks=WEEKS), WEEKS - 1))


def bytes_of(checkpoint: GNNCheckpoint, directory) -> bytes:
    checkpoint.save(directory)
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def test_training_lowers_the_loss_and_records_its_curve(cold):
    first = [row for row in cold.curve if row["origin"] == shift(LAST, -2)]
    assert first[-1]["loss"] < first[0]["loss"]
    assert all(row["validation_loss"] > 0 for row in cold.curve if row["epoch"] != "final")


@pytest.mark.parametrize("batching", ["full", "sampled"])
def test_it_says_after_each_pass_how_many_links_it_went_over_of_those_that_it_may_have_to(weeks, batching):
    said = list[str]()
    config = CONFIG.model_copy(update={"batching": batching, "patience": 1})
    checkpoint = train_gnn(weeks, LAST, config, progress=said.append)
    told = [re.search(r"week (\S+) .*; ([\d,]+) of (?:at most )?([\d,]+) links", line) for line in said]
    assert [found[1] for found in told] == [row["origin"] for row in checkpoint.curve]
    done, expected = ([int(found[at].replace(",", "")) for found in told] for at in (2, 3))
    assert done == sorted(set(done)) and expected == sorted(expected, reverse=True)
    assert done[-1] <= expected[-1]  # less only where the last weeks ended early as well


def test_a_user_is_nearer_to_the_events_of_its_community_than_to_the_others(cold):
    embeddings = cold.embeddings[LAST]
    logits = embeddings.users[:, :-1] @ embeddings.events[:, :-1].T  # without popularity, which both communities share
    same = (torch.arange(40)[:, None] % 2) == (torch.arange(20)[None] // 10)
    assert logits[same].mean() > logits[~same].mean()


def test_a_cold_start_walks_through_the_replayed_weeks_and_a_warm_one_takes_a_step(weeks, cold):
    assert sorted(cold.embeddings) == [shift(LAST, back) for back in (-2, -1, 0)]
    assert cold.warm_from is None
    before = train_gnn({week: s for week, s in weeks.items() if week < LAST}, shift(LAST, -1), CONFIG)
    warm = train_gnn(weeks, LAST, CONFIG, warm=before)
    assert list(warm.embeddings) == [LAST] and warm.warm_from == shift(LAST, -1)


def test_a_warm_start_keeps_the_ids_it_learnt_and_gives_new_nodes_fresh_ones(weeks):
    rows = [*habits(weeks=WEEKS), ("aaa-new", "aaa-new", WEEKS - 1, 1)]
    grown = snapshots(rows, range(WEEKS))
    before = train_gnn({week: s for week, s in grown.items() if week < LAST}, shift(LAST, -1), CONFIG)
    frozen = CONFIG.model_copy(update={"learning_rate": 1e-12})
    after = train_gnn(grown, LAST, frozen, warm=before)
    torch.testing.assert_close(after.state["ids.event"][:20], before.state["ids.event"])
    assert after.state["ids.event"].shape == (21, 8) and after.state["ids.event"][20].any()


def test_a_changed_width_starts_cold(weeks, cold):
    wider = train_gnn(weeks, LAST, CONFIG.model_copy(update={"dim": 10, "replay": 1}), warm=cold)
    assert wider.warm_from is None and wider.embeddings[LAST].users.shape[1] == 11


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(weeks, cold, tmp_path):
    again = train_gnn(weeks, LAST, CONFIG)
    other = train_gnn(weeks, LAST, CONFIG.model_copy(update={"seed": 1}))
    assert bytes_of(again, tmp_path / "a") == bytes_of(cold, tmp_path / "b")
    assert bytes_of(other, tmp_path / "c") != bytes_of(cold, tmp_path / "b")


def test_training_leaves_the_global_random_state_alone(weeks):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_gnn(weeks, LAST, CONFIG.model_copy(update={"replay": 1, "epochs": 1}))
    assert torch.rand(1) == expected


def test_a_snapshot_newer_than_the_week_is_refused(weeks):
    with pytest.raises(ValueError, match="is trained on the snapshots up to it"):
        train_gnn(weeks, shift(LAST, -1), CONFIG)


def test_embeddings_of_a_replayed_week_do_not_depend_on_later_weeks(weeks, cold):
    later = [(f"u{user:03}", f"e{(7 * user) % 20:03}", WEEKS - 1, 9) for user in range(40)]
    changed = snapshots(habits(weeks=WEEKS - 1) + later, range(WEEKS))
    other = train_gnn(changed, LAST, CONFIG)
    for week in (shift(LAST, -2), shift(LAST, -1)):
        assert torch.equal(other.embeddings[week].users, cold.embeddings[week].users)
        assert torch.equal(other.embeddings[week].events, cold.embeddings[week].events)
    assert not torch.equal(other.embeddings[LAST].users, cold.embeddings[LAST].users)


@pytest.mark.parametrize("rows", [[], [("ann", "tea", WEEKS - 1, 1)], [("ann", "tea", w, 1) for w in range(WEEKS)]])
def test_an_empty_log_a_single_interaction_and_a_single_user_are_no_reason_to_fail(rows):
    checkpoint = train_gnn(snapshots(rows, range(WEEKS)), LAST, CONFIG)
    assert torch.isfinite(checkpoint.embeddings[LAST].users).all()


def test_links_of_a_week_are_those_of_its_close_whatever_came_later(cold, linked_cold):
    rows = habits(weeks=WEEKS)
    has_link_vectors = linked_cold.embeddings
    assert sorted(has_link_vectors) == sorted(cold.embeddings)
    for week, known in has_link_vectors.items():
        at = week_number(week) - week_number(START)
        direct = link_vectors(history([row for row in rows if row[2] <= at], at))
        assert torch.equal(known.link_users, direct.users.half())
        assert torch.equal(known.link_events, direct.events.half())
        assert torch.equal(known.users, cold.embeddings[week].users)
        assert known.digest != cold.embeddings[week].digest


@pytest.mark.parametrize("edges", [0, train.EDGES_FOR_A_THREAD])
def test_links_made_beside_the_encoder_or_after_it_leave_the_same_bytes(
    weeks, linked_cold, tmp_path, monkeypatch, edges
):
    monkeypatch.setattr(train, "EDGES_FOR_A_THREAD", edges)
    again = train_gnn(weeks, LAST, CONFIG, history=history(habits(weeks=WEEKS), WEEKS - 1))
    assert bytes_of(again, tmp_path / "a") == bytes_of(linked_cold, tmp_path / "b")


def test_a_history_of_another_week_is_refused(weeks):
    with pytest.raises(ValueError, match="is trained with the history up to it, not up to"):
        train_gnn(weeks, LAST, CONFIG, history=history(habits(weeks=WEEKS), WEEKS - 2))


def test_a_checkpoint_survives_its_file(cold, linked_cold, tmp_path):
    cold.save(tmp_path / LAST)
    loaded = GNNCheckpoint.load(tmp_path / LAST)
    assert (loaded.week, loaded.config, loaded.curve) == (cold.week, cold.config, cold.curve)
    assert torch.equal(loaded.embeddings[LAST].events, cold.embeddings[LAST].events)
    assert loaded.embeddings[LAST].link_users is None
    linked_cold.save(tmp_path / LAST)
    again = GNNCheckpoint.load(tmp_path / LAST).embeddings[LAST]
    assert torch.equal(again.link_users, linked_cold.embeddings[LAST].link_users)
    assert torch.equal(again.link_events, linked_cold.embeddings[LAST].link_events)


def test_sampled_batches_with_all_neighbours_see_what_the_whole_graph_sees(weeks):
    from tgn_assets.ml.graph.loaders import link_loader

    graph = WindowGraph(weeks, 4.0)
    view = graph.view(week_number(LAST) - 1, 6)
    links, _ = graph.links(week_number(LAST), view)
    torch.manual_seed(0)
    encoder = GNNEncoder({kind: len(index) for kind, index in graph.node_idx.items()}, 7, 8, 2).eval()
    whole = encoder.inference(view)
    loader = link_loader(view.data, links, fan_out=[-1, -1], batch_size=5, exclude_links=False)
    for batch in loader:
        pairs = batch["user", "interacts_with", "event"].edge_label_index
        with torch.no_grad():
            vectors = encoder.sampled_pass(batch, view)
        for kind, local in zip((USER, EVENT), pairs, strict=True):
            torch.testing.assert_close(vectors[kind][local], whole[kind][batch[kind].n_id[local]])


def test_a_pass_for_some_users_gives_the_vectors_and_gradients_of_a_whole_one(weeks):
    graph = WindowGraph(weeks, 4.0)
    view = graph.view(week_number(LAST) - 1, 6)
    torch.manual_seed(0)
    encoder = GNNEncoder({kind: len(index) for kind, index in graph.node_idx.items()}, 7, 8, 2)
    users, found = torch.tensor([7, 0, 3]), []
    for vectors in (encoder.full_pass(view), encoder.full_pass(view, rows=user_rows(view.adjacency, users))):
        of_users = vectors[USER] if len(vectors[USER]) == 3 else vectors[USER][users]
        encoder.zero_grad()
        (of_users.sin().sum() + vectors[EVENT].cos().sum()).backward()
        found.append([of_users, vectors[EVENT], *(parameter.grad for parameter in encoder.parameters())])
    for whole, some in zip(*found, strict=True):
        torch.testing.assert_close(some, whole)


def test_links_are_put_in_order_once_unless_each_pass_draws_others(weeks, monkeypatch):
    planned = []

    def counted(max_logits: int) -> int:
        planned.clear()
        how = partial(softmax_loss.plan_links, max_logits=max_logits)
        monkeypatch.setattr(train, "plan_links", lambda *links: planned.append(links) or how(*links))
        train_gnn(weeks, LAST, CONFIG.model_copy(update={"replay": 1, "epochs": 2}))
        return len(planned)

    assert counted(softmax_loss.MAX_LOGITS) == CONFIG.window
    # A week is passed over twice, or held out twice, and passed over in the end.
    assert counted(1) == 3 * CONFIG.window


def test_training_on_sampled_neighbourhoods_learns_as_well(weeks):
    sampled = CONFIG.model_copy(update={"batching": "sampled", "replay": 1, "fan_out": [5, 5], "batch_size": 64})
    curve = train_gnn(weeks, LAST, sampled).curve
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_a_training_that_diverges_is_an_error_that_says_what_to_change(weeks):
    with pytest.raises(TrainingError, match="lower its learning_rate"):
        train_gnn(weeks, LAST, CONFIG.model_copy(update={"learning_rate": 1e30}))
