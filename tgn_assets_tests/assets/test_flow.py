"""Four weeks of a small world through Dagster: what is in the tables and on disk when a week is done."""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from tgn_assets.ml.weeks import shift
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets_tests.support.deployment import EMPTY, PREDICTIONS, WEEKS, Deployment


def metadata(deployment: Deployment, asset: str, week: str) -> dict[str, Any]:
    records = deployment.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[week]), limit=1
    ).records
    materialization = records[0].asset_materialization
    assert materialization is not None
    return {name: value.value for name, value in materialization.metadata.items()}


def test_every_known_user_has_five_ranked_events(done: Deployment) -> None:
    for week in WEEKS[1:]:
        lists = done.table(PREDICTIONS, week)
        known = {
            user for earlier in WEEKS if earlier <= week for user in done.table("raw_interactions", earlier).user_id
        }
        assert set(lists.user_id) == known
        assert (lists.groupby("user_id")["rank"].apply(list).map(lambda ranks: ranks == [1, 2, 3, 4, 5])).all()
        assert set(lists.target_week.dt.strftime("%Y-%m-%d")) == {shift(week, 1)}
        assert len(done.table("new_user_top5_predictions", week)) == 5


def test_first_model_is_cold_and_later_ones_warm_start(done: Deployment) -> None:
    store = ArtifactStore(done.home.artifacts)
    assert [store.load("trained_gnn", week).warm_from for week in WEEKS[1:]] == [None, *WEEKS[1:3]]


def test_eval_metrics_score_the_lists_of_the_week_before(done: Deployment) -> None:
    week = WEEKS[3]
    truth = done.table("raw_interactions", week).drop_duplicates(["user_id", "event_id"])
    lists = done.table(PREDICTIONS, WEEKS[2])
    served = truth[truth.user_id.isin(lists.user_id)]
    hits = served.merge(lists, on=["user_id", "event_id"]).groupby("user_id").size()
    expected = hits.sum() / 5 / served.user_id.nunique()
    metrics = done.table("eval_metrics", week)
    ours_and_seen = metrics[(metrics.model == "tgn_assets") & (metrics.segment == "seen")].set_index("metric")
    ours = ours_and_seen.loc["precision"]
    assert ours.value == pytest.approx(expected, abs=1e-6)
    assert ours.users == served.user_id.nunique()
    assert {"popular", "repeat", "item_knn"} <= set(metrics.model)
    shown = metadata(done, "eval_metrics", week)
    seen = shown["comparison_seen"].records[0].data
    assert (seen["model"], seen["ndcg"]) == ("tgn_assets", round(ours_and_seen.value["ndcg"], 4))
    columns = [column.name for column in shown["comparison_seen"].schema.columns]  # as many as fit the screen
    assert columns == ["model", "ndcg", "ci_low", "ci_high", "users", "hit_rate", "recall"]
    assert shown["brier"] == metrics[(metrics.metric == "brier") & (metrics.segment == "all")].value.item()
    assert next(iter(shown)) == "verdict" and len(shown) < 40


def test_first_week_has_nothing_to_score(done: Deployment) -> None:
    assert done.table("eval_metrics", WEEKS[1]).empty
    assert "no lists were published" in metadata(done, "eval_metrics", WEEKS[1])["note"]


def test_week_without_rows_is_processed(done: Deployment) -> None:
    assert metadata(done, "raw_interactions", EMPTY)["rows"] == 0
    assert metadata(done, "weekly_snapshots", EMPTY)["edges"] == 0
    assert not done.table(PREDICTIONS, EMPTY).empty
    metrics = done.table("eval_metrics", EMPTY)
    of_users = metrics[~metrics.metric.str.startswith(("brier", "predicted", "observed"))]
    assert set(of_users.users) == {0}
    assert metadata(done, "eval_metrics", EMPTY)["brier_constant"] == 0  # nothing that was published came true


def test_range_run_has_row_counts_per_week(done: Deployment) -> None:
    rows = [metadata(done, "raw_interactions", week)["dagster/partition_row_count"] for week in WEEKS[:2]]
    assert rows == [len(done.table("raw_interactions", week)) for week in WEEKS[:2]]


def test_training_metadata_has_numbers_and_curve(done: Deployment) -> None:
    trained = metadata(done, "trained_gnn", WEEKS[3])
    assert isinstance(trained["loss"], float) and trained["weeks_read"] == 4
    assert (
        trained["curve"].startswith("![training curve](data:image/svg+xml;base64,") and len(trained["curve"]) < 50_000
    )


def test_metadata_has_catalogue_coverage_and_previews(done: Deployment) -> None:
    lists, shown = done.table(PREDICTIONS, WEEKS[3]), metadata(done, PREDICTIONS, WEEKS[3])
    assert shown["events_recommended"] == lists.event_id.nunique()
    assert shown["coverage"] == lists.event_id.nunique() / shown["events"]
    assert shown["catalogue"].startswith("![most recommended events")
    assert shown["dagster/column_lineage"].deps_by_column["event_id"]
    table = metadata(done, "raw_interactions", WEEKS[3])["preview"]
    assert [column.name for column in table.schema.columns] == ["user_id", "event_id", "ts", "week"]
    assert len(table.records) == 10
    for name, whose in (("preview", ["user_id"]), ("new_users", [])):  # what fits the screen: the rest is in the table
        columns = [column.name for column in shown[name].schema.columns]
        assert columns == [*whose, "rank", "event_id", "score", "source", "reason"]


def test_drift_check_covers_each_week_and_newest_of_a_range(done: Deployment) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("raw_interactions"), "input_like_before")
    records = done.instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    evaluations = [record.evaluation for record in records]
    said = [each.description for each in evaluations if isinstance(each, dg.AssetCheckEvaluation)]
    assert [next(week for week in WEEKS if week in str(text)) for text in said] == [*WEEKS[:0:-1], WEEKS[1]]


def test_parquet_export_has_the_rows_of_the_warehouse(done: Deployment) -> None:
    folder = done.home.settings.export_parquet
    assert folder is not None
    for week in WEEKS[1:]:
        for table in (PREDICTIONS, "eval_metrics"):
            file = f"{folder}/{table}/week={week}/data.parquet"
            exported = duckdb.execute(f"SELECT count(*) FROM '{file}'").fetchall()
            assert exported == [(len(done.table(table, week)),)]


def test_every_refreshed_week_has_a_report(finished: tuple[Path, Deployment]) -> None:
    _, deployment = finished
    pages = sorted(path.name for path in deployment.home.reports.iterdir())
    assert pages == [*(f"{week}.html" for week in WEEKS[1:]), "index.html"]


def test_benchmark_quality_agrees_with_eval_metrics(
    done: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.quality.__main__ import main

    monkeypatch.setattr("sys.argv", ["quality", str(done.home.settings.home), "--published-only"])
    main()
    printed = dict(line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines() if line.count(" | ") > 1)
    with done.home.warehouse().reader() as con:
        [(pooled,)] = con.execute(
            "SELECT sum(value * users) / sum(users) FROM eval_metrics WHERE metric = 'ndcg' AND segment = 'all' "
            "AND model = 'tgn_assets' AND users > 0"
        ).fetchall()
    assert printed["| ours, as published"] == f"{pooled:.4f}"
