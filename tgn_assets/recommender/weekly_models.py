"""Weeks of the pipeline in memory: what the assets keep in a home is kept here as long as weeks are walked through."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pandas as pd

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.attribute_files import read_attribute_tables
from tgn_assets.ml.data.attributes import AttributeTables
from tgn_assets.ml.data.interactions import read_history
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.encoder.checkpoint import GNNCheckpoint, chained_embeddings
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.encoder.train import snapshot_weeks, train_gnn
from tgn_assets.ml.evaluation.evaluate import evaluate_week, user_groups
from tgn_assets.ml.evaluation.evaluation_input import read_evaluation_input
from tgn_assets.ml.evaluation.pooled import PooledScore, pooled_scores
from tgn_assets.ml.evaluation.scored_week import score_week
from tgn_assets.ml.graph.snapshots import Snapshot, read_snapshot
from tgn_assets.ml.parallel import device_name
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache
from tgn_assets.ml.recommend.publish import WeekPublication, publish_week
from tgn_assets.ml.recommend.published import PublicationRecord, PublishedLists, read_nodes, rules_of
from tgn_assets.ml.recommend.top_k import diagnose
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.schema import replace_rows
from tgn_assets.ml.weeks import shift
from tgn_assets.recommender.memory import Memory
from tgn_assets.recommender.notices import warn_about


@dataclass
class WeeklyModels:
    """Trains, publishes and scores weeks of the warehouse `con`, each as the assets of that week do, oldest first.

    A week is trained as `training` says, from the model of the week before, or from scratch if there is none in
    `encoders` and `rankers`. `device` is the one that `training.device` stands for. Attributes are those of `memory`.
    `folder` is a temporary one for what would fill the memory.
    """

    con: duckdb.DuckDBPyConnection
    training: Training
    memory: Memory
    device: str
    folder: Path
    progress: LogFn
    warn: LogFn
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    encoders: dict[str, GNNCheckpoint] = field(default_factory=dict)
    rankers: dict[str, RankerCheckpoint] = field(default_factory=dict)
    embeddings: dict[str, NodeEmbeddings] = field(default_factory=dict)

    def train(self, week: str) -> None:
        """What `trained_gnn`, `trained_ranker` and `temporal_embeddings` do at the close of `week`."""
        history, before = read_history(self.con, week), shift(week, -1)
        users, events = read_nodes(self.con, week)
        warm = self.encoders.get(before)
        self.encoders[week] = train_gnn(
            self._snapshots(week, warm),
            week,
            self.training.gnn,
            warm=warm,
            history=history,
            device=self.device,
            progress=self.progress,
            scratch=self.folder / "embeddings" / week,
        )
        self.rankers[week] = train_ranker(
            history,
            self._embeddings(week, self.training.ranker.embedding_weeks),
            week,
            config=self.training.ranker,
            device=self.device,
            progress=self.progress,
            rules=rules_of(self.training.policy, events),
            cache=TrainingSetCache(self.folder / "training_sets"),
            attributes=self._attributes(users, events, week),
            earlier=self.rankers.get(before),
        )
        self.embeddings[week] = temporal_embeddings(
            self.rankers[week],
            history,
            self._embeddings(week, self.training.ranker.sequence),
            device=self.device,
            progress=self.progress,
        )

    def needed_after(self, week: str) -> tuple[dict[str, GNNCheckpoint], dict[str, RankerCheckpoint]]:
        """The encoders and the ranker, by week, that the training of the week after `week` starts from."""
        encoders, weeks = dict[str, GNNCheckpoint](), 0
        link: str | None = week
        while link is not None and weeks < self.training.ranker.embedding_weeks:
            encoders[link] = self.encoders[link]
            weeks, link = weeks + len(encoders[link].embeddings), encoders[link].warm_from
        return encoders, {week: self.rankers[week]}

    def publish(self, week: str) -> WeekPublication:
        """What `weekly_top5_predictions` does: the lists of `week`, which was trained, also as rows of the warehouse.

        ValueError if the policy leaves no event to be listed, RuntimeError if a check of the lists failed.
        """
        users, events = read_nodes(self.con, week)
        if self.training.policy.leaves_none_of(events.id.to_list(), week):
            raise ValueError(
                f"none of the {len(events):,} events up to week {week} may be listed: look at allow, deny and "
                "event_expiry, whose ids are those of the log"
            )
        made = publish_week(
            week,
            PublicationRecord(week, self.training.policy),
            history=read_history(self.con, week),
            users=users,
            events=events,
            ranker=self.rankers[week],
            embeddings=self.embeddings[week],
            embedding_history=self._embeddings(week, self.training.ranker.sequence),
            attributes=self._attributes(users, events, week),
            device=self.device,
            progress=self.progress,
            words=self.training.words,
        )
        if made.failures:
            raise RuntimeError(f"the lists of week {week} cannot be used: {'; '.join(made.failures)}")
        for table, rows in made.tables.items():
            replace_rows(self.con, table, week, rows)
        return made

    def score(self, week: str, users: int) -> None:
        """What `eval_metrics` does: scores the lists that were published for `week`, with `users` drawn users."""
        cutoff = shift(week, -1)
        given = read_evaluation_input(self.con, week, k=self.training.policy.k, users=users)
        self.con.execute("RESET memory_limit")
        assert given is not None
        history, ranker = read_history(self.con, cutoff), self.rankers[cutoff]
        of_users, events = read_nodes(self.con, cutoff)
        rules, diagnostics = rules_of(self.training.policy, events), None
        if ranker.trained:
            diagnostics = diagnose(
                history,
                ranker,
                self._embeddings(cutoff, ranker.config.sequence),
                self.embeddings[cutoff],
                rules=rules,
                device=self.device,
                attributes=self._attributes(of_users, events, cutoff),
                progress=self.progress,
            )
        scored = score_week(week, given, history=history, diagnostics=diagnostics, rules=rules)
        replace_rows(self.con, "eval_metrics", week, evaluate_week(scored))
        replace_rows(self.con, "eval_user_groups", week, user_groups(scored))

    def _snapshots(self, week: str, warm: GNNCheckpoint | None) -> dict[str, Snapshot]:
        wanted = [key for key in snapshot_weeks(week, self.training.gnn, warm) if key >= self.memory.first_week]
        self.snapshots = {key: self.snapshots.get(key) or read_snapshot(self.con, key) for key in wanted}
        return self.snapshots

    def _embeddings(self, week: str, limit: int) -> dict[str, NodeEmbeddings]:
        return chained_embeddings(self.encoders.__getitem__, week, limit)

    def _attributes(self, users: pd.DataFrame, events: pd.DataFrame, week: str) -> AttributeTables:
        tables = read_attribute_tables(*self.memory.features, users, events, week)
        for note in tables.notes:
            self.warn(note)
        return tables


@dataclass(frozen=True)
class Training:
    """What weeks are trained and published with."""

    policy: Policy
    gnn: GNNConfig
    ranker: RankerConfig
    device: str
    words: Words

    def lists(
        self, con: duckdb.DuckDBPyConnection, memory: Memory, weeks: list[str], tell: LogFn, warn: LogFn
    ) -> PublishedLists:
        """The lists of the last of `weeks`, trained from the models in `memory`, or from scratch if there are none.

        `memory` keeps what the next week starts from.
        """
        models = self.models(con, memory, memory.folder, tell, warn)
        models.encoders |= memory.encoders
        models.rankers |= memory.rankers
        for week in weeks:
            models.train(week)
        made = models.publish(weeks[-1])
        warn_about(con, weeks[-1], made, warn)
        memory.encoders, memory.rankers = models.needed_after(weeks[-1])
        memory.scores.clear()
        return made.lists

    def scores(
        self, con: duckdb.DuckDBPyConnection, memory: Memory, weeks: list[str], *, users: int, tell: LogFn, warn: LogFn
    ) -> list[PooledScore]:
        """Those of lists for `weeks`, each made at the close of the week before, pooled; the first from scratch."""
        with TemporaryDirectory(prefix="tgn-recommender-") as folder:
            models = self.models(con, memory, Path(folder), tell, warn)
            for week in weeks:
                models.train(shift(week, -1))
                models.publish(shift(week, -1))
                models.score(week, users)
        return pooled_scores(con, weeks, compared=True)

    def models(
        self, con: duckdb.DuckDBPyConnection, memory: Memory, folder: Path, tell: LogFn, warn: LogFn
    ) -> WeeklyModels:
        """Weeks of the log in `memory`, whose tables `con` has. ValueError for a device that is not there."""
        try:
            device = device_name(self.device)
        except ValueError as error:
            raise ValueError(f"device={error}") from error
        return WeeklyModels(con, self, memory, device, folder, progress=tell, warn=warn)
