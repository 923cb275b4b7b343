import re
from dataclasses import replace

import numpy as np
import pytest

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.ranker import training_set_cache
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache, cache_keys
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 9
LAST = shift(START, WEEKS - 1)
NOW = week_number(LAST)
CONFIG = RankerConfig(dim=8, heads=1, origins=3, sequence=2, epochs=2, candidates=6)
GNN = GNNConfig(dim=4, window=3, replay=6, epochs=1, warm_epochs=1, batching="full")


@pytest.fixture(scope="module")
def past():
    return history(habits(users=16, weeks=WEEKS), WEEKS - 1)


@pytest.fixture(scope="module")
def embedding_history():
    return train_gnn(snapshots(habits(users=16, weeks=WEEKS), range(WEEKS)), LAST, GNN).embeddings


def train(
    past, embedding_history, week: str, store: TrainingSetCache | None, progress: LogFn = no_log
) -> RankerCheckpoint:
    known = {key: embeddings for key, embeddings in embedding_history.items() if key <= week}
    return train_ranker(past.as_of(week_number(week)), known, week, CONFIG, store=store, progress=progress)


def bytes_of(checkpoint: RankerCheckpoint, directory) -> bytes:
    checkpoint.save(directory)
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def made(monkeypatch) -> list[str]:
    """The weeks of the lessons that are made from now on, as they are made."""
    weeks, make = [], training_set_cache.build_training_set
    monkeypatch.setattr(
        "tgn_assets.ml.ranker.train.build_training_set",
        lambda known, view, seed: weeks.append(view.week) or make(known, view, seed),
    )
    return weeks


def test_a_week_makes_its_own_lesson_and_finds_the_others(past, embedding_history, tmp_path, monkeypatch):
    store, weeks = TrainingSetCache(tmp_path), made(monkeypatch)
    train(past, embedding_history, shift(LAST, -1), store)
    assert weeks == [shift(LAST, -5 + at) for at in range(4)]
    weeks.clear()
    train(past, embedding_history, LAST, store)
    assert weeks == [shift(LAST, -1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [shift(LAST, -4 + at) for at in range(4)]


def test_it_says_which_lessons_it_makes_and_of_how_many_and_nothing_of_those_it_finds(
    past, embedding_history, tmp_path
):
    said, store = list[str](), TrainingSetCache(tmp_path)
    eve = shift(LAST, -1)
    train(past, embedding_history, eve, store, said.append)
    told = [re.search(r"lessons of past weeks: (\S+) with [\d,]+ users; (\d of \d) weeks", line) for line in said]
    assert [found.groups() for found in told if found] == [
        (shift(eve, back - 4), f"{back + 1} of 4") for back in range(4)
    ]
    said.clear()
    train(past, embedding_history, LAST, store, said.append)
    assert [eve in line and "1 of 1 weeks" in line for line in said if "lessons" in line] == [True]


def test_a_ranker_is_the_same_whether_its_lessons_were_kept_or_not(past, embedding_history, tmp_path):
    store = TrainingSetCache(tmp_path / "lessons")
    train(past, embedding_history, shift(LAST, -1), store)
    kept, fresh = train(past, embedding_history, LAST, store), train(past, embedding_history, LAST, None)
    assert bytes_of(kept, tmp_path / "kept") == bytes_of(fresh, tmp_path / "fresh")


def test_a_lesson_does_not_depend_on_the_blocks_it_is_made_in(past, embedding_history, tmp_path, monkeypatch):
    checkpoints = []
    for users in (1000, 5):
        monkeypatch.setattr(training_set_cache, "USERS_PER_BLOCK", users)
        checkpoints.append(
            bytes_of(train(past, embedding_history, LAST, TrainingSetCache(tmp_path / f"{users}")), tmp_path / "ranker")
        )
    assert checkpoints[0] == checkpoints[1]
    for whole in (tmp_path / "1000").iterdir():
        in_parts = tmp_path / "5" / whole.name / "tensors.safetensors"
        assert (whole / "tensors.safetensors").read_bytes() == in_parts.read_bytes()


def test_a_damaged_lesson_is_made_again(past, embedding_history, tmp_path, monkeypatch):
    store, weeks = TrainingSetCache(tmp_path), made(monkeypatch)
    train(past, embedding_history, LAST, store)
    whole, damaged, gone = (tmp_path / shift(LAST, -at) for at in (3, 2, 1))
    before = (damaged / "tensors.safetensors").read_bytes()
    (damaged / "tensors.safetensors").write_bytes(before[:100])
    (gone / "meta.json").unlink()
    weeks.clear()
    train(past, embedding_history, LAST, store)
    assert whole.name not in weeks and weeks == [damaged.name, gone.name]
    assert (damaged / "tensors.safetensors").read_bytes() == before


def test_a_lesson_is_made_again_when_rows_embeddings_rules_or_settings_change(past, embedding_history):
    def name(past=past, embedding_history=embedding_history, config=CONFIG, rules=OPEN, week=NOW - 2) -> str:
        return cache_keys(past, [week], embedding_history, config, "cpu", rules)[week]

    late = replace(past, count=np.where(past.week_no == NOW - 1, 7.0, past.count))
    assert name(late) != name()  # the week after the origin: its labels
    newer = dict(embedding_history)
    newer[shift(LAST, -2)] = replace(
        embedding_history[shift(LAST, -2)], users=embedding_history[shift(LAST, -2)].users + 1
    )
    assert name(embedding_history=newer) != name()
    assert name(rules=Rules(exclude_own=True)) != name()
    assert name(rules=Rules(restricted=past.event_idx[:1], last_week=np.array([0]))) != name()
    assert name(config=CONFIG.model_copy(update={"candidates": 7})) != name()
    assert name(config=CONFIG.model_copy(update={"learning_rate": 1.0})) == name()


def test_the_name_of_a_lesson_knows_nothing_of_later_weeks(past, embedding_history):
    rows = [*habits(users=16, weeks=WEEKS - 1), ("aaa", "aaa", WEEKS - 1, 5), ("u000", "e000", WEEKS - 1, 9)]
    other = history(rows, WEEKS - 1)
    later = dict(embedding_history)
    later[LAST] = replace(embedding_history[LAST], users=embedding_history[LAST].users + 1)
    ban = Rules(restricted=other.event_idx[-1:], last_week=np.array([0]))  # an event first seen in the last week
    weeks = [NOW - 4, NOW - 2]
    assert cache_keys(past, weeks, embedding_history, CONFIG, "cpu", OPEN) == cache_keys(
        other, weeks, later, CONFIG, "cpu", ban
    )


def test_embeddings_of_the_same_numbers_have_the_same_digest_from_memory_and_from_disk(embedding_history, tmp_path):
    embedding_history[LAST].save(tmp_path / LAST)
    assert NodeEmbeddings.load(tmp_path / LAST).digest == embedding_history[LAST].digest
    assert (
        replace(embedding_history[LAST], events=embedding_history[LAST].events * 2).digest
        != embedding_history[LAST].digest
    )
