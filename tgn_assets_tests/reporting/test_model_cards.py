"""Cards of models that were trained on a small world, and the commands that print them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tgn_assets.cli.main import cli
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.processor import processor
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.model_cards import ModelError, comparison_table, model_cards
from tgn_assets.settings import Settings
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets_tests.support.worlds import START, habits, history, snapshots

WEEKS = [shift(START, later) for later in (4, 5)]
GNN = GNNConfig(dim=8, window=3, replay=3, epochs=2, warm_epochs=1, batching="full")
RANKER = RankerConfig(dim=8, heads=2, origins=2, sequence=2, epochs=2, candidates=8)
SCORE_COLUMNS = ["week", "model", "segment", "metric", "value", "ci_low", "ci_high", "users"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two weeks trained, the second from the first with a wider search; the first one's lists scored .25."""
    home = Home(Settings(_env_file=None, home=tmp_path_factory.mktemp("home"), source="synthetic")).ensure()
    store, rows = ArtifactStore(home.artifacts), habits(users=12, weeks=6)
    gnn = None
    for later, week in zip((4, 5), WEEKS, strict=True):
        gnn = train_gnn(snapshots(rows, range(later + 1)), week, GNN, warm=gnn)
        config = RANKER.model_copy(update={"candidates": 4 + later})
        store.save("trained_gnn", week, gnn)
        store.save("trained_ranker", week, train_ranker(history(rows, later), gnn.embeddings, week, config=config))
    scores = [(WEEKS[1], "tgn_assets", "all", "ndcg", 0.25, 0.2, 0.3, 12)]
    home.warehouse().replace_week_tables(WEEKS[1], {"eval_metrics": pd.DataFrame(scores, columns=SCORE_COLUMNS)})
    return home


def tgn(home: Home, *arguments: str) -> Result:
    return CliRunner(env={"TGN_HOME": str(home.root), "TGN_SOURCE": "synthetic"}).invoke(cli, ["models", *arguments])


def test_a_card_has_training_validation_and_score(home: Home) -> None:
    store = ArtifactStore(home.artifacts)
    first, second = model_cards(store, home.warehouse())
    assert (first.week, first.warm_from, first.score) == (WEEKS[0], None, 0.25)
    assert (second.week, second.warm_from, second.score) == (WEEKS[1], WEEKS[0], None)
    gnn, ranker = store.load("trained_gnn", WEEKS[0]), store.load("trained_ranker", WEEKS[0])
    numbers = [tensor.numel() for model in (gnn, ranker) for tensor in model.state.values()]
    assert first.parameters == sum(numbers)
    assert first.validation == ranker.validation
    assert first.encoder_epochs == sum(entry["cutoff"] == WEEKS[0] for entry in gnn.curve) > 0
    assert first.config["trained_ranker.lambdarank.rounds"] == 100
    assert first.processors == [processor("cpu")] == second.processors
    assert first.best_baseline
    assert first.best_baseline[1] == max(ranker.validation[f"ndcg_{name}"] for name in BASELINES)


def test_the_comparison_has_only_what_differs(home: Home) -> None:
    table = comparison_table(*model_cards(ArtifactStore(home.artifacts), home.warehouse()))
    names = [row["name"] for row in table.rows]
    assert "trained_ranker.candidates" in names and "trained_ranker.dim" not in names
    row = table.rows[names.index("trained_ranker.candidates")]
    assert (row["first"], row["second"]) == ("8", "9")


def test_processors_of_a_model_are_shown_and_compared(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "home")
    other = Home(home.settings.model_copy(update={"home": tmp_path / "home"}))
    meta = ArtifactStore(other.artifacts).directory("trained_ranker", WEEKS[1]) / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"processor": "other"}))
    cards = model_cards(ArtifactStore(other.artifacts), other.warehouse())
    assert [card.processors for card in cards] == [[processor("cpu")], sorted([processor("cpu"), "other"])]
    (row,) = [row for row in comparison_table(*cards).rows if row["name"] == "processor"]
    assert "other" not in row["first"] and "other" in row["second"]
    listed = json.loads(tgn(other, "list", "--json").stdout)
    assert "other" in listed["models"][1]["processors"]
    meta.write_text(
        json.dumps({key: value for key, value in json.loads(meta.read_text()).items() if key != "processor"})
    )
    assert ArtifactStore(other.artifacts).load("trained_ranker", WEEKS[1]).processor is None


