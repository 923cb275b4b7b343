"""The reasons of whole lists, from a trained ranker and from baselines, against the log."""

from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend import top_k
from tgn_assets.ml.recommend.publish import named_lists
from tgn_assets.ml.recommend.published import PublishedLists, read_nodes
from tgn_assets.ml.recommend.reason_check import check_reasons
from tgn_assets.ml.recommend.top_k import Recommendations, recommend
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.ml.recommend.reason_logs import log_in
from tgn_assets_tests.support.worlds import START, Row, habits, snapshots, warehouse

WEEKS = 8
LAST = shift(START, WEEKS - 1)
CONFIG = RankerConfig(dim=16, heads=2, origins=3, sequence=3, epochs=3, networks=1, candidates=8)
GNN = GNNConfig(dim=8, window=4, replay=4, epochs=2, warm_epochs=1, batching="full")
LOG: list[Row] = [*habits(weeks=WEEKS), *((f"n{user}", "e999", WEEKS - 1, 1) for user in range(4))]
CON = warehouse(LOG)
PAST = log_in(CON, LAST)


@pytest.fixture(scope="module")
def embedding_history() -> EmbeddingHistory:
    return train_gnn(snapshots(LOG, range(WEEKS)), LAST, GNN).embeddings


@pytest.fixture(scope="module")
def ranker(embedding_history: EmbeddingHistory) -> RankerCheckpoint:
    return train_ranker(PAST, embedding_history, LAST, config=CONFIG)


@pytest.fixture(scope="module")
def embeddings(ranker: RankerCheckpoint, embedding_history: EmbeddingHistory) -> NodeEmbeddings:
    return temporal_embeddings(ranker, PAST, embedding_history)


def served_by(ranker: RankerCheckpoint, source: str) -> RankerCheckpoint:
    """`ranker`, with everybody's list from `source`."""
    return replace(ranker, fallback=replace(ranker.fallback, source=dict.fromkeys(ranker.fallback.source, source)))


def rows_of(made: Recommendations) -> PublishedLists:
    users, events = read_nodes(CON, LAST)
    return named_lists(made, LAST, history=PAST, users=users, events=events)


def published(made: Recommendations, con: duckdb.DuckDBPyConnection = CON) -> pd.DataFrame:
    """The rows of the lists, which become those of the warehouse."""
    lists = rows_of(made)
    tables = {"weekly_top5_predictions": lists.predictions, "new_user_top5_predictions": lists.new_users}
    for table, frame in tables.items():
        con.execute(f"DELETE FROM {table}")
        con.register("frame", frame)
        con.execute(f"INSERT INTO {table} BY NAME FROM frame")
    con.execute("DELETE FROM published_weeks")
    record = [LAST, shift(LAST, 1), LAST, '{"min_distinct_events": 20}']
    con.execute("INSERT INTO published_weeks VALUES (?, ?, ?, 5, 1, 1, ?)", record)
    return lists.predictions


@pytest.mark.parametrize(
    ("source", "rules", "kinds"),
    [
        ("tgn_assets", NO_RULES, {"repeat"}),
        ("tgn_assets", Rules(exclude_repeats=True), {"together"}),
        ("popular", Rules(min_distinct=21), {"popular", "variety"}),
        ("repeat", NO_RULES, {"repeat", "popular"}),
        ("popular", NO_RULES, {"popular"}),
        ("item_knn", NO_RULES, {"repeat"}),
        ("item_knn_new", Rules(exclude_repeats=True), {"together"}),
    ],
)
def test_every_row_has_a_true_reason(
    source: str,
    rules: Rules,
    kinds: set[str],
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
) -> None:
    made = recommend(PAST, served_by(ranker, source), embedding_history, embeddings, rules=rules)
    rows = published(made)
    assert rows[["reason_kind", "reason", "reason_parameters"]].notna().all(axis=None)
    assert set(rows.reason_kind) >= kinds
    assert set(rows_of(made).new_users.reason_kind) == {"popular"}
    found = check_reasons(CON, LAST)
    assert found.untrue.empty, found.message
    assert sum(found.checked.values()) == len(rows) + 5
    if source == "popular":
        assert set(rows.reason_kind) == kinds


def test_reasons_do_not_depend_on_the_size_of_shards(
    ranker: RankerCheckpoint,
    embedding_history: EmbeddingHistory,
    embeddings: NodeEmbeddings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = served_by(ranker, "tgn_assets")
    whole = rows_of(recommend(PAST, own, embedding_history, embeddings)).predictions
    monkeypatch.setattr(top_k, "RANKING_SHARD", 7)
    shards = rows_of(recommend(PAST, own, embedding_history, embeddings)).predictions
    assert shards.reason.tolist() == whole.reason.tolist()
    assert len(np.unique(whole.reason.astype(str))) > 10
