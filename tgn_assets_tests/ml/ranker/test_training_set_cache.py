import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tgn_assets.ml.config import BlendConfig, GNNConfig, RankerConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.import_closure import ROOT, import_closure
from tgn_assets.ml.parallel import Workers
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.ranker import training_set, training_set_cache
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import (
    EmbeddingHistory,
    PointInTimeView,
    TrainingSet,
    build_training_set,
)
from tgn_assets.ml.ranker.training_set_cache import NOT_IN_KEY, TrainingSetCache, cache_keys
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = 9
LAST = shift(START, WEEKS - 1)
NOW = week_number(LAST)
CONFIG = RankerConfig(dim=8, heads=1, origins=3, sequence=2, networks=1, epochs=2, candidates=6)
GNN = GNNConfig(dim=4, window=3, replay=6, epochs=1, warm_epochs=1, batching="full")
ROWS = habits(users=16, weeks=WEEKS)
PAST = history(ROWS, WEEKS - 1)
INPUTS = PointInTimeView(PAST, {}, CONFIG)


@pytest.fixture(scope="module")
def embedding_history() -> EmbeddingHistory:
    return train_gnn(snapshots(ROWS, range(WEEKS)), LAST, GNN).embeddings


def train(
    embedding_history: EmbeddingHistory, week: str, cache: TrainingSetCache | None, progress: LogFn = no_log
) -> RankerCheckpoint:
    known = {key: embeddings for key, embeddings in embedding_history.items() if key <= week}
    return train_ranker(PAST.as_of(week_number(week)), known, week, config=CONFIG, cache=cache, progress=progress)


