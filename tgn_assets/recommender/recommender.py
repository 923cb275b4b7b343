"""`Recommender`: from a table of interactions to every user's list for the week to come, in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tgn_assets.ml.config import GNNConfig, PresetName, RankerConfig
from tgn_assets.ml.data.policy import Policy, Repeats
from tgn_assets.ml.recommend.published import PublishedLists
from tgn_assets.ml.recommend.words import NOUNS
from tgn_assets.ml.schema import create_tables
from tgn_assets.ml.weeks import shift, weeks_between
from tgn_assets.recommender.answers import comparison, listed
from tgn_assets.recommender.memory import Memory
from tgn_assets.recommender.notices import shown_progress, warned
from tgn_assets.recommender.options import config_of, monday, policy_of, words_of
from tgn_assets.recommender.saved_lists import load_lists, save_lists
from tgn_assets.recommender.tables import IdType, as_series, notebook_words, read_features, read_log
from tgn_assets.recommender.weekly_models import Training

OPTIONS = ("k", "start_week", "end_week", "device", "nouns")
"""What is saved as it is; progress and attributes are not."""


class Recommender:
    """Every user's list of `k` events for the week after the newest closed one, as the weekly pipeline makes it.

    It needs no home, no Dagster and no files: `fit` does with a table what `tgn refresh` does with a log in a fresh
    home, by the same functions, and gives the same lists; `update` does what `tgn refresh` does once the log has grown.

    `repeats` is `learned` or `exclude` (nobody is shown an event again); `allow` are the only events that may be
    recommended (None: all), `deny` those that never are. `event_expiry` says from when on an event is not recommended:
    a mapping of ids to times, or a table with the columns `event_id` and `expires_at`. All lists together have
    `min_distinct_events` different events. Who had nothing in the newest week and `max_silent_weeks` before it has no
    list of their own. `nouns` are the words of reasons, such as `customer,product,bought`.

    `event_features` and `user_features` are tables of attributes with the column `event_id` or `user_id`, or the log's
    name of it; with a column `valid_from`, a row counts from that time on. `start_week` and `end_week` are the Mondays
    of the first and the last week: without them, weeks go from the log's first row to its newest closed week. `device`
    is `auto`, `cpu`, `cuda`, ... `preset` is what a week may cost: `fast`, `standard` or `best`. `gnn` and `ranker`
    hold the tuned numbers, and a field there that is not at its default wins over the preset; `seed` replaces theirs.
    `progress` is True (one line on stderr), False, or a function that gets lines.

    ValueError for an option that cannot be used.

    >>> import warnings
    >>> import pandas as pd
    >>> log = pd.DataFrame(
    ...     {
    ...         "user_id": [7, 7, 8, 8, 9],
    ...         "item_id": ["tea", "jam", "tea", "rye", "tea"],
    ...         "datetime": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-06", "2024-01-07"]),
    ...     }
    ... )
    >>> model = Recommender(k=2, progress=False)
    >>> with warnings.catch_warnings(action="ignore"):  # a week is too little to learn from: a baseline makes the lists
    ...     _ = model.fit(log)
    >>> model
    Recommender(k=2): lists for 3 users for the week of 2024-01-08
    >>> model.recommend([7, 10])[["user", "event", "rank", "source"]]
       user event  rank     source
    0     7   tea     1     repeat
    1     7   jam     2     repeat
    2    10   tea     1  new_users
    3    10   jam     2  new_users
    """

    def __init__(
        self,
        k: int = 5,
        *,
        repeats: Repeats = "learned",
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] = (),
        event_expiry: Mapping[Any, datetime] | Any = None,
        min_distinct_events: int = 0,
        max_silent_weeks: int | None = None,
        nouns: str = NOUNS,
        event_features: Any = None,
        user_features: Any = None,
        start_week: str | None = None,
        end_week: str | None = None,
        device: str = "auto",
        preset: PresetName = "standard",
        seed: int | None = None,
        gnn: GNNConfig | None = None,
        ranker: RankerConfig | None = None,
        progress: bool | Callable[[str], None] = True,
    ) -> None:
        self._policy = policy_of(
            k,
            repeats=repeats,
            allow=allow,
            deny=deny,
            event_expiry=event_expiry,
            min_distinct_events=min_distinct_events,
            max_silent_weeks=max_silent_weeks,
        )
        self.nouns, self._words = nouns, words_of(nouns)
        self._features = {"event": event_features, "user": user_features}
        self.start_week, self.end_week = monday(start_week), monday(end_week)
        if self.start_week and self.end_week and self.end_week < self.start_week:
            raise ValueError(f"end_week={self.end_week} comes before start_week={self.start_week}")
        self.device = device
        self.gnn = config_of(gnn or GNNConfig(), preset, seed)
        self.ranker = config_of(ranker or RankerConfig(), preset, seed)
        self.progress = progress
        self.week: str | None = None
        self._lists: PublishedLists | None = None
        self._user_type = self._event_type = IdType()
        self._memory: Memory | None = None
        self._not_saved: list[str] = []

    def __repr__(self) -> str:
        name = f"Recommender(k={self.k})"
        if self._lists is None:
            return f"{name}: not fitted"
        return (
            f"{name}: lists for {self._lists.predictions.user_id.nunique():,} users for the week of {self.target_week}"
        )

    @property
    def k(self) -> int:
        """Events in a list."""
        return self._policy.k

    @property
    def target_week(self) -> str | None:
        """Monday of the week that the lists are for: the one after `week`, the newest closed one; None before `fit`."""
        return shift(self.week, 1) if self.week else None

    @property
    def rejected(self) -> pd.DataFrame:
        """reason, user, event, time of the log's rows that cannot be used, as text. ValueError without a log."""
        query = "SELECT reason, user_id AS user, event_id AS event, ts AS time FROM rejected_interactions ORDER BY ALL"
        with self._remembered().open() as con:
            return con.execute(query).df()

    def fit(
        self, interactions: Any, *, user: str | None = None, event: str | None = None, time: str | None = None
    ) -> Recommender:
        """Trains on `interactions` up to the newest closed week, from scratch, and makes the lists for the week after.

        `interactions` has a row per interaction: a data frame of pandas or Polars, an Arrow table, or anything else
        with an Arrow stream. `user`, `event` and `time` name its columns; without them, columns are found that are
        called as in RecTools (user_id, item_id, datetime) or Microsoft's recommenders (userID, itemID, timestamp). Ids
        are text or numbers; times are datetimes (UTC without a zone), unix seconds or milliseconds, or ISO text. Other
        columns are not read.

        A week is closed when the log has a row on its Sunday or later, and the calendar agrees; `end_week` is closed as
        soon as it has a row. Later rows are left out. What is odd about the log, and a log that is too young to learn
        from, so that baselines make the lists, is warned about.

        Returns the recommender itself. ValueError says what is wrong with the table, or that no week has closed yet;
        TrainingError that training diverged. Otherwise the lists of an earlier `fit` stay.
        """
        if self._not_saved:
            raise ValueError(f"{' and '.join(self._not_saved)} are not saved: make a new Recommender with them")
        log = read_log(interactions, user, event, time)
        memory = Memory(log)
        memory.features = self._attributes(memory)
        with warned() as warn, notebook_words(), shown_progress(self.progress) as tell, memory.open() as con:
            create_tables(con)
            weeks = {"start_week": self.start_week, "end_week": self.end_week}
            newest = memory.ingest(con, log, **weeks, progress=tell, warn=warn)
            lists = self._training().lists(con, memory, [newest], tell, warn)
        self._publish(newest, lists, memory)
        return self

    def update(
        self,
        interactions: Any,
        *,
        user: str | None = None,
        event: str | None = None,
        time: str | None = None,
        event_features: Any = None,
        user_features: Any = None,
    ) -> Recommender:
        """Goes on from the models of the newest week with the weeks that have closed since: no training from scratch.

        `interactions` is the log as it is now, or its rows from `target_week` on. Rows of weeks that were learned from
        are not read again; if they have changed, that is warned about. Columns are called as they were, unless `user`,
        `event` and `time` name them. `event_features` and `user_features` replace those tables (None: they stay).

        The lists are those that `tgn refresh` makes in a home that has refreshed the week before. Returns the
        recommender itself. ValueError before `fit`, after `load`, if no week has closed since, if rows of an unfinished
        week are missing that the last call had, or as in `fit`. Then the lists stay.
        """
        memory = self._remembered()
        assert self.week is not None
        names = {"user": user, "event": event, "time": time}
        log = read_log(interactions, **{role: name or memory.columns[role] for role, name in names.items()})
        types = memory.user_type.joined(log.user_type, log.user), memory.event_type.joined(log.event_type, log.event)
        for node, table in {"event": event_features, "user": user_features}.items():
            if table is not None:
                self._features[node] = table
        memory.features = self._attributes(memory)
        with warned() as warn, notebook_words(), shown_progress(self.progress) as tell, memory.open() as con:
            weeks = memory.ingest_more(con, log, self.week, end_week=self.end_week, progress=tell, warn=warn)
            lists = self._training().lists(con, memory, weeks, tell, warn)
        memory.user_type, memory.event_type = types
        self._publish(weeks[-1], lists, memory)
        return self

    def recommend(self, users: Iterable[Any] | None = None) -> pd.DataFrame:
        """user, event, rank (from 1), score, source, and what else is published of each event, in ascending rank.

        Of all users, or of `users`, in that order and as often as they are asked for. A user whom the log does not
        know, or who was silent for too long, gets the list for new users: its `source` is `new_users`. Otherwise
        `source` is `tgn_assets`, or the baseline that did better in the last closed weeks. `score` is the probability
        that the user interacts with the event in the target week. Ids are of the types that they came in. ValueError
        before `fit`.
        """
        if self._lists is None:
            raise ValueError("there are no lists yet: fit a log first")
        if users is None:
            return listed(self._lists, None, self._user_type, self._event_type)
        if isinstance(users, str) or not isinstance(users, Iterable):
            raise ValueError(f"users is {users!r}; give a list of ids, [{users!r}]")
        asked = users if isinstance(users, pd.Series) else as_series(users)
        return listed(self._lists, asked, self._user_type, self._event_type)

    def evaluate(self, weeks: int = 4, *, segment: str = "all", users: int = 50_000) -> pd.DataFrame:
        """How good the lists of the last `weeks` closed weeks would have been, beside the baselines.

        Each of them was made at the close of the week before, by a model that knew nothing later: the first one is
        trained from scratch, each later one goes on from the one before, as the pipeline does. The numbers are those of
        `tgn backtest --weeks N` in a fresh home (which also makes the lists for the week to come).

        Returns model, metric, value, ci_low, ci_high (95% interval) and users, a row per model and metric, over all
        weeks: ours (`tgn_assets`), the ranker's without any list of a baseline (`without_fallback`), the baselines from
        the best to the worst, and what knows the truth (`candidates`, `ceiling`). Metrics are ndcg, precision, recall,
        map, hit_rate and mrr at `k`; `ndcg_lift`, in the rows of a baseline, is our NDCG minus the baseline's.
        Other segments of weeks that were evaluated need no training.
        `segment` is all active users, those `seen` before, with a `repeat`, who `explore`, or `new` ones. `users` of a
        week's active users are drawn to be compared (0: all of them).

        ValueError before `fit`, after `load`, or if there are fewer than `weeks` + 1 closed weeks.
        """
        memory = self._remembered()
        assert self.week is not None
        closed = len(weeks_between(memory.first_week, self.week))
        if not 1 <= weeks < closed:
            raise ValueError(f"scoring {weeks} weeks takes {max(weeks, 1) + 1} closed ones; the log has {closed}")
        targets = weeks_between(shift(self.week, 1 - weeks), self.week)
        if (weeks, users) not in memory.scores:
            with warned() as warn, notebook_words(), shown_progress(self.progress) as tell, memory.open() as con:
                memory.scores[weeks, users] = self._training().scores(
                    con, memory, targets, users=users, tell=tell, warn=warn
                )
        return comparison([score for score in memory.scores[weeks, users] if score.segment == segment])

    def save(self, path: str | Path) -> None:
        """Writes lists and options to the folder `path`, replacing a recommender there; neither the log nor the models.

        The folder holds safetensors and JSON. ValueError before `fit`; FileExistsError if `path` is something else.
        """
        if self._lists is None or self.week is None:
            raise ValueError("there are no lists yet: fit a log first")
        options = {name: getattr(self, name) for name in OPTIONS}
        options |= {name: getattr(self, name).model_dump() for name in ("gnn", "ranker")}
        meta = {
            "week": self.week,
            "policy": self._policy.to_json(),
            "options": options,
            "features": [f"{node}_features" for node, table in self._features.items() if table is not None],
            "ids": {"user": self._user_type.dtype, "event": self._event_type.dtype},
        }
        save_lists(Path(path), self._lists, meta)

    @classmethod
    def load(cls, path: str | Path) -> Recommender:
        """What `save` wrote to `path`: it recommends as the saved one did, and can be fitted anew.

        Nothing in the folder is executed. ArtifactError if it is no recommender, damaged or of another version.
        """
        lists, meta = load_lists(Path(path))
        options = meta["options"] | {"gnn": GNNConfig(**meta["options"]["gnn"])}
        made = cls(**options | {"ranker": RankerConfig(**options["ranker"])})
        made._policy, made._lists, made.week = Policy.from_json(meta["policy"]), lists, meta["week"]
        made._user_type, made._event_type = (IdType(meta["ids"][kind]) for kind in ("user", "event"))
        made._not_saved = meta["features"]
        return made

    def _remembered(self) -> Memory:
        if self._memory is None:
            raise ValueError("there is no log: fit one first (a saved recommender does not hold its log)")
        return self._memory

    def _attributes(self, memory: Memory) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
        event = read_features(self._features["event"], "event", memory.columns["event"])
        return event, read_features(self._features["user"], "user", memory.columns["user"])

    def _training(self) -> Training:
        return Training(self._policy, self.gnn, self.ranker, self.device, self._words)

    def _publish(self, week: str, lists: PublishedLists, memory: Memory) -> None:
        self.week, self._lists, self._memory = week, lists, memory
        self._user_type, self._event_type = memory.user_type, memory.event_type
