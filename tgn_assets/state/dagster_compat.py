"""Everything of Dagster that is used here and is private or beta.

pyproject.toml bounds the version of Dagster; `test_dagster_compat.py` says what another one would have to keep.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import EngineEventData, JobFailureData
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._utils.error import SerializableErrorInfo

__all__ = [
    "CheckRunHealthResult",
    "SerializableErrorInfo",
    "UnresolvedAssetJobDefinition",
    "WorkerStatus",
    "error_chain",
    "event_error",
    "single_run_asset",
    "unfinished_backfill",
]


def single_run_asset(**options: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset`, backfilled in one run for any number of weeks; without the warning that this policy is beta."""
    with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
        return dg.asset(backfill_policy=dg.BackfillPolicy.single_run(), **options)


def unfinished_backfill(instance: dg.DagsterInstance) -> str | None:
    """The id of a backfill that still launches runs."""
    statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=statuses), limit=1)
    return backfills[0].backfill_id if backfills else None


def event_error(event: dg.DagsterEvent) -> SerializableErrorInfo | None:
    """The error that an event about a run as a whole carries."""
    data = event.event_specific_data
    return data.error if isinstance(data, EngineEventData | JobFailureData) else None


def error_chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """`error`, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.cause
