"""NDCG@5 of the lists of a home's evaluated weeks, and of the lists that its models make with one part left out."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch

from benchmarks.peers import lambdarank
from benchmarks.quality import synthetic_bayes_oracle, synthetic_oracle
from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.data.attribute_files import read_attribute_tables
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.baselines import all_baselines, popular
from tgn_assets.ml.evaluation.metrics import per_user
from tgn_assets.ml.evaluation.scored_week import published_lists
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend.published import read_nodes
from tgn_assets.ml.recommend.top_k import diagnose
from tgn_assets.ml.schema import K
from tgn_assets.ml.sources.synthetic import World
from tgn_assets.ml.weeks import shift, week_key
from tgn_assets.state.artifact_store import ArtifactStore, load_embedding_history
from tgn_assets.state.warehouse import Warehouse

PUBLISHED = "ours, as published"
PEER = "candidate retrieval + LambdaRank on 8 weeks (a peer)"
ORACLE = "oracle that knows all but chance"
BAYES_ORACLE = "oracle that infers habits from the history"
TRANSFORMER_GATE = "gate"
FEATURE_SCORE = ("feature_mlp.4.weight", "feature_mlp.4.bias")
"""Parameters of a ranker's network: zeros in them silence the Transformer, or the scores from pair features."""

TRUTH_SQL = "SELECT DISTINCT user_id, event_id FROM raw_interactions WHERE week = $week ORDER BY ALL"
LISTS_SQL = """
    SELECT user_id, rank, event_id FROM weekly_top5_predictions
    WHERE week = $week::DATE - 7 AND user_id IN (SELECT user_id FROM raw_interactions WHERE week = $week)
"""
NEW_USERS_SQL = "SELECT event_id FROM new_user_top5_predictions WHERE week = $week::DATE - 7 ORDER BY rank"
PAST_SQL = "SELECT user_id, event_id, epoch(ts)::BIGINT AS ts FROM raw_interactions WHERE week <= $week ORDER BY ts"


@dataclass(frozen=True)
class EvaluatedWeek:
    """A week, and all that is needed to score lists for it. Lists hold positions in `codes`, -1 for none."""

    week: str
    published_week: str
    """The week before, whose lists were published for `week`."""
    history: InteractionHistory
    attributes: AttributeTables
    user_ids: pd.Index
    """All users known at the close of `published_week`."""
    event_ids: pd.Series
    """All events known then."""
    codes: pd.Index
    active: pd.Index
    """The n users active in `week`."""
    user: IntArray
    """[n] position of each of them in `user_ids`, -1 for a new user."""
    true_row: IntArray
    true_event: IntArray
    """The pairs to find: rows of the lists and codes of the events."""
    published: IntArray
    """[n, K] the published lists."""
    for_new_users: IntArray
    """[n, K] the list published for new users, in each row."""

    def ndcg(self, lists: IntArray) -> FloatArray:
        """[n] NDCG@K of `lists` [n, K]."""
        return per_user(lists, self.true_row, self.true_event).ndcg.to_numpy()

    def if_new(self, lists: IntArray, others: IntArray) -> IntArray:
        """`lists` in the rows of new users, `others` in the rest."""
        return np.where((self.user < 0)[:, None], lists, others)

    def ranked(self, ranker: RankerCheckpoint, embedding_history: EmbeddingHistory) -> IntArray:
        """The lists [n, K] of `ranker` before the baseline fallback."""
        known, lists = self.user >= 0, self.for_new_users.copy()
        embeddings = temporal_embeddings(ranker, self.history, embedding_history)
        made = diagnose(self.history, ranker, embedding_history, embeddings, attributes=self.attributes)
        lists[known] = made.lists(self.user[known])
        return lists


def read_week(warehouse: Warehouse, week: str, attribute_files: tuple[str | None, str | None]) -> EvaluatedWeek:
    """What the warehouse knows of `week` and of the lists that were published for it."""
    published_week = shift(week, -1)
    with warehouse.reader() as con:
        truth, rows, new_users = (
            con.execute(sql, {"week": week}).df() for sql in (TRUTH_SQL, LISTS_SQL, NEW_USERS_SQL)
        )
        users, events = read_nodes(con, published_week)
    ids, true_row = np.unique(truth.user_id.to_numpy(object), return_inverse=True)
    user_ids, active = pd.Index(users.id), pd.Index(ids)
    codes, unknown = pd.Index(events.id), pd.concat([rows.event_id, new_users.event_id, truth.event_id]).unique()
    codes = codes.append(pd.Index(unknown).difference(codes))
    rows = rows.assign(row=active.get_indexer(pd.Index(rows.user_id)), event=codes.get_indexer(pd.Index(rows.event_id)))
    new_user_list = codes.get_indexer(pd.Index(new_users.event_id))
    return EvaluatedWeek(
        week=week,
        published_week=published_week,
        history=warehouse.history(published_week),
        attributes=read_attribute_tables(*attribute_files, users, events, published_week),
        user_ids=user_ids,
        event_ids=events.id,
        codes=codes,
        active=active,
        user=user_ids.get_indexer(active),
        true_row=true_row,
        true_event=codes.get_indexer(pd.Index(truth.event_id)),
        published=published_lists(rows, new_user_list, users=len(active), k=K),
        for_new_users=published_lists(rows[:0], new_user_list, users=len(active), k=K),
    )


