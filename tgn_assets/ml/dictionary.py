"""What every table and column of the warehouse means, for the UI and docs/reference.md."""

_WEEK = "Monday of the week at whose close the row was known."
_RANK = "Place in the list, from 1."
_TARGET = "Monday of the week that the list is for: the one after `week`."
_SCORE = "Probability that a user with this list touches the event in the target week."
_SOURCE = "Whose list it is: `tgn_assets`, or the baseline that did better on the newest closed week."
_IDX = "Position in tensors and snapshots; once given, it never changes."
_FIRST = "Monday of the first week with a row of this id; NULL if it has none any more."

TABLE_MEANING = {
    "raw_interactions": "Who met what, when: one row per valid row of the source.",
    "rejected_interactions": "Rows of the source that cannot be used, each with one reason; values as they came in.",
    "ingested_weeks": "The weeks whose rows were loaded, and from what.",
    "users": "Every user that was ever loaded.",
    "events": "Every event that was ever loaded.",
    "weekly_top5_predictions": "The published lists, one row per user and rank.",
    "new_user_top5_predictions": "The published list for users without a history, one row per rank.",
    "published_weeks": "What each week's lists were published under, one row per week.",
    "eval_metrics": "How the lists for a week did in it, beside baselines and bounds, one row per number.",
}

COLUMN_MEANING = {
    "raw_interactions": {
        "user_id": "The user, as the source writes it.",
        "event_id": "The event, as the source writes it.",
        "ts": "When it happened (UTC).",
        "week": "Monday of the week in which it happened.",
    },
    "rejected_interactions": {
        "week": "Monday of the week the row belongs to; NULL if its time cannot be read or lies outside 1970 to 2200.",
        "reason": "Why it cannot be used.",
        "user_id": "The user, as far as the row has one.",
        "event_id": "The event, as far as the row has one.",
        "ts": "The time as text, as the source writes it.",
    },
    "ingested_weeks": {
        "week": "Monday of the week.",
        "rows": "Its rows in the source, rejected ones included.",
        "digest": "Digest of these rows: another one means that the source has changed since.",
    },
    "users": {"user_id": "The user, as the source writes it.", "user_idx": _IDX, "first_week": _FIRST},
    "events": {"event_id": "The event, as the source writes it.", "event_idx": _IDX, "first_week": _FIRST},
    "weekly_top5_predictions": {
        "week": _WEEK,
        "target_week": _TARGET,
        "user_id": "Whose list it is.",
        "rank": _RANK,
        "event_id": "The recommended event.",
        "score": _SCORE,
        "source": _SOURCE,
    },
    "new_user_top5_predictions": {
        "week": _WEEK,
        "target_week": _TARGET,
        "rank": _RANK,
        "event_id": "The recommended event.",
        "score": _SCORE,
        "source": "`popular`, or `tgn_assets` where another rule for new users did better lately.",
    },
    "published_weeks": {
        "week": _WEEK,
        "target_week": _TARGET,
        "model_week": "Monday of the week whose ranker made the lists: another than `week` while a model is pinned.",
        "k": "How long a list may be.",
        "users": "How many users have a list.",
        "distinct_events": "How many different events these lists hold together.",
        "policy": "The policy as JSON: what was allowed, denied, expired by the target week, excluded.",
    },
    "eval_metrics": {
        "week": "Monday of the week in which the lists were tried: their target week.",
        "model": "`tgn_assets` (the published lists), a baseline, `without_fallback`, `candidates` or `ceiling`.",
        "segment": "Which active users: `all`, `seen` before, those with a `repeat`, those who `explore`, `new` ones.",
        "metric": "`ndcg`, `precision`, `recall`, `map`, `hit_rate`, `mrr`, or one of the accounts beside them.",
        "value": "Mean over the users; NULL where there are none.",
        "ci_low": "Lower limit of the 95% interval of the mean; NULL where there is none.",
        "ci_high": "Upper limit of the 95% interval.",
        "users": "How many users (of `brier`, `predicted:` and `observed:`: pairs) the value is a mean of.",
    },
}

VIEW_MEANING = {"current_top5": "The lists of the newest published week, whatever the clock says."}
