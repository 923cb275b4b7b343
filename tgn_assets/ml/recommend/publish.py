"""A week's lists, from the trained model to the rows that the warehouse is given: made, named by ids and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.parallel import THREADS, Workers
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend.publish_checks import CheckInput, CheckResult, publish_checks
from tgn_assets.ml.recommend.published import PublicationRecord, PublishedLists, rules_of
from tgn_assets.ml.recommend.reasons import ReasonIds
from tgn_assets.ml.recommend.top_k import Recommendations, recommend
from tgn_assets.ml.recommend.words import WORDS, Words
from tgn_assets.ml.schema import LISTS, TABLES
from tgn_assets.ml.weeks import shift, week_key

PREDICTION_COLUMNS = TABLES["weekly_top5_predictions"].names


@dataclass(frozen=True)
class WeekPublication:
    """The lists of a week and the outcome of their checks: `tables` are to replace the week's rows if all passed."""

    lists: PublishedLists
    checks: list[CheckResult]
    record: pd.DataFrame  # the row of `published_weeks`
    left_out: int  # known users who get no list, as they were silent for too long

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Table -> the rows of the week."""
        lists = zip(LISTS, (self.lists.predictions, self.lists.new_users), strict=True)
        return {**dict(lists), "published_weeks": self.record}

    @property
    def failures(self) -> list[str]:
        """What is wrong, one text for each check that did not pass."""
        return [f"{check.check}: {check.reason}" for check in self.checks if not check.passed]

    @property
    def distinct_events(self) -> int:
        """How many different events the users' lists hold together."""
        return int(self.record.distinct_events.item())

    @property
    def lists_by_source(self) -> dict[str, int]:
        """How many users' lists each source made."""
        first = self.lists.predictions[self.lists.predictions["rank"] == 1]
        return {str(source): int(lists) for source, lists in first.groupby("source", observed=True).size().items()}

    @property
    def rows_by_reason(self) -> dict[str, int]:
        """How many rows of the users' lists have a reason of each kind."""
        rows = self.lists.predictions.groupby("reason_kind", observed=True).size()
        return {str(kind): int(number) for kind, number in rows.items()}


def publish_week(
    week: str,
    record: PublicationRecord,
    *,
    history: InteractionHistory,
    users: pd.DataFrame,
    events: pd.DataFrame,
    ranker: RankerCheckpoint,
    embeddings: NodeEmbeddings,
    embedding_history: EmbeddingHistory,
    attributes: AttributeTables = NO_ATTRIBUTES,
    device: str = "cpu",
    workers: Workers = THREADS,
    progress: LogFn = no_log,
    words: Words = WORDS,
) -> WeekPublication:
    """The lists that are made at the close of `week` for the week after it, under `record`, and their checks.

    `users` and `events` (`read_nodes`) name the nodes of `history`. `ranker` is that of `record.model_week`,
    `embeddings` are what it made of the nodes of `week`, from `embedding_history`. Reasons are written in `words`.
    Nothing else is written: the caller replaces the tables if no check failed. Raises what `recommend` raises.
    """
    rules = rules_of(record.policy, events)
    recommendations = recommend(
        history,
        ranker,
        embedding_history,
        embeddings,
        rules=rules,
        device=device,
        workers=workers,
        progress=progress,
        attributes=attributes,
    )
    lists = named_lists(recommendations, week, history=history, users=users, events=events, words=words)
    input_weeks = {
        "trained_ranker": ranker.week,
        "temporal_embeddings": embeddings.week,
        "trained_gnn": max(embedding_history),
        "interactions": week_key(int(history.week_no.max(initial=0))),
    }
    checks = publish_checks(CheckInput(lists, users, events, week, input_weeks, history, record.policy, rules))
    left_out = history.num_users - int(rules.have_lists(history).sum())
    return WeekPublication(lists, checks, record.row(lists, week), left_out)


def named_lists(
    recommendations: Recommendations,
    week: str,
    *,
    history: InteractionHistory,
    users: pd.DataFrame,
    events: pd.DataFrame,
    words: Words = WORDS,
) -> PublishedLists:
    """Recommendations made at the close of `week` as rows for the week after it: ids as they came in, a row per rank.

    `users` and `events` (`read_nodes`) name the nodes of `history`. A rank without an event, because the catalogue
    has too few, becomes no row. Text is categorical: there are many rows, of far fewer users and events.
    """
    user_ids, event_ids = _ids(users, history.user_idx), _ids(events, history.event_idx)
    texts = recommendations.reasons.texts(event_ids.categories.to_list(), words)
    sources = pd.CategoricalDtype(sorted({*recommendations.source, recommendations.new_user_source}))

    def rows(events: IntArray, scores: FloatArray, rank: IntArray, source: Any, reason: ReasonIds) -> dict[str, Any]:
        text = {"week": week, "target_week": shift(week, 1)}
        repeated = {
            name: pd.Categorical.from_codes(np.zeros(len(rank), np.int8), pd.Index([text[name]])) for name in text
        }
        event = pd.Categorical.from_codes(events, dtype=event_ids)
        listed = {"rank": rank + 1, "event_id": event, "score": scores, "source": source}
        return {**repeated, **listed, **{name: text.take(reason, allow_fill=True) for name, text in texts.items()}}

    row, rank = np.nonzero(recommendations.events >= 0)
    source = pd.Categorical(recommendations.source, dtype=sources)[row]
    made, reason = recommendations, recommendations.reason[row, rank]
    predictions = rows(made.events[row, rank], made.scores[row, rank], rank, source, reason)
    user = pd.Categorical.from_codes(recommendations.users[row], dtype=user_ids)
    listed = np.flatnonzero(recommendations.new_user_events >= 0)
    source = pd.Categorical([recommendations.new_user_source] * len(listed), dtype=sources)
    scores, reason = made.new_user_scores[listed], made.new_user_reason[listed]
    return PublishedLists(
        pd.DataFrame(predictions | {"user_id": user}, copy=False)[PREDICTION_COLUMNS],
        pd.DataFrame(rows(made.new_user_events[listed], scores, listed, source, reason)),
    )


def most_recommended(predictions: pd.DataFrame, events: int = 10) -> pd.DataFrame:
    """event_id, lists: the events that stand on the most users' lists, and on how many; ties by id."""
    lists = predictions.groupby("event_id", observed=True).size().rename("lists").reset_index()
    lists = lists.astype({"event_id": object})  # ties by id, whatever the order of the categories
    return lists.sort_values(["lists", "event_id"], ascending=[False, True], ignore_index=True).head(events)


def _ids(known: pd.DataFrame, idx: IntArray) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(pd.Index(known.set_index("idx").id.reindex(idx).to_numpy(dtype=object)))