def bytes_of(checkpoint: RankerCheckpoint, directory: Path) -> bytes:
    checkpoint.save(directory)
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weeks of the training sets that are made from now on, as they are made."""
    weeks = list[str]()

    def recorded(history: InteractionHistory, view: PointInTimeView, workers: Workers) -> TrainingSet:
        weeks.append(view.week)
        return build_training_set(history, view, workers)

    monkeypatch.setattr("tgn_assets.ml.ranker.train.build_training_set", recorded)
    return weeks


def test_a_week_makes_its_own_training_set_and_finds_the_others(
    embedding_history: EmbeddingHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, weeks = TrainingSetCache(tmp_path), made(monkeypatch)
    train(embedding_history, shift(LAST, -1), cache)
    assert weeks == [shift(LAST, -5 + at) for at in range(4)]
    weeks.clear()
    train(embedding_history, LAST, cache)
    assert weeks == [shift(LAST, -1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [shift(LAST, -4 + at) for at in range(4)]


def test_progress_names_training_sets_made_and_none_found(embedding_history: EmbeddingHistory, tmp_path: Path) -> None:
    said, cache = list[str](), TrainingSetCache(tmp_path)
    eve = shift(LAST, -1)
    train(embedding_history, eve, cache, said.append)
    told = [re.search(r"training sets of past weeks: (\S+) with [\d,]+ users; (\d of \d) weeks", line) for line in said]
    expected = [(shift(eve, at - 4), f"{at + 1} of 4") for at in range(4)]
    assert [found.groups() for found in told if found] == expected
    said.clear()
    train(embedding_history, LAST, cache, said.append)
    assert [eve in line and "1 of 1 weeks" in line for line in said if "training sets" in line] == [True]


def test_a_cache_does_not_change_the_ranker(embedding_history: EmbeddingHistory, tmp_path: Path) -> None:
    cache = TrainingSetCache(tmp_path / "training_sets")
    train(embedding_history, shift(LAST, -1), cache)
    kept, fresh = train(embedding_history, LAST, cache), train(embedding_history, LAST, None)
    assert bytes_of(kept, tmp_path / "kept") == bytes_of(fresh, tmp_path / "fresh")


def test_a_training_set_does_not_depend_on_its_blocks(
    embedding_history: EmbeddingHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = list[bytes]()
    for users in (1000, 5):
        monkeypatch.setattr(training_set, "TRAINING_SHARD", users)
        ranker = train(embedding_history, LAST, TrainingSetCache(tmp_path / f"{users}"))
        checkpoints.append(bytes_of(ranker, tmp_path / "ranker"))
    assert checkpoints[0] == checkpoints[1]
    for whole in (tmp_path / "1000").iterdir():
        in_parts = tmp_path / "5" / whole.name / "tensors.safetensors"
        assert (whole / "tensors.safetensors").read_bytes() == in_parts.read_bytes()


def test_a_damaged_training_set_is_made_again(
    embedding_history: EmbeddingHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, weeks = TrainingSetCache(tmp_path), made(monkeypatch)
    train(embedding_history, LAST, cache)
    whole, damaged, gone = (tmp_path / shift(LAST, -at) for at in (3, 2, 1))
    before = (damaged / "tensors.safetensors").read_bytes()
    (damaged / "tensors.safetensors").write_bytes(before[:100])
    (gone / "meta.json").unlink()
    weeks.clear()
    train(embedding_history, LAST, cache)
    assert whole.name not in weeks and weeks == [damaged.name, gone.name]
    assert (damaged / "tensors.safetensors").read_bytes() == before


def test_a_key_changes_with_rows_embeddings_rules_and_settings(embedding_history: EmbeddingHistory) -> None:
    inputs = PointInTimeView(PAST, embedding_history, CONFIG)

    def key(**changes: Any) -> str:
        return cache_keys(replace(inputs, **changes), [NOW - 2])[NOW - 2]

    late = replace(PAST, count=np.where(PAST.week_no == NOW - 1, 7.0, PAST.count))
    assert key(past=late) != key()  # the week after the cut-off: its labels
    seen = embedding_history[shift(LAST, -2)]
    assert key(embedding_history={**embedding_history, seen.week: replace(seen, users=seen.users + 1)}) != key()
    assert key(rules=Rules(exclude_repeats=True)) != key()
    assert key(rules=Rules(restricted=PAST.event_idx[:1], last_week=np.array([0]))) != key()
    assert key(device="cuda") != key()
    for name, value in {"candidates": 7, "sequence": 3, "seed": 1, "users_per_cutoff": 9}.items():
        assert key(config=CONFIG.model_copy(update={name: value})) != key(), name


def test_a_key_does_not_change_with_what_only_training_reads(embedding_history: EmbeddingHistory) -> None:
    inputs = PointInTimeView(PAST, embedding_history, CONFIG)
    other = CONFIG.model_copy(update={"learning_rate": 1.0, "blend": BlendConfig(tree_weight=1.0)})
    assert cache_keys(replace(inputs, config=other), [NOW - 2]) == cache_keys(inputs, [NOW - 2])
    assert set(RankerConfig.model_fields) >= NOT_IN_KEY


@pytest.mark.parametrize("module", sorted(import_closure([training_set_cache.__name__])))
def test_a_key_changes_with_the_source_of_each_module_of_the_closure(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert key_with_changed_source(module, tmp_path, monkeypatch) != cache_keys(INPUTS, [NOW - 2])


@pytest.mark.parametrize("module", ["tgn_assets.ml.ranker.listwise", "tgn_assets.ml.recommend.top_k"])
def test_a_key_does_not_change_with_other_modules(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module not in import_closure([training_set_cache.__name__])
    assert key_with_changed_source(module, tmp_path, monkeypatch) == cache_keys(INPUTS, [NOW - 2])


@pytest.mark.parametrize("library", ["numpy", "scipy", "torch"])
def test_a_key_changes_with_the_version_of_a_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_keys(INPUTS, [NOW - 2])
    monkeypatch.setattr(training_set_cache, "version", lambda name: "0" if name == library else version(name))
    assert cache_keys(INPUTS, [NOW - 2]) != before


def key_with_changed_source(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The key where the source is a copy with a line more in `module`."""
    before = cache_keys(INPUTS, [NOW - 2])
    copy = shutil.copytree(ROOT, folder / "tgn_assets", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(training_set_cache, "SOURCE", copy)
    assert cache_keys(INPUTS, [NOW - 2]) == before
    path = copy.joinpath(*module.split(".")[1:])
    with (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).open("a") as file:
        file.write("CHANGED = True\n")
    key = cache_keys(INPUTS, [NOW - 2])
    monkeypatch.undo()
    return key


def test_a_key_knows_nothing_of_later_weeks(embedding_history: EmbeddingHistory) -> None:
    rows = [*habits(users=16, weeks=WEEKS - 1), ("aaa", "aaa", WEEKS - 1, 5), ("u000", "e000", WEEKS - 1, 9)]
    other = history(rows, WEEKS - 1)
    newest = embedding_history[LAST]
    later = {**embedding_history, LAST: replace(newest, users=newest.users + 1)}
    ban = Rules(restricted=other.event_idx[-1:], last_week=np.array([0]))  # an event first seen in the last week
    weeks = [NOW - 4, NOW - 2]
    keys = cache_keys(PointInTimeView(PAST, embedding_history, CONFIG), weeks)
    assert keys == cache_keys(PointInTimeView(other, later, CONFIG, rules=ban), weeks)


def test_embeddings_have_the_same_digest_from_memory_and_from_disk(
    embedding_history: EmbeddingHistory, tmp_path: Path
) -> None:
    newest = embedding_history[LAST]
    newest.save(tmp_path / LAST)
    assert NodeEmbeddings.load(tmp_path / LAST).digest == newest.digest
    assert replace(newest, events=newest.events * 2).digest != newest.digest
