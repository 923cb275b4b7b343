"""Copies of the week's lists and metrics outside the warehouse, for deployments that are configured to make them."""

from collections.abc import Mapping

import dagster as dg

from tgn_assets.ml.export.destinations import DESTINATIONS
from tgn_assets.ml.safe_text import safe_text
from tgn_assets.reporting.asset_metadata import numbers
from tgn_assets.state.lineage import location_digest
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse


def asset_name(destination: str) -> str:
    """The name of the asset that writes to `destination`."""
    return f"{destination}_export"


def record_export(warehouse: Warehouse, destination: str, location: str, week: str, rows: Mapping[str, int]) -> None:
    """Records that `destination` has `week` at `location`, with so many rows by table: it need not be written again."""
    warehouse.record_made(
        asset_name(destination), {week: f"{sum(rows.values())} rows"}, settings=location_digest(location)
    )


def export_asset(name: str, location: str) -> dg.AssetsDefinition:
    """The asset that writes to the destination `name` at `location`."""
    destination = DESTINATIONS[name]

    @dg.asset(
        name=asset_name(name),
        description=destination.description,
        group_name="recommendations",
        kinds={name},
        deps=["weekly_top5_predictions", "eval_metrics"],
    )
    @as_dagster_failure()
    def export(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        week = context.partition_key
        rows = destination.write(warehouse.reader, location, week)
        record_export(warehouse, name, location, week, rows)
        return dg.MaterializeResult(
            metadata={"place": dg.MetadataValue.path(safe_text(location)), **numbers(rows, "rows/")}
        )

    return export
