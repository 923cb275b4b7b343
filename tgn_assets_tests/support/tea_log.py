"""A log that fits a page, what was published for the week after it, what happened then, and how that is scored."""

from typing import TypedDict

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.evaluate import evaluate_week
from tgn_assets.ml.evaluation.evaluation_input import read_evaluation_input
from tgn_assets.ml.evaluation.metric_names import CEILING
from tgn_assets.ml.evaluation.scored_week import RankerDiagnostics, score_week
from tgn_assets.ml.schema import OURS, create_tables
from tgn_assets.ml.weeks import shift, week_key, week_number

WEEK = "2024-03-11"
KNOWN = [
    ("ann", "tea", 1, 2),
    ("ann", "jam", 2, 1),
    ("bob", "oil", 1, 1),
    ("bob", "tea", 3, 4),
    ("cat", "rye", 1, 3),
]
"""(user, event, weeks before the target week, times). Popular: rye 3, tea 2 and a bit, oil 1, jam."""

DISCOUNT = 1 / np.log2(np.arange(2, 7))


class Past(TypedDict):
    """Arguments of `metrics_of`."""

    history: InteractionHistory
    user_ids: np.ndarray
    event_ids: np.ndarray


def past(rows: list[tuple[str, str, int, int]], week: str = WEEK) -> Past:
    """The history before `week`, and the ids of its positions: here in order of first appearance in `rows`."""
    users, events = (pd.unique(np.array([row[column] for row in rows], object)) for column in (0, 1))
    frame = pd.DataFrame(
        {
            "user_idx": [list(users).index(row[0]) for row in rows],
            "event_idx": [list(events).index(row[1]) for row in rows],
            "event_order": [sorted(events).index(row[1]) for row in rows],
            "week_no": [week_number(WEEK) - row[2] for row in rows],
            "count": [row[3] for row in rows],
        }
    )
    history = InteractionHistory.from_frame(frame, shift(week, -1))
    return {"history": history, "user_ids": users, "event_ids": events}


def published(lists: dict[str, str]) -> pd.DataFrame:
    """Predictions from words of events, the source of the first user being `model` and of the others `repeat`."""
    rows = [
        (user, rank, event, "model" if user == next(iter(lists)) else "repeat")
        for user, events in lists.items()
        for rank, event in enumerate(events.split(), 1)
    ]
    return pd.DataFrame(rows, columns=["user_id", "rank", "event_id", "source"])


def happened(events: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(user, event) for user, words in events.items() for event in words.split()], columns=["user_id", "event_id"]
    )


PUBLISHED = {"ann": "tea rye", "bob": "jam tea", "cat": "rye"}
HAPPENED = {"ann": "tea oil", "bob": "tea", "dan": "rye new"}


MODELS = (OURS, *BASELINES, CEILING)


def metrics_of(
    week: str,
    predictions: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    new_user_list: list[str],
    history: InteractionHistory,
    user_ids: np.ndarray,
    event_ids: np.ndarray,
    diagnostics: RankerDiagnostics | None = None,
    rules: Rules = NO_RULES,
    users: int = 0,
) -> pd.DataFrame:
    """Rows of `eval_metrics` of `week` from what was published and happened, with `users` drawn ones."""
    new_users = pd.DataFrame({"rank": range(1, 1 + len(new_user_list)), "event_id": new_user_list})
    known: Past = {"history": history, "user_ids": user_ids, "event_ids": event_ids}
    with warehouse_of(week, predictions, truth, new_users, **known) as con:
        given = read_evaluation_input(con, week, k=rules.k, users=users)
    assert given is not None
    return evaluate_week(score_week(week, given, history=history, diagnostics=diagnostics, rules=rules))


def warehouse_of(
    week: str,
    predictions: pd.DataFrame,
    truth: pd.DataFrame,
    new_users: pd.DataFrame,
    *,
    history: InteractionHistory,
    user_ids: np.ndarray,
    event_ids: np.ndarray,
) -> duckdb.DuckDBPyConnection:
    """An in-memory warehouse with the rows of `history`, the lists published for `week` and what happened in it."""
    cutoff = shift(week, -1)
    past = pd.DataFrame(
        {
            "user_id": user_ids[history.user],
            "event_id": event_ids[history.event],
            "week": [week_key(number) for number in history.week_no.tolist()],
        }
    )
    rows = pd.concat([past, truth.assign(week=week)]).assign(ts=lambda frame: frame.week)
    defaults = {"week": cutoff, "target_week": week, "score": 0.5, "source": "model"}
    shown = {"weekly_top5_predictions": predictions, "new_user_top5_predictions": new_users}
    tables = {"raw_interactions": rows}
    for name, frame in shown.items():
        lacking = [column for column in defaults if column not in frame]
        tables[name] = pd.concat([frame, pd.DataFrame(defaults, index=frame.index)[lacking]], axis=1)
    others = {"user": [truth.user_id], "event": [truth.event_id, predictions.event_id, new_users.event_id]}
    for kind, known, idx in (("user", user_ids, history.user_idx), ("event", event_ids, history.event_idx)):
        unknown = np.setdiff1d(np.concatenate(others[kind]).astype(object), known)
        ids = [*known, *unknown]
        after = np.arange(len(ids) - len(idx)) + idx.max(initial=-1) + 1
        nodes = {f"{kind}_id": ids, f"{kind}_idx": np.append(idx, after)}
        tables[f"{kind}s"] = pd.DataFrame(nodes).assign(first_week=[cutoff] * len(known) + [week] * len(unknown))
    con = duckdb.connect()
    create_tables(con)
    for name, frame in tables.items():
        if len(frame):
            con.register("frame", frame)
            con.execute(f"INSERT INTO {name} BY NAME FROM frame")
            con.unregister("frame")
    return con


def evaluate(lists: dict[str, str] = PUBLISHED, truth: dict[str, str] = HAPPENED) -> pd.DataFrame:
    return metrics_of(WEEK, published(lists), happened(truth), new_user_list=["tea", "rye"], **past(KNOWN))


def value(frame: pd.DataFrame, model: str, metric: str, segment: str = "all", column: str = "value") -> float:
    row = frame[(frame.model == model) & (frame.metric == metric) & (frame.segment == segment)]
    assert len(row) == 1
    return row[column].iloc[0]
