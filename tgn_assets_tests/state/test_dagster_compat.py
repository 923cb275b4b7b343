"""What `dagster_compat` takes from Dagster's private modules, as an upgrade must keep it."""

import gc
import weakref
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from tgn_assets.state import dagster_compat
from tgn_assets.state.dagster_compat import error_chain, event_error, forget_captured_outputs, unfinished_backfill


@pytest.mark.parametrize(
    ("status", "found"), [(BulkActionStatus.REQUESTED, "abc"), (BulkActionStatus.COMPLETED_SUCCESS, None)]
)
def test_only_a_backfill_that_launches_runs_is_unfinished(
    instance: dg.DagsterInstance, status: BulkActionStatus, found: str | None
) -> None:
    instance.add_backfill(PartitionBackfill("abc", status, from_failure=False, tags={}, backfill_timestamp=0.0))
    assert unfinished_backfill(instance, "ours", frozenset()) == found


@pytest.mark.parametrize(("assets", "found"), [(["shop/lists", "other"], "abc"), (["lists", "other"], None)])
def test_a_backfill_of_other_assets_does_not_count(
    instance: dg.DagsterInstance, assets: list[str], found: str | None
) -> None:
    selection = [dg.AssetKey.from_user_string(key) for key in assets]
    instance.add_backfill(
        PartitionBackfill(
            "abc",
            BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={},
            backfill_timestamp=0.0,
            asset_selection=selection,
        )
    )
    assert unfinished_backfill(instance, "ours", {dg.AssetKey(["shop", "lists"])}) == found


def test_the_error_of_a_failed_run_has_its_chain_of_causes(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def broken() -> None:
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise RuntimeError("the error") from error

    result = dg.materialize([broken], instance=instance, raise_on_error=False)
    step = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE)
    chain = list(error_chain(step.step_failure_data.error))
    assert [error.cls_name for error in chain] == ["DagsterExecutionStepExecutionError", "RuntimeError", "ValueError"]
    assert chain[-1].message == "ValueError: the cause\n"


def test_a_run_that_cannot_start_says_why_in_an_event(instance: dg.DagsterInstance) -> None:
    @dg.resource
    def away() -> None:
        raise OSError("the server is away")

    @dg.asset(required_resource_keys={"away"})
    def idle() -> None: ...

    result = dg.materialize([idle], instance=instance, resources={"away": away}, raise_on_error=False)
    errors = [error for event in result.all_events if (error := event_error(event))]
    assert any("the server is away" in cause.message for error in errors for cause in error_chain(error))


def test_a_job_of_assets_is_an_unresolved_asset_job() -> None:
    job = dg.define_asset_job("job", selection="*")
    assert isinstance(job, dagster_compat.UnresolvedAssetJobDefinition)


def test_a_launcher_answers_with_these_health_results() -> None:
    gone = dagster_compat.CheckRunHealthResult(dagster_compat.WorkerStatus.FAILED, "gone")
    assert (gone.status, gone.msg) == (dagster_compat.WorkerStatus.FAILED, "gone")
    assert dagster_compat.WorkerStatus.RUNNING != dagster_compat.WorkerStatus.FAILED
    assert dg.DefaultRunLauncher().check_run_worker_health.__annotations__["return"] in (
        dagster_compat.CheckRunHealthResult,
        "CheckRunHealthResult",
    )


class Model:
    """What an asset returns."""


class Forgetful(dg.IOManager):
    """Keeps a weak reference alone to what is handed over."""

    def handle_output(self, context: dg.OutputContext, obj: Model) -> None:
        self.model = weakref.ref(obj)
        forget_captured_outputs(context)

    def load_input(self, context: dg.InputContext) -> None:
        gc.collect()


def test_what_an_asset_returned_is_gone_when_the_next_one_runs(instance: dg.DagsterInstance) -> None:
    manager, there = Forgetful(), list[bool]()

    @dg.asset
    def model() -> Model:
        return Model()

    @dg.asset
    def lists(model: Any) -> None:
        there.append(manager.model() is not None)

    defs = dg.Definitions([model, lists], resources={"io_manager": manager})
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance).success
    assert there == [False]
