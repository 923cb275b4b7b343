"""Published lists as rows, the record of what they were made under, and the nodes that they are made of."""

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
    return read_kind(con, USER, week), read_kind(con, EVENT, week)


def read_kind(con: duckdb.DuckDBPyConnection, kind: str, week: str) -> pd.DataFrame:
    """`read_nodes` of one kind, `USER` or `EVENT`."""
    return con.execute(NODES_SQL.format(kind=kind), {"week": week}).df()


def read_publication_record(con: duckdb.DuckDBPyConnection, week: str) -> PublicationRecord:
    """The record of the lists of `week`; where there is none, the week's own model and no policy."""
    query = "SELECT strftime(model_week, '%Y-%m-%d'), policy FROM published_weeks WHERE week = $week"
    rows = con.execute(query, {"week": week}).fetchall()
    return PublicationRecord(rows[0][0], Policy.from_json(rows[0][1])) if rows else PublicationRecord(week, Policy())


def rules_of(policy: Policy, events: pd.DataFrame) -> Rules:
    """`policy` for the `events` of `read_nodes`."""
    return policy.rules(events.idx.to_numpy(), events.id)
