"""The check `reasons_are_true` as Dagster runs it."""

from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.checks.reasons import REASONS_KEY, reasons_are_true_check
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.resources import AttributeFiles
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.ml.recommend.reason_logs import WEEK, log_in, publish, rows, said
from tgn_assets_tests.support.event_logs import JOBS
from tgn_assets_tests.support.worlds import START, warehouse


@pytest.fixture
def filled(tmp_path: Path) -> Warehouse:
    """A warehouse on disk with the log of `rows` and true reasons, without those from attributes."""
    found = Warehouse(tmp_path / "warehouse.duckdb")
    log = warehouse(rows())
    assert log_in(log).num_users
    with found.writer() as con:
        for table in ("raw_interactions", "users", "events"):
            frame = log.execute(f"FROM {table}").df()  # noqa: F841 (DuckDB reads it by name)
            con.execute(f"INSERT INTO {table} BY NAME FROM frame")
        publish(con, said(con))
    return found


def evaluate(filled: Warehouse) -> dg.AssetCheckEvaluation:
    weeks = weekly_partitions(START, WEEK)

    @dg.asset(name=PREDICTIONS, partitions_def=weeks)
    def untouched() -> None: ...

    result = dg.materialize(
        [untouched, reasons_are_true_check(weeks)],
        selection=[untouched],
        partition_key=WEEK,
        resources={
            "warehouse": dg.ResourceDefinition.hardcoded_resource(filled),
            "attribute_files": AttributeFiles(null_words=[]),
        },
        instance=dg.DagsterInstance.ephemeral(),
    )
    (found,) = result.get_asset_check_evaluations()
    return found


def test_check_passes_on_true_reasons_and_names_an_untrue_one(filled: Warehouse) -> None:
    found = evaluate(filled)
    assert found.passed, found.description
    assert "reasons are true" in str(found.description) and found.metadata["checked/repeat"].value
    with filled.writer() as con:
        con.execute("DELETE FROM raw_interactions WHERE user_id = 'ann' AND event_id = 'tea'")
    found = evaluate(filled)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.ERROR
    assert "are not true. In the list of user" in str(found.description)
    untrue = found.metadata["untrue"]
    assert isinstance(untrue, dg.TableMetadataValue) and "repeat" in {record.data["kind"] for record in untrue.records}


def test_weekly_job_runs_the_check() -> None:
    assert REASONS_KEY.name in str(JOBS[0].selection)
