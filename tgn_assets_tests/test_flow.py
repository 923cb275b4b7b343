"""Four weeks of a small world through Dagster: what is in the tables and on disk when a week is done, or fails."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from tgn_assets.artifacts import ArtifactStore
from tgn_assets.definitions import build_definitions
from tgn_assets.home import Home
from tgn_assets.ml.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift
from tgn_assets.settings import Settings
from tgn_assets.warehouse import Warehouse

WEEKS = [shift("2024-01-01", later) for later in range(4)]
EMPTY = WEEKS[2]
TINY = {
    "trained_gnn": {"config": {"window": 3, "replay": 2, "dim": 8, "epochs": 2, "warm_epochs": 1}},
    "trained_ranker": {"config": {"origins": 2, "sequence": 2, "dim": 8, "heads": 2, "epochs": 2}},
}
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
PREDICTIONS = "weekly_top5_predictions"
ARTIFACTS = ["weekly_snapshots", "trained_gnn", "trained_ranker", "temporal_embeddings"]


@dataclass
class Deployment:
    """A home, its definitions and its instance."""

    home: Home
    instance: dg.DagsterInstance

    def run(self, week: str, *assets: str, **how: Any) -> dg.ExecuteInProcessResult:
        """One run of the weekly job for `week`, or of some `assets` and all their checks."""
        defs = build_definitions(self.home.settings)
        job = defs.resolve_implicit_global_asset_job_def() if assets else defs.resolve_job_def("weekly_refresh")
        config = {"loggers": QUIET, "ops": {name: TINY[name] for name in TINY if not assets or name in assets}}
        selection = [dg.AssetKey(asset) for asset in assets] or None
        return job.execute_in_process(
            run_config=config, instance=self.instance, partition_key=week, asset_selection=selection, **how
        )

    def table(self, name: str, week: str) -> pd.DataFrame:
        with Warehouse(self.home.warehouse_path).reader() as con:
            return con.execute(f"SELECT * FROM {name} WHERE week = ? ORDER BY ALL", [week]).df()

    def everything(self, week: str) -> dict[str, Any]:
        """All bytes of the partition `week`: files and rows."""
        store = ArtifactStore(self.home.artifacts)
        files = {
            f"{asset}/{path.name}": path.read_bytes()
            for asset in ARTIFACTS
            for path in store.directory(asset, week).iterdir()
        }
        return files | {name: self.table(name, week).to_csv() for name in (PREDICTIONS, "eval_metrics")}


def home_at(path: Path, log: Path) -> Home:
    settings = Settings(
        _env_file=None,
        home=path,
        source=str(log),
        end_week=WEEKS[-1],
        future_blind=True,
        export_parquet=str(path.parent / f"{path.name}-export"),
    )
    return Home(settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Deployment]]:
    """Week 0 ingested on its own in a range run, weeks 1 to 3 refreshed one after the other; week 2 has no rows."""
    folder = tmp_path_factory.mktemp("world")
    world = World(users=30, events=20, communities=3)
    log = pd.concat([generate_week(week, world) for week in WEEKS if week != EMPTY])
    log.columns = ["ip_address", "event_id", "timestamp"]
    log.to_csv(folder / "log.csv", index=False)
    # Kept in memory: a Dagster instance on disk would take five times as long as all that is tested here.
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(home_at(folder / "home", folder / "log.csv"), instance)
        job = build_definitions(deployment.home.settings).resolve_job_def("weekly_refresh")
        job.execute_in_process(
            run_config={"loggers": QUIET},
            instance=instance,
            asset_selection=[dg.AssetKey("raw_interactions"), dg.AssetKey("weekly_snapshots")],
            tags={"dagster/asset_partition_range_start": WEEKS[0], "dagster/asset_partition_range_end": WEEKS[1]},
        )
        for week in WEEKS[1:]:
            deployment.run(week)
        yield folder, deployment


@pytest.fixture
def copy(finished: tuple[Path, Deployment], tmp_path: Path) -> Iterator[Deployment]:
    """A copy of the finished deployment, to be damaged."""
    folder, _ = finished
    shutil.copytree(folder / "home", tmp_path / "home")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(home_at(tmp_path / "home", folder / "log.csv"), instance)


@pytest.fixture
def done(finished: tuple[Path, Deployment]) -> Deployment:
    return finished[1]


def metadata(deployment: Deployment, asset: str, week: str) -> dict[str, Any]:
    records = deployment.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[week]), limit=1
    ).records
    return {name: value.value for name, value in records[0].asset_materialization.metadata.items()}


def test_every_user_with_a_history_has_five_ranked_events_for_the_next_week(done: Deployment) -> None:
    for week in WEEKS[1:]:
        lists = done.table(PREDICTIONS, week)
        known = {
            user for earlier in WEEKS if earlier <= week for user in done.table("raw_interactions", earlier).user_id
        }
        assert set(lists.user_id) == known
        assert (lists.groupby("user_id")["rank"].apply(list).map(lambda ranks: ranks == [1, 2, 3, 4, 5])).all()
        assert set(lists.target_week.dt.strftime("%Y-%m-%d")) == {shift(week, 1)}
        assert len(done.table("new_user_top5_predictions", week)) == 5


def test_the_first_model_starts_cold_and_each_later_one_from_the_week_before(done: Deployment) -> None:
    store = ArtifactStore(done.home.artifacts)
    assert [store.load("trained_gnn", week).warm_from for week in WEEKS[1:]] == [None, *WEEKS[1:3]]


def test_the_metrics_of_a_week_score_the_lists_made_a_week_before(done: Deployment) -> None:
    week = WEEKS[3]
    truth = done.table("raw_interactions", week).drop_duplicates(["user_id", "event_id"])
    lists = done.table(PREDICTIONS, WEEKS[2])
    served = truth[truth.user_id.isin(lists.user_id)]
    hits = served.merge(lists, on=["user_id", "event_id"]).groupby("user_id").size()
    expected = hits.sum() / 5 / served.user_id.nunique()
    metrics = done.table("eval_metrics", week).set_index(["model", "segment", "metric"])
    ours = metrics.loc[("tgn_assets", "seen", "precision")]
    assert ours.value == pytest.approx(expected, abs=1e-6)
    assert ours.users == served.user_id.nunique()
    assert {"popular", "repeat", "item_knn"} <= set(metrics.index.get_level_values("model"))
    shown = metadata(done, "eval_metrics", week)
    assert shown["ndcg/seen/tgn_assets"] == metrics.loc[("tgn_assets", "seen", "ndcg")].value
    assert shown["brier/all/tgn_assets"] == metrics.loc[("tgn_assets", "all", "brier")].value


def test_the_first_week_has_nothing_to_score_and_says_so(done: Deployment) -> None:
    assert done.table("eval_metrics", WEEKS[1]).empty
    assert "no lists were published" in metadata(done, "eval_metrics", WEEKS[1])["note"]


def test_a_week_without_rows_is_a_week_like_any_other(done: Deployment) -> None:
    assert metadata(done, "raw_interactions", EMPTY)["rows"] == 0
    assert metadata(done, "weekly_snapshots", EMPTY)["edges"] == 0
    assert not done.table(PREDICTIONS, EMPTY).empty
    metrics = done.table("eval_metrics", EMPTY)
    of_users = metrics[~metrics.metric.str.startswith(("brier", "predicted", "observed"))]
    assert set(of_users.users) == {0}
    assert (
        metadata(done, "eval_metrics", EMPTY)["brier_constant/all/tgn_assets"] == 0
    )  # nothing that was published came true


def test_a_range_run_tells_each_week_its_own_numbers(done: Deployment) -> None:
    rows = [metadata(done, "raw_interactions", week)["dagster/partition_row_count"] for week in WEEKS[:2]]
    assert rows == [len(done.table("raw_interactions", week)) for week in WEEKS[:2]]


def test_the_numbers_that_the_ui_plots_are_numbers(done: Deployment) -> None:
    trained = metadata(done, "trained_gnn", WEEKS[3])
    assert isinstance(trained["loss"], float) and trained["weeks_read"] == 4
    assert trained["curve"].startswith("![training curve](data:image/png;base64,") and len(trained["curve"]) < 50_000


def test_the_lists_come_with_their_breadth_and_the_log_with_its_first_rows(done: Deployment) -> None:
    lists, shown = done.table(PREDICTIONS, WEEKS[3]), metadata(done, PREDICTIONS, WEEKS[3])
    assert shown["events_recommended"] == lists.event_id.nunique()
    assert shown["coverage"] == lists.event_id.nunique() / shown["events"]
    assert shown["catalogue"].startswith("![most recommended events")
    assert shown["dagster/column_lineage"].deps_by_column["event_id"]
    rows = metadata(done, "raw_interactions", WEEKS[3])["preview"].splitlines()
    assert rows[0] == "| user_id | event_id | ts | week |" and len(rows) == 12


def test_each_week_is_held_against_those_before_and_a_range_of_weeks_for_its_newest(done: Deployment) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("raw_interactions"), "input_like_before")
    records = done.instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    evaluations = [record.evaluation for record in records]
    said = [each.description for each in evaluations if isinstance(each, dg.AssetCheckEvaluation)]
    assert [next(week for week in WEEKS if week in str(text)) for text in said] == [*WEEKS[:0:-1], WEEKS[1]]


def test_running_a_week_again_gives_the_same_bytes(copy: Deployment) -> None:
    before = copy.everything(WEEKS[3])
    copy.run(WEEKS[3])
    assert copy.everything(WEEKS[3]) == before


def test_lists_that_fail_a_check_are_not_published_and_the_next_run_repairs_the_week(
    copy: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tgn_assets.ml import ranking

    before = copy.everything(WEEKS[3])
    recommend = ranking.recommend

    def broken(*args: Any, **kwargs: Any) -> ranking.Recommendations:
        made = recommend(*args, **kwargs)
        made.scores[0, 0] = float("nan")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(ranking, "recommend", broken)
        failed = copy.run(WEEKS[3], PREDICTIONS, raise_on_error=False)
    assert not failed.success
    failure = failed.failure_data_for_node(PREDICTIONS)
    assert failure is not None and failure.user_failure_data is not None
    description = failure.user_failure_data.description
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
def test_every_run_holds_the_lock_of_its_home(asset: str, copy: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    writer = Warehouse.writer

    def watched(warehouse: Warehouse) -> Any:
        held.append(copy.home.run_lock.read_text())
        return writer(warehouse)

    monkeypatch.setattr(Warehouse, "writer", watched)
    result = copy.run(WEEKS[3], asset)
    assert set(held) == {f"run {result.run_id} of process {os.getpid()}"}
    assert copy.home.run_lock.read_text() == ""


def future_blind(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "future_blind"]
    return found


def test_a_past_week_comes_out_the_same_without_the_weeks_after_it(
    copy: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check = future_blind(copy.run(WEEKS[1], PREDICTIONS))
    assert check.passed, check.description
    assert check.partition == WEEKS[1]
    assert not (tmp_path / "mlflow").exists(), "the model of a proof is no week's model"


def test_a_leak_of_later_weeks_is_found(copy: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    from tgn_assets import warehouse

    leak = "count(*) + (SELECT count(*) FROM raw_interactions WHERE week > $week) AS count"
    monkeypatch.setattr(warehouse, "HISTORY_SQL", warehouse.HISTORY_SQL.replace("count(*) AS count", leak))
    check = future_blind(copy.run(WEEKS[1], "trained_ranker", "temporal_embeddings", PREDICTIONS))
    assert not check.passed
    assert "trained_ranker" in str(check.description)


def test_a_device_that_is_not_there_is_named(copy: Deployment) -> None:
    there = copy.home.settings.model_copy(update={"device": "cuda:7"})
    failed = Deployment(Home(there), copy.instance).run(WEEKS[3], "trained_gnn", raise_on_error=False)
    failure = failed.failure_data_for_node("trained_gnn")
    assert failure is not None and failure.user_failure_data is not None
    assert failure.user_failure_data.description.startswith("TGN_DEVICE=cuda:7 cannot be used (")


def test_a_missing_artifact_is_named_with_the_remedy(copy: Deployment) -> None:
    shutil.rmtree(ArtifactStore(copy.home.artifacts).directory("trained_ranker", WEEKS[3]))
    failed = copy.run(WEEKS[3], "temporal_embeddings", raise_on_error=False)
    failure = failed.failure_data_for_node("temporal_embeddings")
    assert failure is not None and failure.user_failure_data is not None
    assert f"no trained_ranker of week {WEEKS[3]}" in failure.user_failure_data.description


def test_every_refreshed_week_is_exported_as_it_is_in_the_warehouse(done: Deployment) -> None:
    folder = done.home.settings.export_parquet
    assert folder is not None
    for week in WEEKS[1:]:
        for table in (PREDICTIONS, "eval_metrics"):
            file = f"{folder}/{table}/week={week}/data.parquet"
            exported = duckdb.sql(f"SELECT count(*) FROM '{file}'").fetchall()
            assert exported == [(len(done.table(table, week)),)]


def test_every_week_that_was_refreshed_has_its_report(finished: tuple[Path, Deployment]) -> None:
    _, deployment = finished
    assert sorted(path.name for path in deployment.home.reports.iterdir()) == [f"{week}.html" for week in WEEKS[1:]]


def test_the_table_of_quality_says_of_the_published_lists_what_the_metrics_say(
    done: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.quality import main

    monkeypatch.setattr("sys.argv", ["quality", str(done.home.settings.home), "--published-only"])
    main()
    printed = dict(line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines() if line.count(" | ") > 1)
    with done.home.warehouse().reader() as con:
        [(pooled,)] = con.execute(
            "SELECT sum(value * users) / sum(users) FROM eval_metrics WHERE metric = 'ndcg' AND segment = 'all' "
            "AND model = 'tgn_assets' AND users > 0"
        ).fetchall()
    assert printed["| ours, as published"] == f"{pooled:.4f}"
