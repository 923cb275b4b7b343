"""What a `Recommender` answers: rows of lists for the users who are asked for, and scores beside the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import pandas as pd

from tgn_assets.ml.evaluation.metric_names import RANKING_METRICS, in_order
from tgn_assets.ml.evaluation.pooled import PooledScore
from tgn_assets.ml.recommend.publish import PREDICTION_COLUMNS
from tgn_assets.ml.recommend.published import PublishedLists
from tgn_assets.recommender.tables import IdType, ids_as_text

NEW_USERS = "new_users"
"""The `source` of rows for a user without a list: they are the list for new users."""
RESULT = ["user", "event", "rank", "score", "source"]
MORE = [name for name in PREDICTION_COLUMNS if name not in ("week", "target_week", "user_id", "event_id", *RESULT)]
"""What else the published lists say of each row, such as its reason."""
COMPARED_METRICS = (*RANKING_METRICS, "ndcg_lift")


def listed(lists: PublishedLists, users: pd.Series | None, user_type: IdType, event_type: IdType) -> pd.DataFrame:
    """The lists of `users` one after the other (None: of all), with the columns `RESULT` and `MORE`."""
    everybody = lists.predictions
    rows = everybody.assign(user=user_type.of_column(everybody.user_id)) if users is None else _asked(lists, users)
    more = [name for name in MORE if name in rows]
    rows = rows.assign(event=event_type.of_column(rows.event_id))
    return rows[[*RESULT, *more]].astype(dict.fromkeys(["source", *more], object)).reset_index(drop=True)


def comparison(scores: Sequence[PooledScore]) -> pd.DataFrame:
    """model, metric, value, ci_low, ci_high, users of the `scores` of a segment: ours, the baselines, the bounds."""
    models = in_order({score.model: score.value for score in scores if score.metric == "ndcg"})
    shown = [score for score in scores if score.metric in COMPARED_METRICS]
    shown.sort(key=lambda score: (models.index(score.model), COMPARED_METRICS.index(score.metric)))
    rows = [(score.model, score.metric, score.value, *(score.ci or (nan, nan)), score.users) for score in shown]
    return pd.DataFrame(rows, columns=["model", "metric", "value", "ci_low", "ci_high", "users"])


def _asked(lists: PublishedLists, users: pd.Series) -> pd.DataFrame:
    """The lists of `users`: rows of the published lists and a column user."""
    everybody, new = lists.predictions, lists.new_users.assign(source=NEW_USERS)
    known = pd.CategoricalDtype(everybody.user_id.cat.categories)
    asked = pd.DataFrame({"user_id": pd.Categorical(ids_as_text(users), dtype=known), "at": range(len(users))})
    own = asked.merge(everybody, on="user_id")
    others = asked[~asked["at"].isin(own["at"])].merge(new, how="cross")
    rows = pd.concat([part.astype({"event_id": object, "source": object}) for part in (own, others)], ignore_index=True)
    rows = rows.sort_values(["at", "rank"], ignore_index=True).astype({"event_id": "category"})
    return rows.assign(user=users.reset_index(drop=True).take(rows["at"].to_numpy()).to_numpy())
