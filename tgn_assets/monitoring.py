"""Checks that warn and never stop a run: the log drifted, the gate has closed, a simple rule did better."""

import dagster as dg

from tgn_assets.assets.recommendations import PREDICTIONS
from tgn_assets.failures import explained
from tgn_assets.metadata import numbers
from tgn_assets.ml.drift import MIN_WEEKS, drift, read_measures
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.scorecard import lift_over_best
from tgn_assets.warehouse import Warehouse

WARNINGS = {
    "raw_interactions": "input_like_before",
    PREDICTIONS: "lists_are_ours",
    "eval_metrics": "not_below_baseline",
}
"""The check of each asset."""

GATED_LIMIT = 0.5
"""Share of the users whose list a simple rule may have made."""

LISTS_SQL = "SELECT source, count(*) FROM weekly_top5_predictions WHERE week = ? AND rank = 1 GROUP BY ALL ORDER BY ALL"


def monitoring_checks(weeks: dg.WeeklyPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks `WARNINGS`, partitioned by `weeks`."""

    @dg.asset_check(
        asset="raw_interactions",
        partitions_def=weeks,
        description=(
            "Volume, share of new users, event turnover and shift of popularity are within four robust standard "
            "deviations of the twelve weeks before."
        ),
    )
    @explained()
    def input_like_before(
        context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.AssetCheckResult:
        week = _week(context)
        with warehouse.reader() as con:
            measured = drift(read_measures(con, week))
        drifted = [str(measure) for measure in measured if measure.drifted]
        said = f"Nothing to hold week {week} against: it takes {MIN_WEEKS} weeks before it."
        if drifted:
            said = (
                f"Week {week} is unlike the weeks before: {'; '.join(drifted)}. If its export is incomplete or holds "
                f"rows twice, mend the source and run weekly_refresh for {week} again (the sensor does, once the "
                "source changes). If the world has changed, there is nothing to do: the model is trained on it."
            )
        elif measured:
            said = "; ".join(map(str, measured))
        return _warning(
            not drifted,
            said,
            {measure.measure: measure.value for measure in measured}
            | {f"z/{measure.measure}": measure.z for measure in measured},
        )

    @dg.asset_check(
        asset=PREDICTIONS,
        partitions_def=weeks,
        description="At most half of the users get their list from a simple rule instead of the ranker.",
    )
    @explained()
    def lists_are_ours(
        context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.AssetCheckResult:
        week = _week(context)
        with warehouse.reader() as con:
            lists = dict(con.execute(LISTS_SQL, [week]).fetchall())
        share = 1 - lists.get(OURS, 0) / sum(lists.values()) if lists else 0.0
        made_by = ", ".join(f"{source} {number:,}" for source, number in lists.items()) or "none were made"
        said = f"Lists by source: {made_by}."
        if share > GATED_LIMIT:
            said += (
                " On the newest closed week the rule did better for these users than the ranker, or the log has not "
                "the three weeks that the ranker learns from. If this lasts, see validation_ndcg in the curve of "
                "trained_ranker, and whether input_like_before found a change in the log."
            )
        return _warning(share <= GATED_LIMIT, said, {"share_gated": share})

    @dg.asset_check(
        asset="eval_metrics",
        partitions_def=weeks,
        description="The published lists were not clearly worse (95% interval of NDCG) than the best simple rule.",
    )
    @explained()
    def not_below_baseline(
        context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.AssetCheckResult:
        week = _week(context)
        with warehouse.reader() as con:
            metrics = con.execute("SELECT * FROM eval_metrics WHERE week = ?", [week]).df()
        lift = lift_over_best(metrics)
        if lift is None:
            return _warning(True, f"Nothing to score: no lists for week {week}, or nobody was active in it.", {})
        below = lift.ci_high < 0
        said = (
            f"NDCG minus that of the best baseline, {lift.baseline}: {lift.value:+.4f} "
            f"[{lift.ci_low:+.4f}, {lift.ci_high:+.4f}] over {lift.users:,} users."
        )
        if below:
            said += (
                " One week may be chance. After two in a row: see in `lost/...` of eval_metrics where the points went "
                "(gate, ranking, recall, unknown events), whether input_like_before warned, and whether trained_ranker "
                "stopped learning; `tgn backtest --weeks 4` scores the last weeks again."
            )
        return _warning(not below, said, {"lift": lift.value, "lift_low": lift.ci_low, "lift_high": lift.ci_high})

    return [input_like_before, lists_are_ours, not_below_baseline]


def _week(context: dg.AssetCheckExecutionContext) -> str:
    # A run over a range of weeks evaluates a check once: for the newest.
    return max(context.op_execution_context.partition_keys)


def _warning(passed: bool, text: str, values: dict[str, float]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=text, metadata=numbers(values)
    )
