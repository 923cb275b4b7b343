"""The week as Dagster's partition, and which weeks of an upstream asset a week may read.

Partition key w is the Monday (UTC) on which a week starts; partition w of any asset is what was known when that week
closed, so every mapping here ends at w or before it. `weekly_top5_predictions[w]` are for week w + 1, and
`eval_metrics[w]` scores `weekly_top5_predictions[w - 1]` on week w. A week exists once it has closed.
"""

import warnings

import dagster as dg

from tgn_assets.ml.weeks import shift

# Rolling windows, single-run backfills and checks per week are beta in Dagster 1.13; without this filter, every
# command would open with the same page of warnings.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

MAX_WINDOW = 64
"""Weeks of `weekly_snapshots` that `trained_gnn` may read: window and replay of its config may add up to this."""


def weekly_partitions(start_week: str, end_week: str | None = None) -> dg.WeeklyPartitionsDefinition:
    """All closed weeks from `start_week` to `end_week` (included; None: weeks go on as time does).

    All assets of a deployment share one such object: partitions that start on different days shift windows.
    """
    return dg.WeeklyPartitionsDefinition(
        start_date=start_week, end_date=shift(end_week, 1) if end_week else None, day_offset=1, timezone="UTC"
    )


def _weeks_back(first: int, last: int) -> dg.TimeWindowPartitionMapping:
    # The first weeks of a deployment have a shorter window, not a failing one.
    return dg.TimeWindowPartitionMapping(
        start_offset=-first, end_offset=-last, allow_nonexistent_upstream_partitions=True
    )


PREVIOUS_WEEK = _weeks_back(1, 1)
"""Week w reads week w - 1: the model to warm-start from, the predictions to score."""

WINDOW = _weeks_back(MAX_WINDOW - 1, 0)
"""Week w reads the last `MAX_WINDOW` weeks, its own included."""

HISTORY = _weeks_back(5 * 52, 0)
"""Week w reads all weeks up to its own. The lineage shows the last five years of them: each week of a mapping costs
Dagster a third of a millisecond whenever it looks, dozens of times in a run; beyond 100 weeks it tracks no changes."""
