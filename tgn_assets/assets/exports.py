"""Copies of the week's lists and metrics outside the warehouse, for deployments that are configured to make them.

These are factories, because where they write to is a setting of the deployment.
"""

import dagster as dg

from tgn_assets.reporting.asset_metadata import numbers
from tgn_assets.state.user_errors import explained
from tgn_assets.state.warehouse import Warehouse


def parquet_export_asset(place: str) -> dg.AssetsDefinition:
    """`parquet_export` into the folder or object store `place`."""

    @dg.asset(
        group_name="recommendations",
        kinds={"parquet"},
        deps=["weekly_top5_predictions", "eval_metrics"],
    )
    @explained()
    def parquet_export(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        """Write the week's lists and metrics as Parquet, in hive partitions `<table>/week=<week>/`.

        It is a step of its own: if nothing can be written there, the lists are published all the same, and this step
        alone can be run again. `tgn export` does the same for all weeks.
        """
        from tgn_assets.ml.export.parquet import export_week

        with warehouse.reader() as con:
            rows = export_week(con, place, context.partition_key)
        return dg.MaterializeResult(metadata={"folder": dg.MetadataValue.path(place), **numbers(rows, "rows/")})

    return parquet_export


def postgres_export_asset(url: str) -> dg.AssetsDefinition:
    """`postgres_export` into the database at `url`."""

    @dg.asset(
        group_name="recommendations",
        kinds={"postgres"},
        deps=["weekly_top5_predictions", "eval_metrics"],
    )
    @explained()
    def postgres_export(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        """Replace the week's lists and metrics in tables of PostgreSQL, in one transaction.

        It is a step of its own: if the server is down, the lists are published all the same, and this step alone can be
        run again. `tgn export` does the same for all weeks.
        """
        from tgn_assets.ml.export.postgres import read_week, replace_week

        week = context.partition_key
        with warehouse.reader() as con:
            tables = read_week(con, week)
        rows = replace_week(url, week, tables)
        return dg.MaterializeResult(metadata={"database": url, **numbers(rows, "rows/")})

    return postgres_export
