"""The runner behind `tgn refresh` and `tgn backtest`, and what a refresh says of its runs."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from tgn_assets.automation.backlog import Backlog
from tgn_assets.automation.work_items import INGEST, MISSING, REFRESH, WorkItem
from tgn_assets.cli import runner
from tgn_assets.cli.console import Progress
from tgn_assets.cli.main import cli
from tgn_assets.cli.refresh import skipped_weeks
from tgn_assets.cli.runner import RunFailed, Runner, RunRecord
from tgn_assets.ml.artifact_io import save_artifact
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log, ingest, publish


def test_the_time_left_is_estimated_from_the_last_week(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, tasks, seconds = [0.0], list[str](), iter([600.0, 20.0, 30.0])

    def run(_: Runner, task: str, **__: str) -> None:
        tasks.append(task)
        now[0] += next(seconds)

    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Runner, "_run", run)
    object.__new__(Runner).refresh(["2024-01-01", "2024-01-08", "2024-01-15"])
    assert tasks == [
        "week 2024-01-01 (1 of 3)",
        "week 2024-01-08 (2 of 3), about 20 min 00 s left",
        "week 2024-01-15 (3 of 3), about 20 s left",
    ]


@pytest.mark.parametrize("outdated", [True, False])
def test_weeks_without_a_readable_snapshot_are_ingested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outdated: bool
) -> None:
    home, tasks = home_on_log(tmp_path), list[str]()
    folders = [ArtifactStore(home.artifacts).directory("weekly_snapshots", week) for week in WEEKS]
    for folder in folders:
        save_artifact(folder, {}, {})
    if outdated:
        (folders[1] / "meta.json").write_text('{"week": "2024-01-08"}')
    else:
        shutil.rmtree(folders[1])
    monkeypatch.setattr(Runner, "_run", lambda _, task, **how: tasks.append(task))
    ingest(home, *WEEKS)
    with dg.DagsterInstance.ephemeral() as instance:
        Runner(home, instance, Progress()).ingest_before(WEEKS[3])
        assert tasks == [f"ingest {WEEKS[1]}"]
        Runner(home, instance, Progress()).do_pending(Backlog(home))
    # One that an earlier version made is pending by itself; the runs here make nothing.
    assert tasks[1:] == [f"ingest {WEEKS[1]}"] * (1 + outdated) + [f"week {WEEKS[3]}"]


def test_stale_models_are_made_from_all_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, tasks = home_on_log(tmp_path), list[str]()
    publish(home, *WEEKS, but=("trained_ranker",))
    for week in (WEEKS[0], *WEEKS[2:]):
        save_artifact(ArtifactStore(home.artifacts).directory("weekly_snapshots", week), {}, {})
    monkeypatch.setattr(Runner, "_run", lambda _, task, **how: tasks.append(task))
    with dg.DagsterInstance.ephemeral() as instance:
        Runner(home, instance, Progress()).do_pending(Backlog(home))
    assert tasks[-2:] == [f"ingest {WEEKS[1]}", f"week {WEEKS[3]} (4 stale assets)"]


def _ran(first: str, last: str | None = None, error: str | None = None) -> RunRecord:
    return RunRecord(INGEST if last else REFRESH, first, last or first, MISSING, (), 1.0, error, "a run")


@pytest.mark.parametrize(
    ("runs", "pending", "end_week", "skipped"),
    [
        (
            [],
            [],
            None,
            [(WEEKS[0], WEEKS[2], "complete"), (WEEKS[3], WEEKS[3], "if_needed"), ("2024-01-29", None, "not_closed")],
        ),
        ([_ran(WEEKS[0], WEEKS[2]), _ran(WEEKS[3])], [], WEEKS[3], []),
        ([_ran(WEEKS[1]), _ran(WEEKS[3])], [], WEEKS[3], [(w, w, "complete") for w in (WEEKS[0], WEEKS[2])]),
        (
            [_ran(WEEKS[0], WEEKS[1], "no such column")],
            [(WEEKS[0], WEEKS[1]), (WEEKS[3], WEEKS[3])],
            WEEKS[3],
            [(WEEKS[2], WEEKS[2], "complete"), (WEEKS[3], WEEKS[3], "after_failure")],
        ),
        # The newest week is complete, and is not run again after a failure.
        (
            [_ran(WEEKS[0], error="no")],
            [],
            WEEKS[3],
            [(WEEKS[1], WEEKS[2], "complete"), (WEEKS[3],) * 2 + ("after_failure",)],
        ),
    ],
)
def test_weeks_that_no_run_was_of_have_a_reason(
    runs: list[RunRecord], pending: list[tuple[str, str]], end_week: str | None, skipped: list[tuple[str, str, str]]
) -> None:
    items = [WorkItem(REFRESH, first, last, MISSING, "") for first, last in pending]
    found = skipped_weeks(WEEKS, runs, items, end_week)
    assert [(of["first_week"], of["last_week"], of["reason"]) for of in found] == skipped


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Runs that make nothing; those of a week, or of weeks from one on, that is added here fail with its message."""
    messages: dict[str, str] = {}

    def run(_: object, *, run_id: str, tags: Mapping[str, str] | None = None, **how: Any) -> object:
        week = how.get("partition_key") or (tags or {})[runner.RANGE_START]
        if week in messages:
            monkeypatch.setattr(runner, "failure", lambda _, run_id: RunFailed(messages[week], run_id))
        return SimpleNamespace(success=week not in messages, all_events=[])

    monkeypatch.setattr(dg.JobDefinition, "execute_in_process", run)
    return messages


