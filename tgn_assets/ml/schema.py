"""Names that many modules share: the warehouse's tables and columns, list length, edge types."""

K = 5
"""Length of a published list, unless the policy says otherwise."""

OURS = "tgn_assets"
"""The ranker's own lists, in `source` and `model` columns; a baseline's go by the baseline's name."""

USER, EVENT = "user", "event"
INTERACTS = (USER, "interacts_with", EVENT)
REV_INTERACTS = (EVENT, "rev_interacts_with", USER)

TABLES: dict[str, str] = {
    "raw_interactions": (
        "user_id VARCHAR NOT NULL, event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, week DATE NOT NULL"
    ),
    "rejected_interactions": "week DATE, reason VARCHAR NOT NULL, user_id VARCHAR, event_id VARCHAR, ts VARCHAR",
    "ingested_weeks": "week DATE PRIMARY KEY, rows BIGINT NOT NULL, digest VARCHAR NOT NULL",
    "users": "user_id VARCHAR NOT NULL, user_idx BIGINT NOT NULL, first_week DATE",
    "events": "event_id VARCHAR NOT NULL, event_idx BIGINT NOT NULL, first_week DATE",
    "weekly_top5_predictions": (
        "week DATE NOT NULL, target_week DATE NOT NULL, user_id VARCHAR NOT NULL, rank INTEGER NOT NULL, "
        "event_id VARCHAR NOT NULL, score DOUBLE NOT NULL, source VARCHAR NOT NULL"
    ),
    "new_user_top5_predictions": (
        "week DATE NOT NULL, target_week DATE NOT NULL, rank INTEGER NOT NULL, event_id VARCHAR NOT NULL, "
        "score DOUBLE NOT NULL, source VARCHAR NOT NULL"
    ),
    "published_weeks": (
        "week DATE NOT NULL, target_week DATE NOT NULL, model_week DATE NOT NULL, k INTEGER NOT NULL, "
        "users BIGINT NOT NULL, distinct_events BIGINT NOT NULL, policy VARCHAR NOT NULL"
    ),
    "eval_metrics": (
        "week DATE NOT NULL, model VARCHAR NOT NULL, segment VARCHAR NOT NULL, metric VARCHAR NOT NULL, "
        "value DOUBLE, ci_low DOUBLE, ci_high DOUBLE, users BIGINT NOT NULL"
    ),
}
"""Each table's columns as DDL. `first_week` is the first week in which the id has a row (NULL: it has none any more).
Ids and indices of users and events are distinct, as ingest makes them: a key that says so would take more room and
time to keep than the rows. `rejected_interactions.week` is NULL where the row's time cannot be read or
lies outside 1970 to 2200."""

VIEWS: dict[str, str] = {
    "current_top5": (
        "SELECT week, target_week, user_id, rank, event_id, score, source FROM weekly_top5_predictions "
        "WHERE week = (SELECT max(week) FROM weekly_top5_predictions)"
    ),
}
"""Each view's query. The newest week is the newest published one, whatever the clock says."""
