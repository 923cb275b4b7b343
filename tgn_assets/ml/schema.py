"""The warehouse's tables with their typed columns, and names that many modules share.

DDL, docs/reference.md, Dagster's column schemas and the exported tables are all derived from `TABLES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

K = 5
"""Length of a published list, unless the policy says otherwise."""

OURS = "tgn_assets"
"""The ranker's own lists, in `source` and `model` columns; a baseline's go by the baseline's name."""

USER_LISTS, NEW_USER_LISTS = LISTS = "weekly_top5_predictions", "new_user_top5_predictions"
"""The tables of published lists: each user's, and that for users without a history."""

USER, EVENT = "user", "event"
INTERACTS = (USER, "interacts_with", EVENT)
REV_INTERACTS = (EVENT, "rev_interacts_with", USER)


@dataclass(frozen=True)
class Column:
    """A column of a table, with its DuckDB `type` and what it means to a reader."""

    name: str
    type: str
    meaning: str
    nullable: bool = False
    primary_key: bool = False
    added: bool = False  # tables made by an older release lack it, and get it empty; so it is nullable

    @property
    def ddl(self) -> str:
        """The column's definition in a CREATE TABLE statement."""
        constraint = " PRIMARY KEY" if self.primary_key else "" if self.nullable else " NOT NULL"
        return f"{self.name} {self.type}{constraint}"


@dataclass(frozen=True)
class Table:
    """A table of the warehouse."""

    meaning: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return [column.name for column in self.columns]

    @property
    def ddl(self) -> str:
        """The column definitions of a CREATE TABLE statement."""
        return ", ".join(column.ddl for column in self.columns)


@dataclass(frozen=True)
class View:
    """A view of the warehouse."""

    meaning: str
    query: str


def _week(meaning: str, *, nullable: bool = False) -> Column:
    return Column("week", "DATE", meaning, nullable)


def _text(name: str, meaning: str, *, nullable: bool = False, added: bool = False) -> Column:
    return Column(name, "VARCHAR", meaning, nullable=nullable, added=added)


_USER_ID = _text("user_id", "The user, as the source writes it.")
_EVENT_ID = _text("event_id", "The event, as the source writes it.")
_KNOWN_AT = _week("Monday of the week at whose close the row was known.")
_TARGET_WEEK = Column("target_week", "DATE", "Monday of the week that the list is for: the one after `week`.")
_RANK = Column("rank", "INTEGER", "Place in the list, from 1.")
_SCORE = Column(
    "score", "DOUBLE", "Probability that a user with this list interacts with the event in the target week."
)
_NODES = "Every {} that was ever loaded. One that was forgotten has its index, and an empty id."
_REASON = (
    _text(
        "reason_kind",
        "Why the event is on the list, one of the kinds of docs/reasons.md; NULL if an older release made the list.",
        nullable=True,
        added=True,
    ),
    _text("reason", "The reason as a sentence, in the words of TGN_NOUNS.", nullable=True, added=True),
    _text(
        "reason_parameters",
        "As JSON, the facts that the sentence states, for programs and the check `reasons_are_true`.",
        nullable=True,
        added=True,
    ),
)
_INDEX = "Index in tensors and snapshots; once given, it never changes."
_FIRST_WEEK = Column(
    "first_week", "DATE", "Monday of the first week with a row of this id; NULL if it has none now.", nullable=True
)

