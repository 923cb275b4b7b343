"""The week as Dagster's partition, and which weeks of an upstream asset a week waits for.

Partition key w is the Monday (UTC) on which a week starts; partition w of any asset is what was known when that week
closed. `weekly_top5_predictions[w]` are for week w + 1, and `eval_metrics[w]` scores `weekly_top5_predictions[w - 1]`
on week w. A week exists once it has closed.

In the lineage, week w waits for week w of its upstream assets, and for week w - 1 where `PREVIOUS_WEEK` says so. The
earlier weeks that an asset reads besides come from the stores, as far as they are there. A mapping that named them
would be no promise that they are, and Dagster would answer a backfill of two weeks from the asset graph with one of
every week after them.
"""

import warnings

import dagster as dg

from tgn_assets.ml.weeks import shift


def weekly_partitions(start_week: str, end_week: str | None = None) -> dg.WeeklyPartitionsDefinition:
    """All closed weeks from `start_week` to `end_week` (included; None: weeks go on as time does).

    All assets of a deployment share one such object: partitions that start on different days shift windows.
    """
    return dg.WeeklyPartitionsDefinition(
        start_date=start_week, end_date=shift(end_week, 1) if end_week else None, day_offset=1, timezone="UTC"
    )


def first_week(context: dg.AssetExecutionContext) -> str:
    """The deployment's first week, from the partitions of the asset that runs."""
    weeks = _weeks(context)
    return weeks.start.strftime(weeks.fmt)


def last_week(context: dg.AssetExecutionContext) -> str | None:
    """The deployment's last week (`TGN_END_WEEK`); None if its weeks go on as time does."""
    weeks = _weeks(context)
    return shift(weeks.end.strftime(weeks.fmt), -1) if weeks.end else None


def _weeks(context: dg.AssetExecutionContext) -> dg.TimeWindowPartitionsDefinition:
    weeks = context.assets_def.partitions_def
    assert isinstance(weeks, dg.TimeWindowPartitionsDefinition)
    return weeks


with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
    # The first week of a deployment has nothing before it, and does not fail for that.
    PREVIOUS_WEEK = dg.TimeWindowPartitionMapping(
        start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )
"""Week w reads week w - 1: the model to warm-start from, the predictions to score."""
