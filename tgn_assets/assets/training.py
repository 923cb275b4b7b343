"""The model, retrained every week: the graph encoder first, then the ranker on top of it."""

from typing import Any

import dagster as dg

from tgn_assets.assets.launchpad import launchpad_config
from tgn_assets.assets.mlflow_tracking import log_model
from tgn_assets.assets.partitions import PREVIOUS_WEEK, first_week
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.recommend.published import read_nodes, rules_of
from tgn_assets.ml.safe_text import listed
from tgn_assets.ml.weeks import span_of, weeks_between
from tgn_assets.reporting.asset_metadata import attribute_columns, last_values, numbers
from tgn_assets.state.artifact_store import ArtifactStore, load_embedding_history
from tgn_assets.state.resources import AttributeFiles, Device, PolicyFiles, TrainingDefaults, WorkersSetting
from tgn_assets.state.user_errors import as_dagster_failure
from tgn_assets.state.warehouse import Warehouse

GROUP = "model"


class GNNParameters(launchpad_config(GNNConfig)):  # type: ignore[misc]  # mypy: a base that is made at run time
    """`GNNConfig` as the launchpad's form."""


class RankerParameters(launchpad_config(RankerConfig)):  # type: ignore[misc]  # as above
    """`RankerConfig` as the launchpad's form."""


@dg.asset(
    group_name=GROUP,
    kinds={"pytorch"},
    ins={"earlier": dg.AssetIn("trained_gnn", partition_mapping=PREVIOUS_WEEK)},
    deps=["weekly_snapshots", "raw_interactions"],
)
@as_dagster_failure()
def trained_gnn(
    context: dg.AssetExecutionContext,
    config: GNNParameters,
    earlier: Any,
    warehouse: dg.ResourceParam[Warehouse],
    artifacts: dg.ResourceParam[ArtifactStore],
    device: Device,
    defaults: TrainingDefaults,
) -> dg.MaterializeResult:
    """Train the graph encoder to predict who interacts with what in the next week, from the last weeks' snapshots.

    It warm-starts from last week's encoder if there is one. If there is none (cold start), it first trains week by week
    on some weeks of the past, so that the ranker has embeddings as they would have been known then.
    """
    from tgn_assets.ml.encoder.train import snapshot_weeks, train_gnn
    from tgn_assets.reporting.asset_plots import curve_plot

    week = context.partition_key
    with warehouse.reader():
        require_earlier_weeks(warehouse, first_week(context), week)
        history = warehouse.history(week)
    resolved = defaults.resolve(config, GNNConfig)
    read = snapshot_weeks(week, resolved, earlier)
    window = artifacts.load_weeks("weekly_snapshots", read)
    if gone := [key for key in read if key >= first_week(context) and key not in window]:
        context.log.warning("no snapshot of %s: it learns without them; `tgn refresh` makes them again", listed(gone))
    checkpoint = train_gnn(
        window,
        week,
        resolved,
        warm=earlier,
        history=history,
        device=device.name(),
        progress=context.log.info,
        scratch=artifacts.scratch("trained_gnn", week),
    )
    epochs = [entry for entry in checkpoint.curve if entry["cutoff"] == week]
    return dg.MaterializeResult(
        value=checkpoint,
        metadata={
            "warm_started_from": checkpoint.warm_from or "nothing: cold start",
            "weeks_read": len(window),
            "weeks_not_materialized": len(gone),
            "batching_of_training": checkpoint.batching.training,
            "batching_of_inference": checkpoint.batching.inference,
            "sampler": checkpoint.batching.sampler or "none: the whole graph at once",
            **numbers({"epochs": len(epochs), **last_values(epochs, "loss", "validation_loss")}),
            **curve_plot(checkpoint.curve, ["loss", "validation_loss"]),
        },
    )


def require_earlier_weeks(warehouse: Warehouse, first: str, week: str) -> None:
    """Failure, with what to do, if a week from `first` to `week` was never ingested: the model would lack its rows."""
    ingested = warehouse.lineage().ingested
    if missing := [key for key in weeks_between(first, week) if key not in ingested]:
        raise dg.Failure(
            f"{len(missing)} of the weeks {first} to {week} were never ingested, the oldest of them {missing[0]}: run "
            f"`tgn refresh`, or materialize raw_interactions and weekly_snapshots of {span_of(missing)} "
            "first (one run for all of them)",
            allow_retries=False,
        )


