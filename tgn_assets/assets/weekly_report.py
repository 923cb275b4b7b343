"""The week as a page for people: the last thing that a run makes."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.sources.spec import SourceSpec
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.asset_metadata import numbers
from tgn_assets.state.lineage import REPORT, digest_of
from tgn_assets.state.resources import ReportsFolder
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse


@dg.asset(
    group_name="recommendations", kinds={"html"}, deps=["weekly_top5_predictions", "eval_metrics", "raw_interactions"]
)
@as_dagster_failure()
def weekly_report(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    source: dg.ResourceParam[SourceSpec],
    reports: ReportsFolder,
) -> dg.MaterializeResult:
    """Write the week as one HTML page: was it better, where were points lost, is the log as usual, what is recommended.

    The page needs no network, and can be mailed or printed. `tgn report` writes it again at any time.
    """
    from tgn_assets.reporting.weekly_page.index import write_index
    from tgn_assets.reporting.weekly_page.page import report_page
    from tgn_assets.reporting.weekly_page.run_times import run_times

    week = context.partition_key
    now, before = (run_times(context.instance, of, context.op_def.name) for of in (week, shift(week, -1)))
    made = datetime.now(UTC)
    path = Path(reports.root) / f"{week}.html"
    with warehouse.reader():
        page = report_page(warehouse, week, now, before, source=source, made=made)
        replace_text(path, page)
        write_index(path.parent, warehouse, source=source, made=made)
    warehouse.record_made(REPORT, {week: digest_of(page.encode())})
    page_url = {"page": dg.MetadataValue.url(f"{reports.url}/{path.name}")} if reports.url else {}
    size = numbers({"bytes": path.stat().st_size})
    return dg.MaterializeResult(metadata={**page_url, "report": dg.MetadataValue.path(path), **size})
