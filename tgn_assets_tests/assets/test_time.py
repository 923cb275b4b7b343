"""The proof that time is respected: whatever happens to the log after week w, every output of partition w stays."""

import csv
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from tgn_assets.definitions import build_definitions
from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.graph import snapshots
from tgn_assets.ml.recommend import reason_facts
from tgn_assets.ml.weeks import shift
from tgn_assets.settings import Settings
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import Warehouse

START, WEEKS = "2024-01-01", 7
WEEK, LAST = shift(START, 4), shift(START, WEEKS - 1)
TABLES = {
    "raw_interactions": "week",
    "rejected_interactions": "week",
    "users": "first_week",
    "events": "first_week",
    "weekly_top5_predictions": "week",
    "new_user_top5_predictions": "week",
    "eval_metrics": "week",
    "eval_user_groups": "week",
}
ARTIFACTS = ["weekly_snapshots", "trained_gnn", "trained_ranker", "temporal_embeddings"]
INGEST, LISTS = ["raw_interactions", "weekly_snapshots"], ["weekly_top5_predictions", "eval_metrics"]
ASSETS = ["raw_interactions", *ARTIFACTS, *LISTS]
CONFIG = {
    "trained_gnn": {"config": {"dim": 4, "window": 3, "replay": 3, "epochs": 1, "warm_epochs": 1}},
    "trained_ranker": {
        "config": {
            "dim": 4,
            "heads": 1,
            "origins": 2,
            "sequence": 2,
            "networks": 2,
            "epochs": 1,
            "warm_epochs": 1,
            "candidates": 5,
            "lambdarank": {"rounds": 10},
        }
    },
}
Row = tuple[str, str, str]


def log() -> list[Row]:
    """Some users with habits, over all weeks, in order of time."""
    rng, rows = np.random.default_rng(0), list[Row]()
    for week in range(WEEKS):
        monday = datetime.fromisoformat(START) + timedelta(weeks=week)
        for user in range(12 + week):
            for event in {user % 8, int(rng.integers(8 + week))}:
                rows.append((f"u{user}", f"e{event}", (monday + timedelta(minutes=len(rows))).isoformat()))
        rows.append((f"u{week}", "", monday.isoformat()))
    return rows


def write_facts(file: Path, node: str, rows: list[Row]) -> None:
    """A side table: with each row something new becomes known of its user or event."""
    facts = {(user if node == "user" else event, time): f"kind {event},{len(user)}" for user, event, time in rows}
    lines = [f"{name},{fact},{time}" for (name, time), fact in facts.items() if name]
    file.write_text("\n".join([f"{node}_id,kind,size,valid_from", *lines]))


def closes() -> str:
    return shift(WEEK, 1)


def past_and_future() -> tuple[list[Row], list[Row]]:
    rows = log()
    return [row for row in rows if row[2] < closes()], [row for row in rows if row[2] >= closes()]


def changed(future: list[Row]) -> list[Row]:
    """More users, other events and counts, in any order: an id that sorts first, and a sudden favourite."""
    strangers = [("!new", "!new", time) for _, _, time in future]
    rows = [(user, "e0", time) for user, _, time in future for _ in range(3)] + strangers + future
    return [rows[at] for at in np.random.default_rng(1).permutation(len(rows))]


def outputs(home: Home) -> dict[str, bytes]:
    """Every output of the partition, by name: the files' bytes, and the rows of the tables up to that week."""
    found = {}
    folders = [home.artifacts / asset / WEEK for asset in ARTIFACTS]
    for folder in [*folders, *sorted((home.artifacts / "training_sets").iterdir())]:
        for file in sorted(folder.iterdir()):
            found[f"{folder.parent.name}/{folder.name}/{file.name}"] = file.read_bytes()
    with home.warehouse().reader() as con:
        for table, column in TABLES.items():
            rows = con.execute(f"SELECT * FROM {table} WHERE {column} <= ? ORDER BY ALL", [WEEK]).fetchall()
            found[table] = repr(rows).encode()
    return found


def materialize(folder: Path, future: list[Row]) -> dict[str, bytes]:
    """Ingests the whole log, its future included, then runs the weeks up to `WEEK`, and gives the outputs of `WEEK`."""
    folder.mkdir()
    past, _ = past_and_future()
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ip_address", "event_id", "timestamp"), *past, *future])
    for node in ("event", "user"):
        write_facts(folder / f"{node}s.csv", node, [*past, *future])
    steps: dict[str | None, list[str]] = {None: INGEST, shift(WEEK, -1): ASSETS, WEEK: ASSETS}
    return run(folder, folder / "home", steps, last=LAST if future else WEEK)


