"""The check that reasons are true: a sample of a week's is counted again in the log."""

import dagster as dg

from tgn_assets.ml.recommend.published import read_nodes
from tgn_assets.ml.recommend.reason_check import check_reasons
from tgn_assets.reporting.asset_metadata import numbers, preview
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.resources import AttributeFiles
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

REASONS_ARE_TRUE = "reasons_are_true"
REASONS_KEY = dg.AssetCheckKey(dg.AssetKey(PREDICTIONS), REASONS_ARE_TRUE)
SAMPLE = 500
"""Rows of a week that are checked."""


def reasons_are_true_check(weeks: dg.WeeklyPartitionsDefinition) -> dg.AssetChecksDefinition:
    """The check `reasons_are_true`, partitioned by `weeks`."""

    @dg.asset_check(
        asset=PREDICTIONS,
        name=REASONS_ARE_TRUE,
        partitions_def=weeks,
        description=f"What the reasons of {SAMPLE} published rows state is counted again in raw_interactions, by SQL "
        "alone. Fails if one of them is not true.",
    )
    @as_dagster_failure()
    def reasons_are_true(
        context: dg.AssetCheckExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        attribute_files: AttributeFiles,
    ) -> dg.AssetCheckResult:
        week = max(context.op_execution_context.partition_keys)
        with warehouse.reader() as con:
            users, events = read_nodes(con, week)
        attributes = attribute_files.read(users, events, week)
        with warehouse.reader() as con:
            found = check_reasons(con, week, rows=SAMPLE, attributes=attributes, events=events)
        untrue = {"untrue": preview(found.untrue)} if len(found.untrue) else {}
        return dg.AssetCheckResult(
            passed=found.untrue.empty,
            description=found.message,
            metadata={**numbers(found.checked, "checked/"), **untrue},
        )

    return reasons_are_true
