"""Weeks of a `Recommender`'s log are trained one from the other, and the last one gets its lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.evaluation.pooled import PooledScore, pooled_scores
from tgn_assets.ml.parallel import device_name
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.recommend.published import PublishedLists
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.weeks import shift
from tgn_assets.recommender.memory import Memory
from tgn_assets.recommender.notices import warn_about
from tgn_assets.recommender.weekly_models import WeeklyModels


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
        return WeeklyModels(
            con=con,
            first_week=memory.first_week,
            policy=self.policy,
            gnn=self.gnn,
            ranker=self.ranker,
            event_features=memory.features[0],
            user_features=memory.features[1],
            device=device,
            folder=folder,
            progress=tell,
            warn=warn,
            words=self.words,
        )
