"""What `tgn doctor` finds in a home, and how damage ends the other commands."""

import os
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tgn_assets.cli import doctor
from tgn_assets.cli.doctor import findings
from tgn_assets.cli.status import status_sections
from tgn_assets.ml.artifact_io import save_artifact
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.forgotten import ForgottenIds
from tgn_assets.state.home import FILES, FORGOTTEN, Home
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.warehouse import StateError
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log, ingest


@pytest.fixture(autouse=True)
def room_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_ROOM", 0)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a home with ingested weeks and the list of one user in the newest; to be copied."""
    folder = tmp_path_factory.mktemp("sound")
    home = home_on_log(folder)
    ingest(home, *WEEKS)
    new_users = {"week": [WEEKS[3]], "target_week": ["2024-01-29"], "rank": [1], "event_id": ["event 1"]}
    new_users |= {"score": [0.5], "source": ["popular"]}
    record = {"week": [WEEKS[3]], "target_week": ["2024-01-29"], "model_week": [WEEKS[3]], "k": [1], "users": [1]}
    record |= {"distinct_events": [1], "policy": [Policy().to_json()]}
    frames = {"new_user_top5_predictions": pd.DataFrame(new_users), "published_weeks": pd.DataFrame(record)}
    lists = pd.DataFrame(new_users | {"user_id": ["user 1"]})
    home.warehouse().replace_week_tables(WEEKS[3], {PREDICTIONS: lists, **frames})
    with home.warehouse().writer() as con:
        con.execute("DELETE FROM made_weeks WHERE asset = 'weekly_snapshots'")  # none was written
    with home.instance():
        pass
    return folder


@pytest.fixture
def home(sound: Path, tmp_path: Path) -> Home:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    log = tmp_path / "home" / "log.json"
    log.write_text(log.read_text().replace(str(sound), str(tmp_path)))
    return home_on_log(tmp_path)


def found(home: Home) -> list[str]:
    return [str(finding) for finding in findings(home)]


def sql(home: Home, statement: str) -> None:
    with duckdb.connect(home.warehouse_path) as con:
        con.execute(statement)


def test_a_sound_home_has_no_findings_and_is_not_changed(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.root.glob("*.*") if path.is_file()}
    assert found(home) == []
    assert {path: path.read_bytes() for path in home.root.glob("*.*") if path.is_file()} == before


def test_a_missing_home_is_one_finding(tmp_path: Path) -> None:
    home = home_on_log(tmp_path, home=tmp_path / "other")
    shutil.rmtree(home.root)
    assert found(home) == [f"wrong      there is no folder TGN_HOME={home.root}; `tgn refresh` makes it"]
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TABLE eval_metrics", "it lacks the table eval_metrics"),
        ("ALTER TABLE published_weeks DROP COLUMN k", "the table published_weeks lacks the column k; put a backup"),
        ("DELETE FROM weekly_top5_predictions", f"week {WEEKS[3]} has lists of 0 users and was published to 1; `tgn"),
        (f"DELETE FROM raw_interactions WHERE week = '{WEEKS[1]}'", f"the rows of week {WEEKS[1]} are gone; `tgn"),
    ],
)
def test_doctor_names_what_the_warehouse_lacks(home: Home, statement: str, says: str) -> None:
    sql(home, statement)
    (finding,) = found(home)
    assert finding.startswith(f"wrong      {home.warehouse_path}: {says}")


def test_doctor_names_every_damaged_file(home: Home) -> None:
    (home.root / "log.json").write_text("[1]")
    (home.artifacts / "pinned.json").write_text('{"week": 7}')
    (home.dagster_home / "history" / "runs.db").write_text("no database" * 100)
    (home.root / "current.duckdb").write_text("no database" * 1000)
    home.warehouse_path.write_text("no database" * 1000)
    folder = home.artifacts / "trained_gnn" / WEEKS[3]
    save_artifact(folder, {}, {})
    (folder / "tensors.safetensors").write_bytes(b"short")
    lines = found(home)
    assert all(line.startswith("wrong") for line in lines)
    for path in (home.root / "log.json", home.artifacts / "pinned.json", folder, home.warehouse_path):
        assert sum(str(path) in line for line in lines) == 1, lines
    assert f"`tgn refresh --week {WEEKS[3]}` makes it again" in next(line for line in lines if str(folder) in line)
    assert sum("history/runs.db is damaged: move it away" in line for line in lines) == 1


