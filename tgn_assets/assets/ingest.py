"""The log, week by week: validated rows, then the same week as a graph."""

import dagster as dg

from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.data.ingest_stats import first_interactions, rejected_sample, week_numbers
from tgn_assets.ml.monitoring.trends import activity
from tgn_assets.ml.progress import ProgressReporter
from tgn_assets.ml.sources.extent import SourceSpec
from tgn_assets.reporting.asset_metadata import numbers, preview, row_count, table_definition
from tgn_assets.reporting.asset_plots import activity_plot
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.user_errors import explained
from tgn_assets.state.warehouse import Warehouse

GROUP = "ingest"


def data_assets(weeks: dg.WeeklyPartitionsDefinition, end_week: str | None) -> list[dg.AssetsDefinition]:
    """`raw_interactions` and `weekly_snapshots`, partitioned by `weeks`, which end with `end_week`."""
    first_week = weeks.start.strftime(weeks.fmt)

    @dg.asset(
        partitions_def=weeks,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=GROUP,
        kinds={"duckdb"},
        code_version="1",
        metadata=table_definition("raw_interactions"),
    )
    @explained()
    def raw_interactions(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse], source: dg.ResourceParam[SourceSpec]
    ) -> dg.MaterializeResult:
        """Who met what, when: the week's rows of the source, ids as they came in.

        A row that cannot be used lies in `rejected_interactions` with the reason. Loading a week again, or many weeks
        at once, always gives the same table.
        """
        with warehouse.writer() as con:
            report = load_weeks(
                con,
                source,
                context.partition_keys,
                start_week=first_week,
                end_week=end_week,
                progress=context.log.info,
            )
            per_week = week_numbers(con, context.partition_keys)
            rejected = rejected_sample(con, context.partition_keys)
            newest = max(context.partition_keys)
            trend, first_rows = activity(con, newest), first_interactions(con, newest)
        for week, size in per_week.items():
            context.add_asset_metadata({**row_count(size["rows"]), **numbers(size)}, partition_key=week)
        context.add_asset_metadata({"preview": preview(first_rows), **activity_plot(trend)}, partition_key=newest)
        of_the_run = {
            "new_users": report.new_users,
            "new_events": report.new_events,
            "rows_before_first_week": report.before_start,
            "rows_after_last_week": report.after_end,
            "filtered": report.filtered,
            "rejected_without_week": sum(report.rejected.values()) - sum(report.rejected_in_week.values()),
        }
        sample = {} if rejected.empty else {"rejected_rows": preview(rejected)}
        return dg.MaterializeResult(metadata={**numbers(of_the_run), **sample})

    @dg.asset(
        partitions_def=weeks,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=GROUP,
        kinds={"pyg"},
        code_version="1",
        deps=[raw_interactions],
    )
    @explained()
    def weekly_snapshots(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        artifacts: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        """The week as a graph (`HeteroData`): users and events known by its end, and who met what in it, how often.

        A node keeps its index for ever. A week without interactions is a graph without edges.
        """
        from tgn_assets.ml.graph.snapshots import read_snapshot
        from tgn_assets.ml.schema import EVENT, INTERACTS, USER

        # One at a time to disk: the graphs of a backfill of many years would not fit in memory together.
        pace = ProgressReporter(context.log.info, "snapshots", len(context.partition_keys), "week")
        for week in context.partition_keys:
            with warehouse.reader() as con:
                snapshot = read_snapshot(con, week)
            artifacts.save("weekly_snapshots", week, snapshot)
            edges = snapshot.data[INTERACTS]
            size = {
                "users": snapshot.data[USER].num_nodes,
                "events": snapshot.data[EVENT].num_nodes,
                "edges": edges.edge_index.shape[1],
                "interactions": int(edges.edge_count.sum()),
            }
            context.add_asset_metadata(numbers(size), partition_key=week)
            pace.add(1)
        return dg.MaterializeResult()

    return [raw_interactions, weekly_snapshots]
