"""The log, week by week: validated rows, then the same week as a graph."""

import dagster as dg

from tgn_assets.assets.interaction_log import GROUP, LOG
from tgn_assets.assets.partitions import first_week, last_week
from tgn_assets.ml.data.ingest import store_weeks
from tgn_assets.ml.data.ingest_stats import first_interactions, rejected_sample, week_numbers
from tgn_assets.ml.data.staging import StagedWeeks, stage_weeks
from tgn_assets.ml.monitoring.trends import activity
from tgn_assets.ml.progress import ProgressReporter
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.reporting.asset_metadata import numbers, preview, row_count, table_definition
from tgn_assets.reporting.renderer import RENDERER
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.dagster_compat import single_run_asset
from tgn_assets.state.lineage import digest_of_files
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse


@single_run_asset(
    group_name=GROUP,
    kinds={"duckdb"},
    deps=[LOG],
    metadata=table_definition("raw_interactions"),
)
@as_dagster_failure()
def raw_interactions(
    context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse], source: dg.ResourceParam[SourceSpec]
) -> dg.MaterializeResult:
    """Load the week's rows of the source: who interacted with what, when; ids as they came in.

    A row that cannot be used goes to `rejected_interactions` with the reason. Loading a week again, or many weeks at
    once, always gives the same table.
    """
    from tgn_assets.reporting.asset_plots import activity_plot

    RENDERER.start()  # while the source is read
    # The source is read before the warehouse is locked.
    staging = stage_weeks(
        source,
        context.partition_keys,
        start_week=first_week(context),
        end_week=last_week(context),
        progress=context.log.info,
    )
    with staging as staged:
        _refuse_future(staged, warehouse)
        with warehouse.writer() as con:
            ingested = store_weeks(con, staged, context.log.warning)
            per_week = week_numbers(con, context.partition_keys)
            rejected = rejected_sample(con, context.partition_keys)
            newest = max(context.partition_keys)
            trend, first_rows = activity(con, newest), first_interactions(con, newest)
    for week, size in per_week.items():
        context.add_asset_metadata({**row_count(size["rows"]), **numbers(size)}, partition_key=week)
    context.add_asset_metadata({"preview": preview(first_rows), **activity_plot(trend)}, partition_key=newest)
    of_the_run = {
        "new_users": ingested.new_users,
        "new_events": ingested.new_events,
        "rows_before_first_week": ingested.before_start,
        "rows_after_last_week": ingested.after_end,
        "filtered": ingested.filtered,
        "forgotten": ingested.forgotten,
        "rejected_without_week": sum(ingested.undated.values()),
    }
    sample = {} if rejected.empty else {"rejected_rows": preview(rejected)}
    return dg.MaterializeResult(metadata={**numbers(of_the_run), **sample})


def _refuse_future(staged: StagedWeeks, warehouse: Warehouse) -> None:
    """SourceError for a new week that the log has not come to: lists would be made from a week without a row."""
    asked = max(staged.weeks)
    if any(week >= asked for week, *_ in staged.counts if week) or asked in warehouse.lineage().ingested:
        return
    if newest := staged.newest_week():
        raise SourceError(
            f"the log has not come to the week {asked} yet: its newest row is of the week {newest}; run it once there "
            "are rows of it, or of a later one"
        )


@single_run_asset(
    group_name=GROUP,
    kinds={"pyg"},
    deps=[raw_interactions],
)
@as_dagster_failure()
def weekly_snapshots(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    artifacts: dg.ResourceParam[ArtifactStore],
) -> dg.MaterializeResult:
    """Build the week's graph (`HeteroData`): all users and events known by its close, and the week's interactions.

    A node keeps its index for ever. A week without interactions is a graph without edges.
    """
    from tgn_assets.ml.graph.snapshots import read_snapshot
    from tgn_assets.ml.schema import EVENT, INTERACTS, USER

    # One at a time to disk: the graphs of a backfill of many years would not fit in memory together.
    progress = ProgressReporter(context.log.info, "snapshots", len(context.partition_keys), "week")
    digests = {}
    for week in context.partition_keys:
        with warehouse.reader() as con:
            snapshot = read_snapshot(con, week)
        artifacts.save("weekly_snapshots", week, snapshot)
        digests[week] = digest_of_files(artifacts.directory("weekly_snapshots", week))
        edges = snapshot.data[INTERACTS]
        size = {
            "users": snapshot.data[USER].num_nodes,
            "events": snapshot.data[EVENT].num_nodes,
            "edges": edges.edge_index.shape[1],
            "interactions": int(edges.edge_count.sum()),
        }
        context.add_asset_metadata(numbers(size), partition_key=week)
        progress.add(1)
    warehouse.record_made("weekly_snapshots", digests)
    return dg.MaterializeResult()