def test_forgotten_ids_that_a_backup_brought_back_are_found(home: Home) -> None:
    listed = ForgottenIds("key").adding("user", ["user 1", "somebody"])
    (home.root / FORGOTTEN).write_text(listed.finishing("user", ["user 1", "somebody"]).to_json())
    [finding] = found(home)
    assert "it has 1 ids of users that were forgotten" in finding
    assert "run `tgn forget` again with the same ids" in finding
    (home.root / FORGOTTEN).write_text(listed.to_json())
    [finding] = found(home)
    assert "`tgn forget` did not finish with 2 ids" in finding


def test_an_artifact_other_than_recorded_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgn_assets.state.artifact_store.ArtifactStore.load", lambda *_: None)
    save_artifact(home.artifacts / "trained_gnn" / WEEKS[3], {}, {})
    home.warehouse().record_made("trained_gnn", {WEEKS[3]: "another digest", WEEKS[2]: "digest"})
    missing, other = sorted(found(home), key=lambda line: "is not what" in line)
    assert f"trained_gnn/{WEEKS[3]} is not what was made then" in other
    assert f"trained_gnn/{WEEKS[2]} is missing; `tgn refresh --week {WEEKS[2]}` makes it again" in missing


def test_artifacts_that_may_not_be_read_are_one_line_a_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for week in WEEKS:
        save_artifact(home.artifacts / "trained_gnn" / week, {}, {})
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).suffix != ".safetensors" and allowed(path, mode))
    (finding,) = found(home)
    file = home.artifacts / "trained_gnn" / WEEKS[0] / "tensors.safetensors"
    assert finding.startswith(f"wrong      {file} may not be read; give this user the right to (and so for 3 more in")


def test_leftovers_and_a_missing_copy_are_notes(home: Home) -> None:
    (home.artifacts / "trained_gnn" / f".{WEEKS[3]}.abc.old").mkdir(parents=True)
    (home.artifacts / "pinned.json.new").write_text("")
    (home.root / "current.duckdb").unlink()
    lines = found(home)
    assert len(lines) == 3 and all(line.startswith("note") for line in lines)


def test_a_copy_of_an_older_week_is_a_finding(home: Home) -> None:
    with duckdb.connect(home.root / "current.duckdb") as con:
        for table in (PREDICTIONS, "new_user_top5_predictions", "published_weeks"):
            con.execute(f"UPDATE {table} SET week = ?", [WEEKS[2]])
    [finding] = (finding for finding in findings(home) if "current.duckdb" in str(finding))
    assert finding.to_do and f"lists of {WEEKS[2]}, not those of {WEEKS[3]}; `tgn refresh`" in str(finding)