@dg.asset(
    group_name=GROUP,
    kinds={"pytorch"},
    ins={"earlier": dg.AssetIn("trained_ranker", partition_mapping=PREVIOUS_WEEK)},
    deps=[trained_gnn, "raw_interactions"],
)
@as_dagster_failure()
def trained_ranker(
    context: dg.AssetExecutionContext,
    config: RankerParameters,
    earlier: Any,
    warehouse: dg.ResourceParam[Warehouse],
    artifacts: dg.ResourceParam[ArtifactStore],
    device: Device,
    workers: WorkersSetting,
    defaults: TrainingDefaults,
    policy: PolicyFiles,
    attribute_files: AttributeFiles,
) -> dg.MaterializeResult:
    """Train the ranker: a Transformer over each user's weekly embeddings, and LightGBM, score (user, event) pairs.

    It is trained on past weeks, each as it was known when it closed, to rank the events of the week after. It
    warm-starts from last week's ranker if there is one. Before it is trained on the newest closed week, it is judged on
    that week: in each segment of users where a baseline clearly beat it, in this week and those judged before, that
    baseline's lists are published (`fallback` below).
    """
    from tgn_assets.ml.artifact_io import load_meta
    from tgn_assets.ml.ranker.train import train_ranker
    from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache
    from tgn_assets.reporting.asset_plots import curve_plot

    week = context.partition_key
    with warehouse.reader() as con:
        users, events, history = *read_nodes(con, week), warehouse.history(week)
    rules, attributes = rules_of(policy.read(), events), attribute_files.read(users, events, week)
    for note in attributes.notes:
        context.log.warning(note)
    resolved = defaults.resolve(config, RankerConfig)
    embedding_history = load_embedding_history(artifacts, week, resolved.embedding_weeks)
    checkpoint = train_ranker(
        history,
        embedding_history,
        week,
        config=resolved,
        device=device.name(),
        workers=workers.start(device.name(), context.log.warning),
        progress=context.log.info,
        rules=rules,
        cache=TrainingSetCache(artifacts.training_sets),
        attributes=attributes,
        earlier=earlier,
    )
    gnn = load_meta(artifacts.directory("trained_gnn", week))
    tracked = log_model(artifacts.root.parent, week, gnn, checkpoint.meta(), context.log.warning)
    return dg.MaterializeResult(
        value=checkpoint,
        metadata={
            "mlflow": tracked,
            "warm_started_from": checkpoint.warm_from or "nothing: cold start",
            "fallback": dg.MetadataValue.json(checkpoint.fallback.source),
            **numbers({"embedding_weeks": len(embedding_history), "epochs": len(checkpoint.curve)}),
            **numbers(last_values(checkpoint.curve, "loss", "validation_ndcg")),
            **numbers(checkpoint.validation, "validation/"),
            **attribute_columns(attributes, users.idx.to_numpy(), events.idx.to_numpy(), week),
            **curve_plot(checkpoint.curve, ["loss"], ["validation_ndcg"]),
        },
    )


@dg.asset(group_name=GROUP, kinds={"pytorch"}, deps=[trained_gnn, "raw_interactions"])
@as_dagster_failure()
def temporal_embeddings(
    context: dg.AssetExecutionContext,
    trained_ranker: Any,
    warehouse: dg.ResourceParam[Warehouse],
    artifacts: dg.ResourceParam[ArtifactStore],
    device: Device,
    workers: WorkersSetting,
) -> dg.MaterializeResult:
    """Compute the ranker's embedding of every user and event as of the week's close, comparable by dot product."""
    from tgn_assets.ml.ranker import checkpoint

    week = context.partition_key
    embedding_history = load_embedding_history(artifacts, week, trained_ranker.config.sequence)
    history = warehouse.history(week)
    embeddings = checkpoint.temporal_embeddings(
        trained_ranker,
        history,
        embedding_history,
        device=device.name(),
        workers=workers.start(device.name(), context.log.warning),
        progress=context.log.info,
    )
    sizes = {"users": len(embeddings.user_idx), "events": len(embeddings.event_idx)}
    return dg.MaterializeResult(value=embeddings, metadata={**sizes, "dimension": embeddings.users.shape[1]})