def run(folder: Path, at: Path, steps: dict[str | None, list[str]], *, last: str = LAST) -> dict[str, bytes]:
    """Runs the assets of each week of `steps`, None for all weeks up to `last`, on the log in `folder`, in the home
    `at`."""
    settings = Settings(
        _env_file=None,
        home=at,
        source=str(folder / "log.csv"),
        start_week=START,
        end_week=LAST,
        event_features=str(folder / "events.csv"),
        user_features=str(folder / "users.csv"),
    )
    home = Home(settings).ensure()
    definitions = build_definitions(settings)
    assets = [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    span = {"dagster/asset_partition_range_start": START, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.ephemeral() as instance:
        for week, selection in steps.items():
            dg.materialize(
                assets,
                selection=selection,
                partition_key=week,
                tags=None if week else span,
                instance=instance,
                resources=definitions.resources,
                run_config={"ops": {name: given for name, given in CONFIG.items() if name in selection}},
            )
    return outputs(home)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("time") / "truth"


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[str, bytes]:
    """The outputs of a log that ends with the week."""
    return materialize(folder, [])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The folder and the outputs of a log that goes on, with a future that looks like no past."""
    folder = tmp_path_factory.mktemp("time") / "other"
    return folder, materialize(folder, changed(past_and_future()[1]))


@pytest.fixture
def home(other: tuple[Path, dict[str, bytes]], tmp_path: Path) -> Path:
    """A copy of the home in the folder of `other`."""
    return shutil.copytree(other[0] / "home", tmp_path / "home")


def test_no_output_depends_on_rows_that_come_later(
    truth: dict[str, bytes], other: tuple[Path, dict[str, bytes]]
) -> None:
    assert {name for name in truth if other[1][name] != truth[name]} == set()
    assert len(truth["weekly_top5_predictions"]) > 1000 and len(truth["eval_metrics"]) > 1000


@pytest.fixture
def leak(truth: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node feature that knows by how much the whole log, the weeks to come included, differs in length from `truth`:
    not at all, in `truth` itself."""
    with Warehouse(folder / "home" / "warehouse.duckdb").reader() as con:
        [(rows,)] = con.execute("SELECT count(*) FROM raw_interactions").fetchall()
    leaking = f"count(*) + (SELECT count(*) - {rows} FROM raw_interactions)"
    monkeypatch.setattr(snapshots, "NODES_SQL", snapshots.NODES_SQL.replace("count(*)", leaking))


@pytest.fixture
def leaking_reason(truth: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reasons whose counts know by how much the whole log differs in length from `truth`."""

    def length(warehouse: Warehouse) -> int:
        with warehouse.reader() as con:
            return int(con.execute("SELECT count(*) FROM raw_interactions").fetchall()[0][0])

    longer, history, counted = [0], Warehouse.history, reason_facts._users_by_window
    whole = length(Warehouse(folder / "home" / "warehouse.duckdb"))

    def read(warehouse: Warehouse, week: str) -> InteractionHistory:
        longer[0] = length(warehouse) - whole
        return history(warehouse, week)

    def leaking(past: InteractionHistory, config: CandidateConfig) -> tuple[IntArray, IntArray]:
        users, degree = counted(past, config)
        return users + longer[0], degree

    monkeypatch.setattr(Warehouse, "history", read)
    monkeypatch.setattr(reason_facts, "_users_by_window", leaking)


def differing(truth: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    return {name.split("/")[0] for name in truth if other[name] != truth[name]}


def test_planted_leak_in_a_reason_is_found(
    truth: dict[str, bytes], other: tuple[Path, dict[str, bytes]], leaking_reason: None, home: Path
) -> None:
    leaked = run(other[0], home, {shift(WEEK, -1): LISTS, WEEK: LISTS})
    assert differing(truth, leaked) == {"weekly_top5_predictions", "new_user_top5_predictions"}


def test_planted_leak_is_found(
    truth: dict[str, bytes], other: tuple[Path, dict[str, bytes]], leak: None, home: Path
) -> None:
    leaked = run(other[0], home, {None: INGEST, WEEK: ARTIFACTS[1:]})
    assert {"weekly_snapshots", "trained_gnn", "temporal_embeddings"} <= differing(truth, leaked)
