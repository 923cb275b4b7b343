"""The runner behind `tgn refresh` and `tgn backtest`."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.cli import runner
from tgn_assets.cli.console import Progress
from tgn_assets.cli.runner import Runner
from tgn_assets.ml.artifact_io import save_artifact
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets_tests.support.event_logs import WEEKS, home_on_log, ingest


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
