"""Checks that warn and never stop a run: the log drifted, the gate has closed, a simple rule did better."""

from collections.abc import Callable

import dagster as dg

from tgn_assets.assets.recommendations import PREDICTIONS
from tgn_assets.ml.monitoring.alerts import CheckOutcome, input_like_before, lists_are_ours, not_below_baseline
from tgn_assets.reporting.asset_metadata import numbers
from tgn_assets.state.user_errors import explained
from tgn_assets.state.warehouse import Warehouse

WARNINGS = {
    "raw_interactions": "input_like_before",
    PREDICTIONS: "lists_are_ours",
    "eval_metrics": "not_below_baseline",
}
"""The check of each asset."""


def monitoring_checks(weeks: dg.WeeklyPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks `WARNINGS`, partitioned by `weeks`."""
    return [
        _check(
            "raw_interactions",
            input_like_before,
            "Volume, share of new users, event turnover and shift of popularity are within four robust standard "
            "deviations of the twelve weeks before.",
            weeks,
        ),
        _check(
            PREDICTIONS,
            lists_are_ours,
            "At most half of the users get their list from a simple rule instead of the ranker.",
            weeks,
        ),
        _check(
            "eval_metrics",
            not_below_baseline,
            "The published lists were not clearly worse (95% interval of NDCG) than the best simple rule.",
            weeks,
        ),
    ]


def _check(
    asset: str,
    judge: Callable[..., CheckOutcome],
    description: str,
    weeks: dg.WeeklyPartitionsDefinition,
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=WARNINGS[asset], partitions_def=weeks, description=description)
    @explained()
    def check(context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
        # A run over a range of weeks evaluates a check once: for the newest.
        with warehouse.reader() as con:
            verdict = judge(con, max(context.op_execution_context.partition_keys))
        return dg.AssetCheckResult(
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=verdict.said,
            metadata=numbers(verdict.values),
        )

    return check