def test_list_and_compare_print_the_cards(home: Home) -> None:
    listed = tgn(home, "list")
    assert listed.exit_code == 0, listed.output
    rows = [line.split() for line in listed.stdout.splitlines() if line.strip().startswith(tuple(WEEKS))]
    assert [row[:2] for row in rows] == [[WEEKS[0], "cold"], [WEEKS[1], WEEKS[0]]]
    assert rows[0][-1] == "0.2500"
    compared = tgn(home, "compare", *WEEKS)
    assert compared.exit_code == 0 and "validation ndcg_tgn_assets" in compared.stdout


def test_a_week_without_a_model_is_named_with_those_that_have_one(home: Home) -> None:
    with pytest.raises(ModelError, match=f"no trained model of week {START}; there are models of {WEEKS[0]} to"):
        model_cards(ArtifactStore(home.artifacts), home.warehouse(), [START])
    result = tgn(home, "compare", WEEKS[0], START)
    assert result.exit_code == 1 and f"no trained model of week {START}" in result.stderr


def test_a_damaged_model_is_named_with_the_remedy(home: Home, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for asset in ("trained_gnn", "trained_ranker"):
        directory = store.directory(asset, START)
        directory.mkdir(parents=True)
        (directory / "meta.json").write_text(json.dumps({"week": START})[:-3])
    with pytest.raises(FileNotFoundError, match=r"is damaged .*`tgn refresh --week .* makes it again"):
        model_cards(store, home.warehouse())


def test_an_outdated_model_has_no_card(home: Home, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for asset in ("trained_gnn", "trained_ranker"):
        directory = store.directory(asset, START)
        directory.mkdir(parents=True)
        (directory / "meta.json").write_text(json.dumps({"week": START, "format_version": 0}))
    assert model_cards(store, home.warehouse()) == []


def test_before_anything_was_trained_it_says_what_to_run(tmp_path: Path) -> None:
    home = Home(Settings(_env_file=None, home=tmp_path, source="synthetic")).ensure()
    result = tgn(home, "list")
    assert result.exit_code == 1 and "no model was trained yet; run `tgn refresh`" in result.stderr


def test_a_pin_needs_a_model_and_holds_for_later_weeks_only(home: Home) -> None:
    assert f"no trained model of week {START}" in tgn(home, "pin", START).stderr
    assert f"lists come from the model of {WEEKS[0]}" in tgn(home, "pin", WEEKS[0]).stdout
    store = ArtifactStore(home.artifacts)
    assert [store.model_week(week) for week in (START, *WEEKS)] == [START, WEEKS[0], WEEKS[0]]
    assert f"the model of {WEEKS[0]} is no longer pinned" in tgn(home, "unpin").stdout
    assert store.model_week(WEEKS[1]) == WEEKS[1]


def test_without_lists_there_is_nothing_to_roll_back(home: Home) -> None:
    result = tgn(home, "rollback")
    assert result.exit_code == 1 and "nothing was published yet" in result.stderr


def test_pin_refuses_a_model_that_cannot_publish(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "home")
    other = Home(home.settings.model_copy(update={"home": tmp_path / "home"}))
    store = ArtifactStore(other.artifacts)
    assert tgn(other, "pin", WEEKS[0]).exit_code == 0
    store.pin(None)
    tensors = store.directory("trained_ranker", WEEKS[0]) / "tensors.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:100])
    refused = tgn(other, "pin", WEEKS[0])
    assert refused.exit_code == 1 and f"trained_ranker/{WEEKS[0]} is damaged" in refused.stderr
    tensors.write_bytes(whole)
    for week, changed in ((WEEKS[0], {"chain": "another"}), (WEEKS[1], {"warm_from": None})):
        meta = store.directory("trained_gnn", week) / "meta.json"
        before = meta.read_text()
        meta.write_text(json.dumps(json.loads(before) | changed))
        refused = tgn(other, "pin", WEEKS[0])
        assert refused.exit_code == 1 and "the encoder had a cold start since" in refused.stderr
        meta.write_text(before)
    assert store.pinned() is None
