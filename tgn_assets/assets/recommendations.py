"""What the outside sees: the published lists, and how good last week's were."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from tgn_assets.assets.catalog import column_lineage
from tgn_assets.assets.partitions import PREVIOUS_WEEK
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.evaluation.summary import candidate_recall, comparison, headline, points_lost, reliability
from tgn_assets.ml.monitoring.trends import coverage, quality
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.recommend.publish import (
    PUBLISHED_TABLES,
    PublicationRecord,
    PublishedLists,
    most_recommended,
    publication,
    read_nodes,
    read_publication,
    read_terms,
    read_truth,
    rules_of,
)
from tgn_assets.ml.recommend.publish_checks import CHECKS, CheckResult, expectations_of, publish_checks
from tgn_assets.ml.weeks import shift, week_key
from tgn_assets.reporting.asset_metadata import numbers, preview, row_count, table_definition
from tgn_assets.reporting.asset_plots import catalogue_plot, quality_plot, reliability_plot
from tgn_assets.state.artifact_store import ArtifactStore, TrainedModel, load_embedding_history, publishing_model
from tgn_assets.state.mlflow_tracking import log_scores
from tgn_assets.state.resources import AttributeFiles, Device, PolicyFiles
from tgn_assets.state.user_errors import explained
from tgn_assets.state.warehouse import Warehouse

if TYPE_CHECKING:
    from tgn_assets.ml.evaluation.evaluate import RankerDiagnostics

GROUP, PREDICTIONS = "recommendations", "weekly_top5_predictions"


def recommendation_assets(weeks: dg.WeeklyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """`weekly_top5_predictions` and `eval_metrics`, partitioned by `weeks`."""

    @dg.asset(
        partitions_def=weeks,
        group_name=GROUP,
        kinds={"duckdb"},
        code_version="1",
        metadata=table_definition("weekly_top5_predictions"),
        deps=["trained_gnn", "raw_interactions"],
        check_specs=[
            dg.AssetCheckSpec(name, asset=PREDICTIONS, description=text, blocking=True, partitions_def=weeks)
            for name, text in CHECKS.items()
        ],
    )
    def weekly_top5_predictions(
        context: dg.AssetExecutionContext,
        trained_ranker: Any,
        temporal_embeddings: Any,
        warehouse: dg.ResourceParam[Warehouse],
        artifacts: dg.ResourceParam[ArtifactStore],
        device: Device,
        policy: PolicyFiles,
        attribute_files: AttributeFiles,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Every user's top five events for the week to come, and the list for a user who has no history yet.

        Published only if all its checks pass; otherwise the table keeps what it had.
        """
        from tgn_assets.ml.recommend.top_k import recommend

        week = context.partition_key
        with explained():
            record = PublicationRecord(artifacts.model_week(week), policy.read())
            history = warehouse.history(week)
            with warehouse.reader() as con:
                users, events = read_nodes(con, week)
            attributes = attribute_files.read(users, events, week)
            model = TrainedModel(trained_ranker, temporal_embeddings)
            if record.model_week != week:
                model = publishing_model(artifacts, history, week, record.model_week, device.name())
            embedding_history = load_embedding_history(artifacts, week, model.ranker.config.sequence)
            rules = rules_of(record.policy, events)
            recommendations = recommend(
                history,
                model.ranker,
                embedding_history,
                model.embeddings,
                rules,
                device.name(),
                context.log.info,
                attributes,
            )
        made = publication(recommendations, history, users, events, week)
        inputs = {"trained_ranker": model.ranker.week, "temporal_embeddings": model.embeddings.week}
        inputs |= {"trained_gnn": max(embedding_history), "interactions": week_key(int(history.week_no.max(initial=0)))}
        expectations = expectations_of(record.policy, rules, history, users, events, week)
        results = publish_checks(made, users, events, week, inputs, rules.k, expectations)
        for result in results:
            yield dg.AssetCheckResult(
                check_name=result.check,
                passed=result.passed,
                description=result.reason or None,
                metadata=numbers(result.numbers),
            )
        stop_if_any_failed(results, week)
        published = record.row(made, week)
        tables = dict(zip(PUBLISHED_TABLES, (made.predictions, made.new_users), strict=True))
        tables["published_weeks"] = published
        with explained():
            warehouse.replace_week_tables(week, tables)
            with warehouse.reader() as con:
                breadth = coverage(con, week)
        recommended = int(published.distinct_events.item())
        yield dg.MaterializeResult(
            metadata={
                **row_count(len(made.predictions)),
                **numbers({"users": len(users), "events": len(events), "k": rules.k}),
                **numbers({"events_recommended": recommended, "coverage": recommended / max(len(events), 1)}),
                "model_week": record.model_week,
                **numbers(lists_by_source(made), "lists/"),
                **column_lineage(PREDICTIONS),
                **catalogue_plot(most_recommended(made.predictions), breadth),
                "preview": preview(made.predictions),
                "new_users": preview(made.new_users),
            },
        )

    @dg.asset(
        partitions_def=weeks,
        group_name=GROUP,
        kinds={"duckdb"},
        code_version="1",
        metadata=table_definition("eval_metrics"),
        deps=[dg.AssetDep(weekly_top5_predictions, partition_mapping=PREVIOUS_WEEK), "raw_interactions"],
    )
    @explained()
    def eval_metrics(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        artifacts: dg.ResourceParam[ArtifactStore],
        device: Device,
        attribute_files: AttributeFiles,
    ) -> dg.MaterializeResult:
        """How good the lists that were published for this week were, beside simple rules that knew the same.

        They were made when the week before closed. Where none were made, there is nothing to score and no row.
        """
        from tgn_assets.ml.evaluation.evaluate import COLUMNS, evaluate_week

        week, origin = context.partition_key, shift(context.partition_key, -1)
        with warehouse.reader() as con:
            published, truth = read_publication(con, origin), read_truth(con, week)
            users, events = read_nodes(con, origin)
            record = read_terms(con, origin)
        if published.new_users.empty:
            warehouse.replace_week("eval_metrics", week, pd.DataFrame(columns=COLUMNS))
            note = f"nothing to score: no lists were published for this week (partition {origin} of {PREDICTIONS})"
            return dg.MaterializeResult(metadata={**row_count(0), "note": note})
        history, rules = warehouse.history(origin), rules_of(record.policy, events)
        attributes = attribute_files.read(users, events, origin)
        metrics = evaluate_week(
            week,
            published.predictions,
            list(published.new_users.event_id),
            truth,
            history,
            users.id.to_numpy(),
            events.id.to_numpy(),
            diagnostics_of(
                artifacts, history, origin, device.name(), record.model_week, rules, attributes, context.log.info
            ),
            rules=rules,
        )
        rows = warehouse.replace_week("eval_metrics", week, metrics)
        with warehouse.reader() as con:
            trend = quality(con, week)
        log_scores(artifacts.root.parent, origin, headline(metrics), context.log.warning)
        return dg.MaterializeResult(
            metadata={
                **row_count(rows),
                **column_lineage("eval_metrics"),
                **numbers({"active_users": truth.user_id.nunique(), "interactions": int(truth["count"].sum())}),
                **numbers(headline(metrics)),
                **numbers(points_lost(metrics), "lost/"),
                **numbers(candidate_recall(metrics)),
                "comparison": preview(comparison(metrics)),
                **quality_plot(trend),
                **reliability_plot(reliability(metrics)),
            }
        )

    return [weekly_top5_predictions, eval_metrics]


