"""A week run once more through Dagster: the same again, or a failure that changes nothing and says what to do."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tgn_assets.automation.backlog import Backlog
from tgn_assets.ml.artifact_io import ArtifactError
from tgn_assets.ml.ranker.checkpoint import load_model
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.deployment import PREDICTIONS, WEEKS, Deployment, failure_of, home_at


def test_rerun_gives_the_same_bytes(copy: Deployment) -> None:
    before = copy.everything(WEEKS[3])
    copy.run(WEEKS[3])
    assert copy.everything(WEEKS[3]) == before


def test_failed_check_blocks_publication_until_next_run(copy: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    from tgn_assets.ml.recommend import publish, top_k

    before = copy.everything(WEEKS[3])
    recommend = top_k.recommend

    def broken(*args: Any, **kwargs: Any) -> top_k.Recommendations:
        made = recommend(*args, **kwargs)
        made.scores[0, 0] = float("nan")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(publish, "recommend", broken)
        failed = copy.run(WEEKS[3], PREDICTIONS, raise_on_error=False)
    assert not failed.success
    description = failure_of(failed, PREDICTIONS)
    assert f"predictions of week {WEEKS[3]} were not published" in description
    assert "scores_are_finite: the list of user" in description and "Run weekly_refresh" in description
    assert {check.check_name: check.passed for check in failed.get_asset_check_evaluations() if not check.passed} == {
        "scores_are_finite": False
    }
    assert copy.everything(WEEKS[3]) == before

    repaired = copy.run(WEEKS[3])
    assert repaired.success
    assert copy.everything(WEEKS[3]) == before


@pytest.mark.parametrize("asset", ["raw_interactions", "eval_metrics"])
def test_every_run_holds_the_run_lock(asset: str, copy: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    writer = Warehouse.writer

    def log_query_progress(warehouse: Warehouse) -> Any:
        held.append(copy.home.run_lock.read_text())
        return writer(warehouse)

    monkeypatch.setattr(Warehouse, "writer", log_query_progress)
    result = copy.run(WEEKS[3], asset)
    assert set(held) == {f"run {result.run_id} of process {os.getpid()}"}
    assert copy.home.run_lock.read_text() == ""


def test_what_a_kill_left_is_swept_under_the_run_lock(copy: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    sweep = ArtifactStore.sweep

    def swept(store: ArtifactStore) -> None:
        held.append(copy.home.run_lock.read_text())
        sweep(store)

    monkeypatch.setattr(ArtifactStore, "sweep", swept)
    result = copy.run(WEEKS[3], "eval_metrics")
    assert held == [f"run {result.run_id} of process {os.getpid()}"]


def future_blind(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "future_blind"]
    return found


def test_future_blind_passes_and_logs_no_model(
    copy: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check = future_blind(copy.run(WEEKS[1], PREDICTIONS))
    assert check.passed, check.description
    assert check.partition == WEEKS[1]
    assert not (tmp_path / "mlflow").exists(), "the model of a proof is no week's model"


def test_future_blind_finds_a_leak(copy: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    from tgn_assets.ml.data import interactions

    counted, leak = "count(*)::FLOAT", "(count(*) + (SELECT count(*) FROM raw_interactions WHERE week > $week))::FLOAT"
    assert counted in interactions.HISTORY_SQL
    monkeypatch.setattr(interactions, "HISTORY_SQL", interactions.HISTORY_SQL.replace(counted, leak))
    check = future_blind(copy.run(WEEKS[1], "trained_ranker", "temporal_embeddings", PREDICTIONS))
    assert not check.passed
    assert "trained_ranker" in str(check.description)


def test_missing_device_is_named(copy: Deployment) -> None:
    there = copy.home.settings.model_copy(update={"device": "cuda:7"})
    failed = Deployment(Home(there), copy.instance).run(WEEKS[3], "trained_gnn", raise_on_error=False)
    assert failure_of(failed, "trained_gnn").startswith("TGN_DEVICE=cuda:7 cannot be used (")


def test_incompatible_ranker_is_replaced_by_a_cold_start(copy: Deployment) -> None:
    store = ArtifactStore(copy.home.artifacts)
    ranker = store.load("trained_ranker", WEEKS[2])
    store.save("trained_ranker", WEEKS[2], replace(ranker, features=ranker.features[:-2]))
    with pytest.raises(ArtifactError, match=f"ranker of {WEEKS[2]} was trained by a version"):
        load_model(store.load("trained_ranker", WEEKS[2]))
    assert copy.run(WEEKS[3]).success
    assert store.load("trained_ranker", WEEKS[3]).warm_from is None
    of_models = copy.table("eval_metrics", WEEKS[3]).model
    assert "tgn_assets" in set(of_models) and "candidates" not in set(of_models)  # the old ranker cannot be asked


def with_rows(copy: Deployment, folder: Path, *rows: str) -> Deployment:
    """`copy` with `rows` appended to its log."""
    log = folder / "log.csv"
    log.write_text(Path(copy.home.settings.source).read_text() + "".join(f"{row}\n" for row in rows))
    return Deployment(home_at(copy.home.root, log), copy.instance)


def test_erased_users_and_events_leave_later_weeks_runnable(copy: Deployment, tmp_path: Path) -> None:
    grown = with_rows(copy, tmp_path, f"gone,gone event,{WEEKS[1]} 08:00:00", f"gone,event 1,{WEEKS[1]} 09:00:00")
    for week in WEEKS[1:3]:
        grown.run(week)
    late = (f"event 1,late event {number},{WEEKS[1]} 08:00:00" for number in range(3))
    erased = with_rows(copy, tmp_path, *late)
    erased.run(WEEKS[1])
    erased.run(WEEKS[3])  # the snapshot of the week between still has both
    lists = erased.table(PREDICTIONS, WEEKS[3])
    assert "gone" not in set(lists.user_id) and "gone event" not in set(lists.event_id)
    assert erased.table("eval_metrics", WEEKS[3]).value.notna().any()


def test_a_week_whose_past_was_never_ingested_is_refused(copy: Deployment, tmp_path: Path) -> None:
    fresh = Deployment(home_at(tmp_path / "fresh", Path(copy.home.settings.source)), copy.instance)
    failed = fresh.run(WEEKS[3], raise_on_error=False)
    description = failure_of(failed, "trained_gnn")
    assert f"3 of the weeks {WEEKS[0]} to {WEEKS[3]} were never ingested" in description
    assert "`tgn refresh`" in description


def test_late_rows_leave_work_until_all_lists_follow(copy: Deployment, tmp_path: Path) -> None:
    def pending() -> list[tuple[str, tuple[str, ...]]]:
        return [(item.first, item.assets) for item in Backlog(late.home).work_items()]

    late = with_rows(copy, tmp_path)
    assert pending() == []
    late = with_rows(copy, tmp_path, f"late user,event 1,{WEEKS[2]} 08:00:00")
    assert pending() == [(WEEKS[2], ())]
    late.run(WEEKS[2], "raw_interactions", "weekly_snapshots", "trained_gnn")  # and killed then
    follows = ("temporal_embeddings", PREDICTIONS, "eval_metrics", "weekly_report", "parquet_export")
    assert pending()[0] == (WEEKS[2], ("trained_ranker", *follows))
    late.run(WEEKS[2])
    assert [week for week, _ in pending()] == [WEEKS[3]]
    late.run(WEEKS[3])
    assert pending() == []


def test_missing_artifact_is_named_with_remedy(copy: Deployment) -> None:
    shutil.rmtree(ArtifactStore(copy.home.artifacts).directory("trained_ranker", WEEKS[3]))
    failed = copy.run(WEEKS[3], "temporal_embeddings", raise_on_error=False)
    assert f"trained_ranker/{WEEKS[3]}; `tgn refresh --week {WEEKS[3]}` makes it again" in failure_of(
        failed, "temporal_embeddings"
    )
