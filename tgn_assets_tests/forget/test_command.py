"""`tgn forget`: what it asks, prints and returns."""

import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tgn_assets.cli.main import cli
from tgn_assets.state.home import Home
from tgn_assets_tests.forget.conftest import EVENT, LONG, OTHERS, SHORT, WEEKS


def tgn(home: Home, *arguments: str, given: str | None = None) -> Result:
    environment = {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source, "TGN_END_WEEK": WEEKS[-1]}
    environment["TGN_EXPORT_PARQUET"] = str(home.settings.export_parquet)
    return CliRunner(env=environment).invoke(cli, ["forget", *arguments], input=given)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder without `.env`."""
    monkeypatch.chdir(tmp_path)


def test_nothing_happens_without_a_yes(home: Home) -> None:
    asked = tgn(home, LONG, given="n\n")
    assert asked.exit_code == 1 and "Forget user" in asked.output
    assert not (home.root / "forgotten.json").exists()
    assert tgn(home, "--verify", LONG).exit_code == 1


def test_forgotten_and_verified(home: Home) -> None:
    done = tgn(home, "--yes", LONG)
    assert done.exit_code == 0, done.output
    assert "left       nothing" in done.output and "known      1 of 1 users" in done.output
    again = tgn(home, "--verify", "--json", LONG)
    assert again.exit_code == 0 and json.loads(again.stdout)["left"] == 0


def test_ids_from_a_file_and_as_the_source_writes_them(home: Home, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"\ufeff17.0\n{OTHERS[0]}\n\n")
    done = tgn(home, "--yes", "--from", str(tmp_path / "ids.txt"))
    assert done.exit_code == 0, done.output
    assert "known      2 of 2 users" in done.output
    assert tgn(home, "--verify", SHORT, OTHERS[0]).exit_code == 0


def test_an_event_and_an_unknown_user(home: Home) -> None:
    assert tgn(home, "--yes", "--event", EVENT).exit_code == 0
    unknown = tgn(home, "--yes", LONG.upper())
    assert unknown.exit_code == 0
    assert "known      0 of 1 users" in unknown.output and "differ in case" in unknown.output


def test_an_erasure_is_not_proved_in_a_home_that_is_not_there(home: Home) -> None:
    gone = Home(home.settings.model_copy(update={"home": home.root.with_name("hom")}))
    for arguments in (("--verify", LONG), ("--yes", LONG)):
        result = tgn(gone, *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: there is no folder TGN_HOME={gone.root}")
    assert not gone.root.exists()


@pytest.mark.parametrize("of_exports", [False, True])
def test_a_folder_that_may_not_be_read_proves_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, of_exports: bool
) -> None:
    export = Path(str(home.settings.export_parquet))
    closed = export / "weekly_top5_predictions" if of_exports else home.artifacts / "trained_gnn"
    assert tgn(home, "--verify", "nobody at all").exit_code == 0
    scandir = os.scandir

    def denied(path: str) -> object:  # root may read everything
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    result = tgn(home, "--verify", "nobody at all")
    assert result.exit_code == 1 and "cannot be searched" in result.stdout and str(closed) in result.stdout


def test_no_id_is_a_wrong_use(home: Home) -> None:
    assert tgn(home).exit_code == 2