def test_little_room_is_a_finding(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_ROOM", 10**18)
    (finding,) = found(home)
    assert "MB are free" in finding and "make room" in finding


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_named(home: Home, name: str) -> None:
    (home.root / name).unlink(missing_ok=True)
    (home.root / name).mkdir()
    with pytest.raises(StateError, match=rf"{name} is a folder and should be a file: move it away"):
        home.ensure()
    assert found(home) == [f"wrong      {home.root / name} is a folder and should be a file: move it away"]


@pytest.mark.parametrize("page", [f"{WEEKS[3]}.html", "index.html"])
def test_a_folder_in_place_of_a_page_is_named(home: Home, page: str) -> None:
    (home.reports / page).mkdir(parents=True)
    assert found(home) == [f"wrong      {home.reports / page} is a folder and should be a file: move it away"]


def test_a_dangling_link_to_the_artifacts_is_named(home: Home, tmp_path: Path) -> None:
    home.artifacts.rmdir()
    home.artifacts.symlink_to(tmp_path / "unmounted")
    with pytest.raises(StateError, match=r"artifacts is no folder: move it away, or mend the link"):
        home.ensure()


@pytest.mark.parametrize("text", ["a: [", "no_such_option: 1", "- a"])
def test_a_broken_dagster_yaml_is_named(home: Home, text: str) -> None:
    (home.dagster_home / "dagster.yaml").write_text(text)
    (finding,) = found(home)
    assert "dagster.yaml cannot be used" in finding and "mend it, or move it away" in finding


def test_status_goes_on_without_the_history_of_runs(home: Home) -> None:
    runs = home.dagster_home / "history" / "runs.db"
    runs.write_text("no database" * 100)
    said = dict(status_sections(home))
    assert f"{runs} is damaged: move it away" in said["history"] and "to_do" in said


def test_status_names_a_warehouse_and_snapshots_that_are_gone(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    ingest(home, *WEEKS)
    for week in WEEKS:
        save_artifact(home.artifact_store().directory("weekly_snapshots", week), {}, {})
    assert not (said := dict(status_sections(home)))["lost"] and not said["suspicions"]
    (home.artifact_store().directory("weekly_snapshots", WEEKS[1]) / "meta.json").unlink()
    (gone,) = dict(status_sections(home))["suspicions"]
    assert f"snapshots of {WEEKS[1]} are gone from {home.artifacts}: `tgn refresh` makes them again" in gone
    assert any(f"{WEEKS[1]} is missing; `tgn refresh` makes it again" in finding for finding in found(home))
    home.warehouse_path.unlink()
    assert f"{home.warehouse_path} is missing, and with it" in dict(status_sections(home))["lost"]
    assert any("put a backup in its place" in finding for finding in found(home))


def test_status_names_week_numbers_that_begin_anew(tmp_path: Path) -> None:
    log = tmp_path / "numbered.csv"
    log.write_text("ip_address,event_id,week_number\nu,e,51\nu,e,52\n")
    home = home_on_log(tmp_path, source=str(log), start_week=WEEKS[0])
    ingest(home, *WEEKS[:2])
    assert "begin anew" not in str(dict(status_sections(home))["suspicions"])
    with log.open("a") as file:
        file.write("u,e,1\n")
    ingest(home, *WEEKS[:2])
    assert "1 row of weeks before the first one: the week numbers seem" in str(
        dict(status_sections(home))["suspicions"]
    )


@pytest.mark.parametrize(
    "text", ["[1]", "null", "{", '"log"', '{"first_week": 5}', '{"first_week": "2024-01-03"}', '{"week_number": "1"}']
)
def test_a_damaged_log_file_is_one_error(home: Home, text: str) -> None:
    (home.root / "log.json").write_text(text)
    assert any("log.json is damaged; remove it" in finding for finding in found(home))
    with pytest.raises(StateError, match=r"log\.json is damaged; remove it"):
        home.start_week()


def test_status_says_that_most_rows_are_gone(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    ingest(home, *WEEKS)
    home_on_log(tmp_path, ROWS[3::4])
    said = str(dict(status_sections(home))["suspicions"])
    assert f"of 16 rows of {WEEKS[0]} to {WEEKS[3]} the source has 4 now: is the log whole?" in said


def test_status_names_a_pinned_model_that_is_not_there(home: Home) -> None:
    home.artifacts.mkdir(exist_ok=True)
    home.artifact_store().pin(WEEKS[0])
    said = str(dict(status_sections(home))["suspicions"])
    assert f"the model of {WEEKS[0]}, which lists are to come from, is not there: `tgn models unpin`" in said


def test_the_first_week_is_that_of_the_warehouse(home: Home) -> None:
    """A log that keeps the last months only has another one by now."""
    os.remove(home.root / "log.json")
    assert home_on_log(home.root.parent, ROWS[4:]).start_week() == WEEKS[0]
    assert f'"first_week": "{WEEKS[0]}"' in (home.root / "log.json").read_text()
