"""The published lists, and how good last week's were."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from tgn_assets.assets.catalog import column_lineage
from tgn_assets.assets.mlflow_tracking import log_scores
from tgn_assets.assets.partitions import PREVIOUS_WEEK
from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Policy, Rules
from tgn_assets.ml.data.policy_files import PolicyError
from tgn_assets.ml.evaluation.summary import plotted_scores
from tgn_assets.ml.monitoring.trends import catalogue_use, quality
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.recommend.publish_checks import CHECKS, CheckResult, description_of
from tgn_assets.ml.recommend.published import (
    PublicationRecord,
    read_kind,
    read_nodes,
    read_publication_record,
    rules_of,
)
from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.asset_metadata import numbers, preview, row_count, table_definition
from tgn_assets.reporting.publications import replaced_lists
from tgn_assets.reporting.scores_metadata import scores_metadata
from tgn_assets.reporting.terminal import NDCG, at_length
from tgn_assets.state.artifact_store import ArtifactStore, TrainedModel, load_embedding_history, publishing_model
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.resources import AttributeFiles, Device, EvaluationUsers, PolicyFiles, ReasonWords, WorkersSetting
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

if TYPE_CHECKING:
    from tgn_assets.ml.evaluation.scored_week import RankerDiagnostics
    from tgn_assets.ml.parallel import Workers
    from tgn_assets.ml.recommend.publish import WeekPublication

GROUP, GROUPS = "recommendations", "eval_user_groups"


def weekly_top5_predictions(
    context: dg.AssetExecutionContext,
    trained_ranker: Any,
    temporal_embeddings: Any,
    *,  # Dagster finds what is upstream among the positional arguments alone
    warehouse: dg.ResourceParam[Warehouse],
    artifacts: dg.ResourceParam[ArtifactStore],
    device: Device,
    workers: WorkersSetting,
    policy: PolicyFiles,
    attribute_files: AttributeFiles,
    reason_words: ReasonWords,
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    """Publish every user's top five events for the week to come, and the list for a user who has no history yet.

    They are published only if all checks pass; otherwise the table keeps what it had.
    """
    from tgn_assets.ml.recommend.publish import publish_week

    week = context.partition_key
    with as_dagster_failure():
        # First the digest: if a file changes from here on, the lists are made again.
        asked = policy.digest(week)
        with warehouse.reader() as con:
            users, events = read_nodes(con, week)
            history = warehouse.history(week)
        record = PublicationRecord(artifacts.model_week(week), policy_for(policy, events.id, week))
        model = TrainedModel(trained_ranker, temporal_embeddings)
        if record.model_week != week or not temporal_embeddings.fits(history.user_idx, history.event_idx):
            model = publishing_model(artifacts, history, week, record.model_week, device.name())
        made = publish_week(
            week,
            record,
            history=history,
            users=users,
            events=events,
            ranker=model.ranker,
            embeddings=model.embeddings,
            embedding_history=load_embedding_history(artifacts, week, model.ranker.config.sequence),
            attributes=attribute_files.read(users, events, week),
            device=device.name(),
            workers=workers.start(device.name(), context.log.warning),
            progress=context.log.info,
            words=reason_words.words(),
        )
    yield from map(_check_result, made.checks)
    if made.failures:
        raise dg.Failure(
            f"The predictions of week {week} were not published, the table keeps what it had. "
            f"{'; '.join(made.failures)}. Run weekly_refresh for {week} again; if it fails again, look at its models.",
            allow_retries=False,
        )
    with as_dagster_failure(), warehouse.writer() as con:
        warehouse.replace_week_tables(week, made.tables, settings=asked)
        catalogue = catalogue_use(con, week)
    silent = {} if record.policy.max_silent_weeks is None else {"users_left_out": made.left_out}
    sizes = {"users": len(users), "events": len(events), "k": record.policy.k, **silent}
    yield dg.MaterializeResult(metadata={**numbers(sizes), **published_metadata(made, len(events), catalogue)})


def _check_result(check: CheckResult) -> dg.AssetCheckResult:
    metadata, reason = numbers(check.numbers), check.reason or None
    return dg.AssetCheckResult(check_name=check.check, passed=check.passed, description=reason, metadata=metadata)


def policy_for(files: PolicyFiles, events: "pd.Series[str]", week: str) -> Policy:
    """The policy for lists of `events` made at the close of `week`; PolicyError if none of them may be listed."""
    policy = files.read()
    if policy.leaves_none_of(events.to_list(), week):
        raise PolicyError(
            f"the policy leaves none of the {len(events):,} events to be listed: look at TGN_ALLOW_EVENTS, "
            "TGN_DENY_EVENTS and TGN_EVENT_EXPIRY (ids are written as the log writes them); the lists stay as they were"
        )
    return policy


def predictions_asset(weeks: dg.WeeklyPartitionsDefinition) -> dg.AssetsDefinition:
    """`weekly_top5_predictions` with its checks, partitioned by `weeks`."""
    checks = [
        dg.AssetCheckSpec(
            name, asset=PREDICTIONS, description=description_of(name), blocking=True, partitions_def=weeks
        )
        for name in CHECKS
    ]
    return dg.asset(
        partitions_def=weeks,
        group_name=GROUP,
        kinds={"duckdb"},
        metadata=table_definition(PREDICTIONS),
        deps=["trained_gnn", "raw_interactions"],
        check_specs=checks,
    )(weekly_top5_predictions)


@dg.asset(
    group_name=GROUP,
    kinds={"duckdb"},
    metadata=table_definition("eval_metrics"),
    deps=[dg.AssetDep(PREDICTIONS, partition_mapping=PREVIOUS_WEEK), "raw_interactions"],
)
@as_dagster_failure()
def eval_metrics(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    artifacts: dg.ResourceParam[ArtifactStore],
    device: Device,
    workers: WorkersSetting,
    attribute_files: AttributeFiles,
    evaluation_users: EvaluationUsers,
) -> dg.MaterializeResult:
    """Score the lists that were published for this week, beside baselines that knew the same.

    The lists were made when the week before closed. If none were made, there is nothing to score and no row.
    """
    from tgn_assets.ml.evaluation.evaluate import COLUMNS, GROUP_COLUMNS, evaluate_week, user_groups
    from tgn_assets.ml.evaluation.evaluation_input import read_evaluation_input
    from tgn_assets.ml.evaluation.scored_week import score_week

    week, cutoff = context.partition_key, shift(context.partition_key, -1)
    with warehouse.reader() as con:
        record = read_publication_record(con, cutoff)
        given = read_evaluation_input(con, week, k=record.policy.k, users=evaluation_users.number)
        events = read_kind(con, EVENT, cutoff)
        users = read_kind(con, USER, cutoff) if attribute_files.user_features else events[:0]
        history = warehouse.history(cutoff)
    if given is None:
        nothing = {"eval_metrics": pd.DataFrame(columns=COLUMNS), GROUPS: pd.DataFrame(columns=GROUP_COLUMNS)}
        warehouse.replace_week_tables(week, nothing)
        note = f"nothing to score: no lists were published for this week (partition {cutoff} of {PREDICTIONS})"
        return dg.MaterializeResult(metadata={**row_count(0), "note": note})
    rules = rules_of(record.policy, events)
    engine = workers.start(device.name(), context.log.warning)
    diagnostics = diagnostics_of(
        artifacts,
        history,
        cutoff,
        model_week=record.model_week,
        rules=rules,
        attributes=attribute_files.read(users, events, cutoff),
        device=device.name(),
        workers=engine,
        progress=context.log.info,
    )
    scored = score_week(week, given, history=history, diagnostics=diagnostics, rules=rules, workers=engine)
    metrics = evaluate_week(scored)
    warehouse.replace_week_tables(week, {"eval_metrics": metrics, GROUPS: user_groups(scored)})
    with warehouse.reader() as con:
        trend, replaced = quality(con, week), replaced_lists(con, cutoff)
        ndcg = at_length(NDCG, warehouse, [week])
    log_scores(artifacts.root.parent, cutoff, plotted_scores(metrics), context.log.warning)
    drawn = {"active_users": given.published.users, "drawn_users": len(given.drawn.user_idx)}
    sizes = {**drawn, "interactions": given.published.interactions}
    table: dict[str, Any] = {**row_count(len(metrics)), **column_lineage("eval_metrics")}
    if replaced:
        table["note"] = f"what is scored is not what was published first: {replaced}"
    return dg.MaterializeResult(metadata={**scores_metadata(metrics, trend, ndcg), **numbers(sizes), **table})


def diagnostics_of(
    artifacts: ArtifactStore,
    history: InteractionHistory,
    cutoff: str,
    *,
    model_week: str,
    rules: Rules,
    attributes: AttributeTables,
    device: str,
    workers: "Workers",
    progress: LogFn = no_log,
) -> "RankerDiagnostics | None":
    """What the ranker of `model_week` had before the baseline fallback when it published `cutoff`.

    None if it was not trained, is no longer kept or of an older version, or if the attribute tables have lost a column
    that it was trained on.
    """
    from tgn_assets.ml.ranker.checkpoint import is_incompatible
    from tgn_assets.ml.recommend.top_k import diagnose

    kept = [("trained_ranker", model_week), ("temporal_embeddings", cutoff), ("trained_gnn", cutoff)]
    if not all(week in artifacts.weeks(asset) and not artifacts.is_outdated(asset, week) for asset, week in kept):
        return None
    ranker = artifacts.load("trained_ranker", model_week)
    if not ranker.trained or is_incompatible(ranker) or attributes.lacking(ranker.attributes):
        return None
    model = publishing_model(artifacts, history, cutoff, model_week, device)
    return diagnose(
        history,
        model.ranker,
        load_embedding_history(artifacts, cutoff, model.ranker.config.sequence),
        model.embeddings,
        rules=rules,
        device=device,
        attributes=attributes,
        workers=workers,
        progress=progress,
    )


def published_metadata(made: "WeekPublication", events: int, catalogue: pd.DataFrame) -> dict[str, Any]:
    """What the UI shows of the lists: sizes, share of the `events` known, sources, the most recommended events."""
    from tgn_assets.ml.recommend.publish import most_recommended
    from tgn_assets.reporting.asset_plots import catalogue_plot

    predictions = made.lists.predictions
    share = made.distinct_events / max(events, 1)
    shown = ["rank", "event_id", "score", "source", "reason"]
    return {
        **row_count(len(predictions)),
        **numbers({"events_recommended": made.distinct_events, "coverage": share}),
        "model_week": str(made.record.model_week.item()),
        **numbers(made.lists_by_source, "lists/"),
        **numbers(made.rows_by_reason, "reasons/"),
        **column_lineage(PREDICTIONS),
        **catalogue_plot(most_recommended(predictions), catalogue),
        "preview": preview(predictions[["user_id", *shown]]),
        "new_users": preview(made.lists.new_users[shown]),
    }
