"""Refreshes one week without Dagster: the functions that the assets call, in the same order, in one process.

    python -m benchmarks.speed.without_dagster WEEK

Reads the settings that `tgn` reads, and writes to TGN_HOME what a run writes, except for Dagster's event log and the
plots and previews in it.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from tgn_assets.assets.recommendations import diagnostics_of
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES
from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.encoder.train import snapshot_weeks, train_gnn
from tgn_assets.ml.evaluation.evaluate import evaluate_week
from tgn_assets.ml.evaluation.evaluation_input import read_evaluation_input
from tgn_assets.ml.evaluation.scored_week import score_week
from tgn_assets.ml.graph.snapshots import read_snapshot
from tgn_assets.ml.parallel import THREADS
from tgn_assets.ml.ranker.checkpoint import temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache
from tgn_assets.ml.recommend.publish import publish_week
from tgn_assets.ml.recommend.published import (
    PublicationRecord,
    read_kind,
    read_nodes,
    read_publication_record,
    rules_of,
)
from tgn_assets.ml.schema import EVENT
from tgn_assets.ml.weeks import shift
from tgn_assets.reporting.weekly_page.page import report_page
from tgn_assets.settings import read_settings
from tgn_assets.state.artifact_store import ArtifactStore, load_embedding_history
from tgn_assets.state.home import Home
from tgn_assets.state.resources import policy_files
from tgn_assets.state.warehouse import Warehouse


def main() -> None:
    """Refreshes the week named on the command line, on the CPU."""
    home, week = Home(read_settings()), sys.argv[1]
    warehouse, artifacts = home.warehouse(), ArtifactStore(home.artifacts)
    policy = policy_files(home).read()
    ingest(home, warehouse, artifacts, week)
    train(warehouse, artifacts, policy, week)
    publish(warehouse, artifacts, policy, week)
    evaluate(warehouse, artifacts, week, home.settings.evaluation_users)
    page = report_page(warehouse, week, {}, {}, source=home.source_spec(), made=datetime.now(UTC))
    replace_text(Path(home.reports) / f"{week}.html", page)


def ingest(home: Home, warehouse: Warehouse, artifacts: ArtifactStore, week: str) -> None:
    """`raw_interactions` and `weekly_snapshots`."""
    source, first = home.source_spec(), home.start_week()
    with warehouse.writer() as con:
        load_weeks(con, source, [week], start_week=first, end_week=home.settings.end_week)
    with warehouse.reader() as con:
        snapshot = read_snapshot(con, week)
    artifacts.save("weekly_snapshots", week, snapshot)


def train(warehouse: Warehouse, artifacts: ArtifactStore, policy: Policy, week: str) -> None:
    """`trained_gnn`, `trained_ranker` and `temporal_embeddings`."""
    gnn, config = GNNConfig(), RankerConfig()
    warm = artifacts.load("trained_gnn", shift(week, -1))
    read = snapshot_weeks(week, gnn, warm)
    history = warehouse.history(week)
    encoder = train_gnn(artifacts.load_weeks("weekly_snapshots", read), week, gnn, warm=warm, history=history)
    artifacts.save("trained_gnn", week, encoder)
    embedding_history = load_embedding_history(artifacts, week, config.embedding_weeks)
    with warehouse.reader() as con:
        rules = rules_of(policy, read_nodes(con, week)[1])
    training_sets = TrainingSetCache(artifacts.training_sets)
    earlier = artifacts.load("trained_ranker", shift(week, -1))
    ranker = train_ranker(
        history, embedding_history, week, config=config, rules=rules, cache=training_sets, earlier=earlier
    )
    artifacts.save("trained_ranker", week, ranker)
    embedding_history = load_embedding_history(artifacts, week, config.sequence)
    embeddings = temporal_embeddings(ranker, history, embedding_history)
    artifacts.save("temporal_embeddings", week, embeddings)


def publish(warehouse: Warehouse, artifacts: ArtifactStore, policy: Policy, week: str) -> None:
    """`weekly_top5_predictions`, with the checks before."""
    ranker, embeddings = artifacts.load("trained_ranker", week), artifacts.load("temporal_embeddings", week)
    with warehouse.reader() as con:
        users, events = read_nodes(con, week)
    made = publish_week(
        week,
        PublicationRecord(week, policy),
        history=warehouse.history(week),
        users=users,
        events=events,
        ranker=ranker,
        embeddings=embeddings,
        embedding_history=load_embedding_history(artifacts, week, ranker.config.sequence),
    )
    if made.failures:
        raise RuntimeError("; ".join(made.failures))
    warehouse.replace_week_tables(week, made.tables)


def evaluate(warehouse: Warehouse, artifacts: ArtifactStore, week: str, users: int) -> None:
    """`eval_metrics`, of the lists of the week before, with `users` drawn ones."""
    cutoff = shift(week, -1)
    with warehouse.reader() as con:
        record, events = read_publication_record(con, cutoff), read_kind(con, EVENT, cutoff)
        given = read_evaluation_input(con, week, k=record.policy.k, users=users)
    if given is None:
        raise RuntimeError(f"no lists were published for {week}")
    history, rules = warehouse.history(cutoff), rules_of(record.policy, events)
    diagnostics = diagnostics_of(
        artifacts,
        history,
        cutoff,
        model_week=record.model_week,
        rules=rules,
        attributes=NO_ATTRIBUTES,
        workers=THREADS,
        device="cpu",
    )
    metrics = evaluate_week(score_week(week, given, history=history, diagnostics=diagnostics, rules=rules))
    warehouse.replace_week_tables(week, {"eval_metrics": metrics})


if __name__ == "__main__":
    main()
