"""A log in which every kind of reason is true of some pair, and reasons of all its pairs as published rows."""

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.attributes import AttributeColumn, AttributeTable, AttributeTables
from tgn_assets.ml.data.interactions import HISTORY_SQL, InteractionHistory
from tgn_assets.ml.recommend.published import read_nodes
from tgn_assets.ml.recommend.reason_facts import PairFacts, event_facts, pair_facts
from tgn_assets.ml.recommend.reasons import KINDS, ReasonTable
from tgn_assets.ml.recommend.words import WORDS
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.worlds import START, Row, warehouse

NEWEST = 9
WEEK = shift(START, NEWEST)


def rows() -> list[Row]:
    """Ten weeks: x is followed by y, p and q belong together, and new0 appears in the week before the last."""
    log: list[Row] = [("ann", "tea", week, 1) for week in (0, 6, 8)]
    for user in range(4):
        log += [(f"f{user}", "x", 2, 1), (f"f{user}", "y", 3, 2), (f"g{user}", "a", 2, 1), (f"g{user}", "b", 3, 1)]
        log += [(f"t{user}", "p", 1, 1), (f"t{user}", "q", 5, 1)]
    return [
        *log,
        ("ann", "x", 9, 1),
        ("ann", "p", 4, 1),
        ("bob", "new0", 8, 1),
        ("bob", "hit", 9, 3),
        ("f0", "hit", 9, 1),
    ]


def log_in(con: duckdb.DuckDBPyConnection, week: str = WEEK) -> InteractionHistory:
    """The history at the close of `week`."""
    return InteractionHistory.from_frame(con.execute(HISTORY_SQL, {"week": week}).df(), week)


def categories(con: duckdb.DuckDBPyConnection) -> AttributeTables:
    """A category `sort` of each event: the drinks tea and hit, and the rest; y has none."""
    known = con.execute("SELECT event_idx, event_id FROM events ORDER BY event_idx").fetchall()
    idx = np.array([index for index, _ in known])
    values = np.array([[np.nan if event == "y" else float(event in ("tea", "hit"))] for _, event in known])
    column = AttributeColumn("event", "sort", "category")
    return AttributeTables(AttributeTable((column,), idx, np.full(len(idx), -(2**62)), values))


def facts_of_all_pairs(
    history: InteractionHistory, attributes: AttributeTables | None = None
) -> tuple[PairFacts, ReasonTable]:
    """The facts of every user with every event, by user, then event, and the table for their reasons."""
    allowed, attributes = np.ones(history.num_events, bool), attributes or AttributeTables()
    facts = event_facts(history, CandidateConfig(), allowed=allowed, attributes=attributes)
    row, event = np.divmod(np.arange(history.num_users * history.num_events), history.num_events)
    past = history.of_users(np.arange(history.num_users))
    return pair_facts(facts, past, row, event), ReasonTable(columns=facts.columns, sampled=facts.sampled)


def said(con: duckdb.DuckDBPyConnection, week: str = WEEK, attributes: AttributeTables | None = None) -> pd.DataFrame:
    """user_id, event_id, reason_kind, reason, reason_parameters: every reason that is true of any pair."""
    history = log_in(con, week)
    users, events = (nodes.set_index("idx").id for nodes in read_nodes(con, week))
    facts, table = facts_of_all_pairs(history, attributes)
    kind, pair = np.nonzero(facts.true)
    place = table.add(facts.reason[kind, pair])
    event_ids = events[history.event_idx].to_list()
    row, event = np.divmod(pair, history.num_events)
    user_ids = users[history.user_idx].to_numpy()
    frame = pd.DataFrame({"user_id": user_ids[row], "event_id": np.array(event_ids)[event]})
    texts = table.texts(event_ids, WORDS)
    return frame.assign(**{name: text.take(place, allow_fill=True).astype(object) for name, text in texts.items()})


def publish(con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame, week: str = WEEK) -> None:
    """Makes `reasons` the published lists of `week`, a rank each."""
    filled = reasons.assign(
        week=week, target_week=shift(week, 1), rank=np.arange(len(reasons)) + 1, score=0.5, source="tgn_assets"
    )
    con.execute("DELETE FROM weekly_top5_predictions")
    con.register("filled", filled)
    con.execute("INSERT INTO weekly_top5_predictions BY NAME SELECT * REPLACE (week::DATE AS week) FROM filled")
    con.execute("DELETE FROM published_weeks")
    policy = '{"min_distinct_events": 4}'
    con.execute("INSERT INTO published_weeks VALUES (?, ?, ?, 5, 1, 1, ?)", [week, shift(week, 1), week, policy])


def reason_log() -> duckdb.DuckDBPyConnection:
    """A warehouse with `rows`."""
    return warehouse(rows())


ALL_KINDS = set(KINDS)
