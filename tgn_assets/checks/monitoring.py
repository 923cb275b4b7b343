"""Checks that warn and never stop a run: the log drifted, most lists are a baseline's, a baseline did better."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from tgn_assets.ml.monitoring.week_warnings import CheckOutcome, input_like_before, lists_are_ours, not_below_baseline
from tgn_assets.reporting.asset_metadata import numbers
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

if TYPE_CHECKING:
    import duckdb

WARNINGS: "dict[Callable[[duckdb.DuckDBPyConnection, str], CheckOutcome], str]" = {
    input_like_before: "raw_interactions",
    lists_are_ours: PREDICTIONS,
    not_below_baseline: "eval_metrics",
}
"""The registry of warnings: function -> the asset whose weeks it looks at. Its name is the name of the check."""

WARNING_KEYS = [dg.AssetCheckKey(dg.AssetKey(asset), judge.__name__) for judge, asset in WARNINGS.items()]


def monitoring_checks(weeks: dg.WeeklyPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks `WARNINGS`, partitioned by `weeks`."""
    return [_check(judge, asset, weeks) for judge, asset in WARNINGS.items()]


def _check(
    judge: "Callable[[duckdb.DuckDBPyConnection, str], CheckOutcome]", asset: str, weeks: dg.WeeklyPartitionsDefinition
) -> dg.AssetChecksDefinition:
    description = " ".join(str(judge.__doc__).split())

    @dg.asset_check(asset=asset, name=judge.__name__, partitions_def=weeks, description=description)
    @as_dagster_failure()
    def check(context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
        # A run over a range of weeks evaluates a check once: for the newest.
        with warehouse.reader() as con:
            outcome = judge(con, max(context.op_execution_context.partition_keys))
        return dg.AssetCheckResult(
            passed=outcome.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=outcome.message,
            metadata=numbers(outcome.values),
        )

    return check
