"""A log that fits a page, what was published for the week after it, what happened then, and how that is scored."""

from typing import Any, TypedDict

import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.evaluation.baselines import BASELINES
from tgn_assets.ml.evaluation.evaluate import evaluate_week
from tgn_assets.ml.evaluation.metric_names import CEILING
from tgn_assets.ml.evaluation.scored_week import score_week
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_number

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
    """Arguments of `score_week`."""

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


def metrics_of(*args: Any, **kwargs: Any) -> pd.DataFrame:
    """Rows of `eval_metrics` from the arguments of `score_week`."""
    return evaluate_week(score_week(*args, **kwargs))


def evaluate(lists: dict[str, str] = PUBLISHED, truth: dict[str, str] = HAPPENED) -> pd.DataFrame:
    return metrics_of(WEEK, published(lists), happened(truth), new_user_list=["tea", "rye"], **past(KNOWN))


def value(frame: pd.DataFrame, model: str, metric: str, segment: str = "all", column: str = "value") -> float:
    row = frame[(frame.model == model) & (frame.metric == metric) & (frame.segment == segment)]
    assert len(row) == 1
    return row[column].iloc[0]
