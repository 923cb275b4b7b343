"""Published lists as the warehouse has them, and what is read beside them to make or to score them."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pandas as pd

from tgn_assets.ml.data.policy import Policy, Rules
from tgn_assets.ml.schema import EVENT, USER
from tgn_assets.ml.weeks import shift

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
    """What the lists of a week were published under: the week of their ranker, and the policy."""

    model_week: str
    policy: Policy

    def row(self, lists: PublishedLists, week: str) -> pd.DataFrame:
        """The row of `published_weeks` for lists made at the close of `week`."""
        predictions = lists.predictions
        row = {
            "week": week,
            "target_week": shift(week, 1),
            "model_week": self.model_week,
            "k": self.policy.k,
            "users": predictions.user_id.nunique(),
            "distinct_events": predictions.event_id.nunique(),
            "policy": self.policy.as_of(week).to_json(),
        }
        return pd.DataFrame([row])


def read_nodes(con: duckdb.DuckDBPyConnection, week: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The users and the events known at the close of `week`: columns idx, id, first_week, in ascending order of idx."""
    users, events = (con.execute(NODES_SQL.format(kind=kind), {"week": week}).df() for kind in (USER, EVENT))
    return users, events


def read_published_lists(con: duckdb.DuckDBPyConnection, week: str) -> PublishedLists:
    """The lists that were published at the close of `week`; two empty frames if none were.

    Text is categorical: there are millions of rows, of far fewer users and events.
    """
    predictions, new_users = (_read_table(con, table, week) for table in PUBLISHED_TABLES)
    return PublishedLists(predictions, new_users)


def read_publication_record(con: duckdb.DuckDBPyConnection, week: str) -> PublicationRecord:
    """The record of the lists of `week`; where there is none, the week's own model and no policy."""
    query = "SELECT strftime(model_week, '%Y-%m-%d'), policy FROM published_weeks WHERE week = $week"
    rows = con.execute(query, {"week": week}).fetchall()
    return PublicationRecord(rows[0][0], Policy.from_json(rows[0][1])) if rows else PublicationRecord(week, Policy())


def rules_of(policy: Policy, events: pd.DataFrame) -> Rules:
    """`policy` for the `events` of `read_nodes`."""
    return policy.rules(events.idx.to_numpy(), events.id)


def read_truth(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """The distinct pairs of `week` (user_id, event_id) and how often each happened (count)."""
    return con.execute(TRUTH_SQL, {"week": week}).df()


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