def diagnostics_of(
    artifacts: ArtifactStore,
    history: InteractionHistory,
    origin: str,
    device: str,
    model_week: str,
    rules: Rules = OPEN,
    attributes: AttributeTables = NO_ATTRIBUTES,
    progress: LogFn = no_log,
) -> "RankerDiagnostics | None":
    """What the ranker of `model_week` had before the gate when it published `origin`, if it had learnt anything, is
    kept and not of an older version, and the side tables still have what it learnt from."""
    from tgn_assets.ml.ranker.checkpoint import is_incompatible
    from tgn_assets.ml.recommend.top_k import diagnose

    kept = [("trained_ranker", model_week), ("temporal_embeddings", origin), ("trained_gnn", origin)]
    if not all(week in artifacts.weeks(asset) and not artifacts.is_outdated(asset, week) for asset, week in kept):
        return None
    ranker = artifacts.load("trained_ranker", model_week)
    if not ranker.trained or is_incompatible(ranker) or attributes.lacking(ranker.attributes):
        return None
    model = publishing_model(artifacts, history, origin, model_week, device)
    embedding_history = load_embedding_history(artifacts, origin, model.ranker.config.sequence)
    return diagnose(history, model.ranker, embedding_history, model.embeddings, rules, device, attributes, progress)


def lists_by_source(made: PublishedLists) -> dict[str, int]:
    """How many users' lists each source made."""
    best = made.predictions[made.predictions["rank"] == 1]
    return {str(source): int(lists) for source, lists in best.groupby("source").size().items()}


def stop_if_any_failed(results: list[CheckResult], week: str) -> None:
    """Failure, with what is wrong and what to do, unless all findings passed."""
    reasons = [f"{result.check}: {result.reason}" for result in results if not result.passed]
    if reasons:
        raise dg.Failure(
            f"The predictions of week {week} were not published, the table keeps what it had. {'; '.join(reasons)}. "
            f"Run weekly_refresh for {week} again; if it fails again, look at the models of that week.",
            allow_retries=False,
        )