def _refresh(home: Home, *options: str) -> Result:
    environment = {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source, "TGN_END_WEEK": WEEKS[3]}
    return CliRunner(env=environment).invoke(cli, ["refresh", *options])


def test_a_refresh_says_which_weeks_it_ran_and_skipped(tmp_path: Path, fake_runs: dict[str, str]) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS)
    for week in WEEKS:
        save_artifact(ArtifactStore(home.artifacts).directory("weekly_snapshots", week), {}, {})
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[2]} 08:00:00"])
    text = _refresh(home)
    assert text.stdout.splitlines()[:3] == [
        f"ran        {WEEKS[2]} in 0.0 s: the source has changed",
        f"ran        {WEEKS[3]} in 0.0 s: complete, but the newest; --if-needed would leave it",
        f"skipped    {WEEKS[0]}..{WEEKS[1]}: complete already",
    ]
    found = json.loads(_refresh(home, "--json", "--if-needed").stdout)
    assert list(found) == ["home", "source", "runs", "skipped", "published", "left_out", "score", "notes"]
    [run] = found["runs"]
    assert (run["action"], run["first_week"], run["reason"], run["error"]) == (REFRESH, WEEKS[2], "changed", None)
    assert [of["reason"] for of in found["skipped"]] == ["complete", "if_needed"]
    alone = _refresh(home, "--week", WEEKS[1]).stdout
    assert f"ran        {WEEKS[1]} in 0.0 s: --week names it\n" in alone
    assert f"skipped    up to {WEEKS[0]}, {WEEKS[2]} and later: --week names one alone" in alone


def test_a_newest_week_with_stale_lists_is_run_once(tmp_path: Path, fake_runs: dict[str, str]) -> None:
    publish(home := home_on_log(tmp_path), *WEEKS)
    for week in WEEKS:
        save_artifact(ArtifactStore(home.artifacts).directory("weekly_snapshots", week), {}, {})
    home.warehouse().record_made("trained_ranker", {WEEKS[3]: "another"})
    assert _refresh(home).stdout.startswith(f"ran        {WEEKS[3]} in 0.0 s: made from something older\nskipped")
    part = _refresh(home, "--if-needed").stdout
    assert part.startswith(f"ran        {WEEKS[3]} (temporal_embeddings, weekly_top5_predictions, weekly_report) in")


def test_a_week_that_failed_in_part_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(home := home_on_log(tmp_path), *WEEKS)
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[3]} 08:00:00"])
    runs = list[str]()

    def run(self: Runner, task: str, **how: Any) -> None:
        runs.append(task)
        ingest(home, WEEKS[3])  # then it fails
        raise RunFailed("no such column", "a run")

    monkeypatch.setattr(Runner, "_run", run)
    monkeypatch.setattr(Runner, "ingest_before", lambda *_: None)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(RunFailed):
        Runner(home, instance, Progress()).do_pending(Backlog(home))
    assert runs == [f"week {WEEKS[3]}"]


def test_a_failed_ingest_holds_up_the_rest_and_is_in_the_document(tmp_path: Path, fake_runs: dict[str, str]) -> None:
    home = home_on_log(tmp_path)
    fake_runs[WEEKS[0]] = "no such column"
    result = _refresh(home, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [(run["action"], run["last_week"], run["error"]) for run in found["runs"]] == [
        (INGEST, WEEKS[2], "no such column")
    ]
    assert found["skipped"] == [{"first_week": WEEKS[3], "last_week": WEEKS[3], "reason": "after_failure"}]
    assert (found["published"], found["score"]) == (None, None)
    assert "Error: no such column" in result.stderr
    text = _refresh(home).stdout
    assert f"failed     {WEEKS[0]}..{WEEKS[2]} (rows alone) after 0.0 s: no such column" in text
    assert f"skipped    {WEEKS[3]}: an earlier step failed" in text