# Ids and indices of users and events are distinct, as ingest makes them: a key that says so would take more room and
# time to keep than the rows.
TABLES: dict[str, Table] = {
    "raw_interactions": Table(
        "Who interacted with what, when: one row per valid row of the source.",
        (
            _USER_ID,
            _EVENT_ID,
            Column("ts", "TIMESTAMP", "When it happened (UTC)."),
            _week("Monday of the week in which it happened."),
        ),
    ),
    "rejected_interactions": Table(
        "Rows of the source that cannot be used, each with one reason; values as they came in.",
        (
            _week(
                "Monday of the row's week; NULL if its time cannot be read or lies outside 1970 to 2200.", nullable=True
            ),
            _text("reason", "Why it cannot be used."),
            _text("user_id", "The user, as far as the row has one.", nullable=True),
            _text("event_id", "The event, as far as the row has one.", nullable=True),
            _text("ts", "The time as text, as the source writes it.", nullable=True),
        ),
    ),
    "rows_outside_weeks": Table(
        "How many rows of the source lie outside of the weeks that can be ingested, as the newest load counted them. "
        "Empty for PostgreSQL, which is asked for the weeks alone.",
        (
            _text("side", "`before` the first week, or `after` the last one, TGN_END_WEEK."),
            _text("reason", "Why they could not be used; NULL for rows that could.", nullable=True),
            Column("rows", "BIGINT", "How many."),
        ),
    ),
    "ingested_weeks": Table(
        "The weeks whose rows were loaded, and from what.",
        (
            Column("week", "DATE", "Monday of the week.", primary_key=True),
            Column("rows", "BIGINT", "Its rows in the source, rejected ones included."),
            _text("digest", "Digest of these rows: another one means that the source has changed since."),
        ),
    ),
    "made_weeks": Table(
        "What each asset of each week holds, and what it was made from: what no longer matches is made again.",
        (
            _week("Monday of the week."),
            _text("asset", "Name of the asset."),
            _text("digest", "Digest of what it holds."),
            _text("made_from", "As JSON, the digest of each thing upstream when it was made."),
            Column("made_at", "TIMESTAMP", "Since when it holds that (UTC).", nullable=True, added=True),
            Column("first_made_at", "TIMESTAMP", "When it was made first (UTC).", nullable=True, added=True),
            Column("replaced", "INTEGER", "How often other content took the place.", nullable=True, added=True),
        ),
    ),
    "users": Table(_NODES.format("user"), (_USER_ID, Column("user_idx", "BIGINT", _INDEX), _FIRST_WEEK)),
    "events": Table(_NODES.format("event"), (_EVENT_ID, Column("event_idx", "BIGINT", _INDEX), _FIRST_WEEK)),
    "weekly_top5_predictions": Table(
        "The published lists, one row per user and rank.",
        (
            _KNOWN_AT,
            _TARGET_WEEK,
            _text("user_id", "Whose list it is."),
            _RANK,
            _text("event_id", "The recommended event."),
            _SCORE,
            _text(
                "source", "Whose list it is: `tgn_assets`, or the baseline that did better in the last closed weeks."
            ),
            *_REASON,
        ),
    ),
    "new_user_top5_predictions": Table(
        "The published list for users without a history, one row per rank.",
        (
            _KNOWN_AT,
            _TARGET_WEEK,
            _RANK,
            _text("event_id", "The recommended event."),
            _SCORE,
            _text(
                "source", "`popular`, or `tgn_assets` where another kind of popularity did better for new users lately."
            ),
            *_REASON,
        ),
    ),
    "published_weeks": Table(
        "What each week's lists were published under, one row per week.",
        (
            _KNOWN_AT,
            _TARGET_WEEK,
            Column(
                "model_week",
                "DATE",
                "Monday of the week whose ranker made the lists: another than `week` while a model is pinned.",
            ),
            Column("k", "INTEGER", "How long a list may be."),
            Column("users", "BIGINT", "How many users have a list."),
            Column("distinct_events", "BIGINT", "How many different events these lists hold together."),
            _text("policy", "The policy as JSON: allowed, denied, expired by the target week, excluded."),
        ),
    ),
    "eval_metrics": Table(
        "How the lists for a week did in it, beside baselines and bounds, one row per number.",
        (
            _week("Monday of the week that the lists were evaluated in: their target week."),
            _text(
                "model",
                "`tgn_assets` (the published lists), a baseline, `without_fallback`, `candidates` or `ceiling`.",
            ),
            _text(
                "segment",
                "Which active users: `all`, `seen` before, those with a `repeat`, those who `explore`, `new` ones; "
                "under TGN_MAX_SILENT_WEEKS those `left_out`.",
            ),
            _text(
                "metric",
                "`ndcg`, `precision`, `recall`, `map`, `hit_rate`, `mrr`, or one of the diagnostics beside them. "
                "`hit_rate:<kind>`: of the pairs with a reason of that kind. "
                "`drawn:<metric>`: of the published lists over the drawn users alone, to compare with other models.",
            ),
            Column("value", "DOUBLE", "Mean over the users; NULL where there are none.", nullable=True),
            Column(
                "ci_low",
                "DOUBLE",
                "Lower limit of the 95% interval of the mean; NULL where there is none.",
                nullable=True,
            ),
            Column("ci_high", "DOUBLE", "Upper limit of the 95% interval.", nullable=True),
            Column(
                "users",
                "BIGINT",
                "How many users (of `brier`, `predicted:`, `observed:` and `hit_rate:`: pairs) the value is a mean of.",
            ),
        ),
    ),
    "eval_user_groups": Table(
        "NDCG by group of users, from which intervals over several weeks are made: a user is in the same group in "
        "every week. One row per week, model, segment and group, over the drawn users.",
        (
            _week("Monday of the week that the lists were evaluated in: their target week."),
            _text("model", "As in `eval_metrics`."),
            _text("segment", "`all` or `seen`."),
            Column("user_group", "INTEGER", "Number of the group, from the id, 0 to 1,023."),
            Column("ndcg", "DOUBLE", "Sum over the users of the group."),
            Column("users", "BIGINT", "How many of its users were active, and drawn."),
        ),
    ),
}

NEWEST_WEEK = (
    "greatest((SELECT max(week) FROM weekly_top5_predictions), (SELECT max(week) FROM new_user_top5_predictions))"
)
"""The newest published week: it may have the list for new users alone, where all users were left out as silent."""

VIEWS: dict[str, View] = {
    "current_top5": View(
        "The lists of the newest published week, whatever the clock says; none if all users were left out as silent.",
        "SELECT week, target_week, user_id, rank, event_id, score, source, reason_kind, reason, "
        f"reason_parameters FROM weekly_top5_predictions WHERE week = {NEWEST_WEEK}",
    ),
}


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Creates the tables that are missing, the columns that were added since, and the views anew."""
    for name, table in TABLES.items():
        con.execute(f"CREATE TABLE IF NOT EXISTS {name} ({table.ddl})")
        for column in table.columns:
            if column.added:
                con.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column.ddl}")
    for name, view in VIEWS.items():
        con.execute(f"CREATE OR REPLACE VIEW {name} AS {view.query}")


def replace_rows(con: duckdb.DuckDBPyConnection, table: str, week: str, rows: pd.DataFrame) -> None:
    """Replaces the rows of `week` in `table` by `rows`; columns count by name."""
    con.execute(f"DELETE FROM {table} WHERE week = $week::DATE", {"week": week})
    if len(rows):
        con.register("new_rows", rows)
        con.execute(f"INSERT INTO {table} BY NAME FROM new_rows")
        con.unregister("new_rows")


def quoted(name: str) -> str:
    """`name` as an SQL identifier, its double quotes doubled."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL text."""
    return "'" + text.replace("'", "''") + "'"
