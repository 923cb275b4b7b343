"""Recommendations as the rows that are published: ids as they came in, one row per rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Policy, Rules
from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.ml.weeks import shift

if TYPE_CHECKING:
    from tgn_assets.ml.recommend.top_k import Recommendations

NODES_SQL = """
    SELECT {kind}_idx AS idx, {kind}_id AS id, strftime(first_week, '%Y-%m-%d') AS first_week
    FROM {kind}s WHERE first_week <= $week ORDER BY idx
"""
TRUTH_SQL = """
    SELECT user_id, event_id, count(*) AS count FROM raw_interactions WHERE week = $week GROUP BY ALL ORDER BY ALL
"""
PUBLISHED_SQL = """
    WITH published AS (FROM {table} WHERE week = $week), {codes}
    SELECT {columns} FROM published {joins} ORDER BY ALL
"""
PUBLISHED_TABLES = ("weekly_top5_predictions", "new_user_top5_predictions")


@dataclass(frozen=True)
class PublishedLists:
    """The rows of one week's partition of `weekly_top5_predictions` and of `new_user_top5_predictions`."""

    predictions: pd.DataFrame
    new_users: pd.DataFrame


@dataclass(frozen=True)
class PublicationRecord:
    """What the lists of a week were published under: whose ranker made them, and what it might recommend."""

    model_week: str
    policy: Policy

    def row(self, publication: PublishedLists, week: str) -> pd.DataFrame:
        """The row of `published_weeks` for lists made at the close of `week`."""
        lists = publication.predictions
        row = {
            "week": week,
            "target_week": shift(week, 1),
            "model_week": self.model_week,
            "k": self.policy.k,
            "users": lists.user_id.nunique(),
            "distinct_events": lists.event_id.nunique(),
            "policy": self.policy.as_of(week).to_json(),
        }
        return pd.DataFrame([row])


def read_nodes(con: duckdb.DuckDBPyConnection, week: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The users and the events known at the close of `week`: columns idx, id, first_week, in ascending order of idx."""
    users, events = (con.execute(NODES_SQL.format(kind=kind), {"week": week}).df() for kind in (USER, EVENT))
    return users, events


def read_publication(con: duckdb.DuckDBPyConnection, week: str) -> PublishedLists:
    """What was published at the close of `week`; two empty frames if nothing was. Text is categorical: there are
    millions of rows, of far fewer users and events."""
    predictions, new_users = (_read_table(con, table, week) for table in PUBLISHED_TABLES)
    return PublishedLists(predictions, new_users)


def read_terms(con: duckdb.DuckDBPyConnection, week: str) -> PublicationRecord:
    """What the lists of `week` were published under; where nothing is recorded, its own model and no policy."""
    query = "SELECT strftime(model_week, '%Y-%m-%d'), policy FROM published_weeks WHERE week = $week"
    rows = con.execute(query, {"week": week}).fetchall()
    return PublicationRecord(rows[0][0], Policy.from_json(rows[0][1])) if rows else PublicationRecord(week, Policy())


def rules_of(policy: Policy, events: pd.DataFrame) -> Rules:
    """`policy` for the `events` of `read_nodes`."""
    return policy.rules(events.idx.to_numpy(), events.id)


def read_truth(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """The distinct pairs of `week` (user_id, event_id) and how often each happened (count)."""
    return con.execute(TRUTH_SQL, {"week": week}).df()


def publication(
    recommendations: Recommendations, history: InteractionHistory, users: pd.DataFrame, events: pd.DataFrame, week: str
) -> PublishedLists:
    """Recommendations made at the close of `week` as rows for the week after it.

    `users` and `events` (`read_nodes`) name the nodes of `history`. A place in a list that holds
    no event, because the catalogue has too few, becomes no row.
    """
    user_ids, event_ids = _ids(users, history.user_idx), _ids(events, history.event_idx)
    lists, scores = np.asarray(recommendations.events), np.asarray(recommendations.scores)
    row, place = np.nonzero(lists >= 0)
    predictions = pd.DataFrame(
        {
            "user_id": user_ids[np.asarray(recommendations.users)[row]],
            "rank": place + 1,
            "event_id": event_ids[lists[row, place]],
            "score": scores[row, place],
            "source": np.asarray(recommendations.source, dtype=object)[row],
        }
    )
    listed = np.flatnonzero(np.asarray(recommendations.new_user_events) >= 0)
    new_users = pd.DataFrame(
        {
            "rank": listed + 1,
            "event_id": event_ids[np.asarray(recommendations.new_user_events)[listed]],
            "score": np.asarray(recommendations.new_user_scores)[listed],
            "source": recommendations.new_user_source,
        }
    )
    for frame in (predictions, new_users):
        frame.insert(0, "week", week)
        frame.insert(1, "target_week", shift(week, 1))
    return PublishedLists(predictions, new_users)


def most_recommended(predictions: pd.DataFrame, events: int = 10) -> pd.DataFrame:
    """event_id, lists: the events that stand on the most users' lists, and on how many; ties by id."""
    lists = predictions.groupby("event_id").size().rename("lists").reset_index()
    return lists.sort_values(["lists", "event_id"], ascending=[False, True], ignore_index=True).head(events)


def _read_table(con: duckdb.DuckDBPyConnection, table: str, week: str) -> pd.DataFrame:
    """The rows of `week`, in order; a column of text is read as codes, and each of its values once."""
    types = {row[0]: row[1] for row in con.execute(f"DESCRIBE {table}").fetchall()}
    texts, given = [name for name, kind in types.items() if kind == "VARCHAR"], {"week": week}
    codes = [
        f"of_{name} AS (SELECT {name}, row_number() OVER (ORDER BY {name}) - 1 AS code"
        f" FROM (SELECT DISTINCT {name} FROM published))"
        for name in texts
    ]
    columns = [f"of_{name}.code AS {name}" if name in texts else name for name in types]
    joins = [f"JOIN of_{name} USING ({name})" for name in texts]
    query = PUBLISHED_SQL.format(table=table, codes=", ".join(codes), columns=", ".join(columns), joins=" ".join(joins))
    frame = con.execute(query, given).df()
    for name in texts:
        values = con.execute(f"SELECT DISTINCT {name} FROM {table} WHERE week = $week ORDER BY 1", given).df()[name]
        frame[name] = pd.Categorical.from_codes(frame[name], values)
    return frame


def _ids(known: pd.DataFrame, idx: np.ndarray) -> np.ndarray:
    return known.set_index("idx").id.reindex(idx).to_numpy(dtype=object)