@dataclass(frozen=True)
class Comparison:
    """The lists of one home beside others. `world` adds the oracles of the synthetic world; `ablations` adds the peer
    and the lists with one part left out."""

    warehouse: Warehouse
    artifacts: ArtifactStore
    attribute_files: tuple[str | None, str | None] = (None, None)
    world: World | None = None
    ablations: bool = True
    retrained: dict[str, RankerCheckpoint] = field(default_factory=dict)
    """The newest ranker trained without a part, by part: the next week's starts warm from it, as the real one does."""

    def weeks(self) -> Iterator[tuple[pd.Index, dict[str, FloatArray]]]:
        """(the n active users, their NDCG@5 [n] by the name of the lists), for each evaluated week."""
        with self.warehouse.reader() as con:
            weeks = con.execute("SELECT DISTINCT strftime(week, '%Y-%m-%d') FROM eval_metrics ORDER BY 1").fetchall()
        for (week,) in weeks:
            evaluated = read_week(self.warehouse, week, self.attribute_files)
            yield evaluated.active, {name: evaluated.ndcg(lists) for name, lists in self.variants(evaluated).items()}
            print(f"{week}: done", file=sys.stderr, flush=True)

    def variants(self, week: EvaluatedWeek) -> dict[str, IntArray]:
        """All lists to compare, by name."""
        popular_now = popular(week.history, K)
        lists = {PUBLISHED: week.published, "new users by popularity": week.if_new(popular_now, week.published)}
        if self.world is not None:
            lists |= oracles(week, self.world)
        if self.ablations:
            lists |= self.without_each_part(week)
            with self.warehouse.reader() as con:
                past = con.execute(PAST_SQL, {"week": week.published_week}).df()
            lists[PEER] = week.if_new(popular_now, peer(week, past))
        return lists | {f"*{name}*": made for name, made in all_baselines(week.history, week.user).items()}

    def without_each_part(self, week: EvaluatedWeek) -> dict[str, IntArray]:
        """The lists before the baseline fallback, as they are and with one part left out."""
        ranker = self.artifacts.load("trained_ranker", week.published_week)
        limit = ranker.config.origins + ranker.config.sequence + 1
        vectors = load_embedding_history(self.artifacts, week.published_week, limit)
        no_links = {key: replace(known, link_users=None, link_events=None) for key, known in vectors.items()}

        def retrain(part: str, known: EmbeddingHistory, attributes: AttributeTables) -> IntArray:
            earlier = self.retrained.get(part) if ranker.warm_from else None
            self.retrained[part] = train_ranker(
                week.history,
                known,
                week.published_week,
                config=ranker.config,
                attributes=attributes,
                earlier=earlier,
            )
            return week.ranked(self.retrained[part], known)

        lists = {
            "without fallback": week.ranked(ranker, vectors),
            "without the graph (retrained)": retrain("graph", _without_nodes(vectors), week.attributes),
            "without the linear link model (retrained)": retrain("links", no_links, week.attributes),
            "without the Transformer": week.ranked(_zeroed(ranker, TRANSFORMER_GATE), vectors),
            "network only": week.ranked(replace(ranker, booster=""), vectors),
            "LightGBM only": week.ranked(_zeroed(ranker, TRANSFORMER_GATE, *FEATURE_SCORE), vectors),
        }
        if week.attributes.columns:
            lists["without attributes (retrained)"] = retrain("attributes", vectors, NO_ATTRIBUTES)
        return lists


def oracles(week: EvaluatedWeek, world: World) -> dict[str, IntArray]:
    """The lists of the two oracles of the synthetic world. New users keep our list: no ranker can know their interests
    before it has met them."""
    known, first = week.user >= 0, week_key(int(week.history.week_no.min()))
    users = week.active[known].tolist()
    chances = {
        ORACLE: synthetic_oracle.interaction_chances(week.week, users, world),
        BAYES_ORACLE: synthetic_bayes_oracle.interaction_chances(week.week, users, first, world),
    }
    lists = {}
    for name, (events, chance) in chances.items():
        likeliest = synthetic_oracle.likeliest(events, chance, week.event_ids)
        lists[name] = week.published.copy()
        lists[name][known] = week.codes.get_indexer(pd.Index(likeliest.ravel())).reshape(-1, K)
    return lists


def peer(week: EvaluatedWeek, past: pd.DataFrame) -> IntArray:
    """[n, K] the lists of `benchmarks.peers.lambdarank` from the rows `past`; of no meaning for new users."""
    user, event = week.user_ids.get_indexer(pd.Index(past.user_id)), week.codes.get_indexer(pd.Index(past.event_id))
    monday = int(np.datetime64(week.week, "s").astype(np.int64))
    lists, _ = lambdarank.recommend(user, event, past.ts.to_numpy(), monday)
    return lists[week.user]


def _without_nodes(embedding_history: EmbeddingHistory) -> dict[str, NodeEmbeddings]:
    """Embeddings that know no node."""
    return {
        key: NodeEmbeddings(key, known.user_idx[:0], known.users[:0], known.event_idx[:0], known.events[:0])
        for key, known in embedding_history.items()
    }


def _zeroed(ranker: RankerCheckpoint, *names: str) -> RankerCheckpoint:
    """The ranker with the parameters `names` of each network set to zero; KeyError if a network has no such one."""
    state = dict(ranker.state)
    for name in names:
        found = [key for key in state if key.endswith(f".{name}")]
        if not found:
            raise KeyError(name)
        state |= {key: torch.zeros_like(state[key]) for key in found}
    return replace(ranker, state=state)
