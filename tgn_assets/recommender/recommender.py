"""`Recommender`: from a table of interactions to every user's list for the week to come, in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import nan
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from weakref import finalize

import duckdb
import pandas as pd
from tqdm import tqdm

from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.data.policy import Policy, Repeats
from tgn_assets.ml.evaluation.metric_names import BOUNDS, RANKING_METRICS, WITHOUT_FALLBACK
from tgn_assets.ml.evaluation.pooled import PooledScore, pooled_scores
from tgn_assets.ml.monitoring.alerts import FALLBACK_LIMIT
from tgn_assets.ml.monitoring.drift import drift, read_measures
from tgn_assets.ml.parallel import device_name
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.recommend.publish import PREDICTION_COLUMNS, WeekPublication
from tgn_assets.ml.recommend.published import PublishedLists
from tgn_assets.ml.schema import OURS, create_tables
from tgn_assets.ml.sources.extent import check_first_week, newest_closed_week, survey_source
from tgn_assets.ml.sources.spec import SourceSpec, last_ended_week
from tgn_assets.ml.weeks import shift, week_key, week_number, weeks_between
from tgn_assets.recommender.saved_lists import load_lists, save_lists
from tgn_assets.recommender.tables import (
    IdType,
    Log,
    as_series,
    ids_as_text,
    in_notebook_words,
    notebook_words,
    read_features,
    read_log,
)
from tgn_assets.recommender.weekly_models import WeeklyModels

NEW_USERS = "new_users"
"""The `source` of rows for a user without a list: they are the list for new users."""
RESULT = ["user", "event", "rank", "score", "source"]
MORE = [name for name in PREDICTION_COLUMNS if name not in ("week", "target_week", "user_id", "event_id", *RESULT)]
"""What else the published lists say of each place, such as its reason."""
METRICS = (*RANKING_METRICS, "ndcg_lift")
OPTIONS = ("k", "start_week", "end_week", "device")
"""What is saved as it is; progress and attributes are not."""


class Recommender:
    """Every user's list of `k` events for the week after the newest closed one, as the weekly pipeline makes it.

    It needs no home, no Dagster and no files: `fit` does with a table what `tgn refresh` does with a log in a fresh
    home, by the same functions, and gives the same lists. For lists every week use the pipeline: it goes on from last
    week's model, which takes a fraction of the time.

    `repeats` is `learned` or `exclude` (nobody is shown an event again); `allow` are the only events that may be
    recommended (None: all), `deny` those that never are. `event_features` and `user_features` are tables of attributes
    with the column `event_id` or `user_id`, or the log's name of it; with a column `valid_from`, a row counts from that
    time on. `start_week` and `end_week` are the Mondays of the first and the last week: without them, weeks go from the
    log's first row to its newest closed week. `device` is `auto`, `cpu`, `cuda`, ... `gnn` and `ranker` hold every
    tuned number; `seed` replaces theirs. `progress` is True (one line on stderr), False, or a function that gets lines.

    ValueError for an option that cannot be used.

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
        event_features: Any = None,
        user_features: Any = None,
        start_week: str | None = None,
        end_week: str | None = None,
        device: str = "auto",
        seed: int | None = None,
        gnn: GNNConfig | None = None,
        ranker: RankerConfig | None = None,
        progress: bool | Callable[[str], None] = True,
    ) -> None:
        if not 1 <= k <= 100:
            raise ValueError(f"k is {k}; a list has 1 to 100 events")
        if repeats not in ("learned", "exclude"):
            raise ValueError(f"repeats is {repeats!r}; it may be 'learned' or 'exclude'")
        for name, ids in {"allow": allow, "deny": deny}.items():
            if isinstance(ids, str):
                raise ValueError(f"{name} is {ids!r}; give a list of ids, [{ids!r}]")
        allowed = None if allow is None else _texts(allow)
        if allowed is not None and not allowed:
            raise ValueError("allow holds no event id; leave it out where every event may be recommended")
        self._policy = Policy(k, repeats, allowed, _texts(deny))
        self._features = {"event": event_features, "user": user_features}
        self.start_week, self.end_week = (_monday(week) for week in (start_week, end_week))
        if self.start_week and self.end_week and self.end_week < self.start_week:
            raise ValueError(f"end_week={self.end_week} comes before start_week={self.start_week}")
        self.device = device
        seeds = {} if seed is None else {"seed": seed}
        self.gnn = GNNConfig.model_validate((gnn or GNNConfig()).model_dump() | seeds)
        self.ranker = RankerConfig.model_validate((ranker or RankerConfig()).model_dump() | seeds)
        self.progress = progress
        self.week: str | None = None
        self._lists: PublishedLists | None = None
        self._user_type = self._event_type = IdType()
        self._warehouse: _Warehouse | None = None
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
        with self._log().open() as con:
            return con.execute(query).df()

    def fit(
        self, interactions: Any, *, user: str | None = None, event: str | None = None, time: str | None = None
    ) -> Recommender:
        """Trains on `interactions` up to the newest closed week, from scratch, and makes the lists for the week after.

        `interactions` has a row per interaction: a data frame of pandas or Polars, or an Arrow table. `user`, `event`
        and `time` name its columns; without them, columns are found that are called as in RecTools (user_id, item_id,
        datetime) or Microsoft's recommenders (userID, itemID, timestamp). Ids are text or numbers; times are datetimes
        (UTC without a zone), unix seconds or milliseconds, or ISO text. Other columns are not read.

        A week is closed when the log has a row on its Sunday or later, and the calendar agrees; `end_week` is closed as
        soon as it has a row. Later rows are left out. What is odd about the log, and a log that is too young to learn
        from, so that baselines make the lists, is warned about.

        Returns the recommender itself. ValueError says what is wrong with the table, or that no week has closed yet;
        TrainingError that training diverged. Otherwise the lists of an earlier `fit` stay.
        """
        if self._not_saved:
            raise ValueError(f"{' and '.join(self._not_saved)} are not saved: make a new Recommender with them")
        log = read_log(interactions, user, event, time)
        warehouse = _Warehouse(
            read_features(self._features["event"], "event", log.event),
            read_features(self._features["user"], "user", log.user),
        )
        with _warned() as warn, notebook_words(), self._progress() as tell, warehouse.open() as con:
            create_tables(con)
            warehouse.first_week, newest = self._ingest(con, log, tell, warn)
            with self._models(con, warehouse, tell, warn) as models:
                models.train(newest)
                made = models.publish(newest)
            _warn_about(con, newest, made, warn)
        self.week, self._lists, self._warehouse = newest, made.lists, warehouse
        self._user_type, self._event_type = log.user_type, log.event_type
        return self

    def recommend(self, users: Iterable[Any] | None = None) -> pd.DataFrame:
        """user, event, rank (from 1), score, source, and what else is published of each place, in ascending rank.

        Of all users, or of `users`, in that order and as often as they are asked for. A user whom the log does not know
        gets the list for new users: its `source` is `new_users`. Otherwise `source` is `tgn_assets`, or the baseline
        that did better on the newest closed week. `score` is the probability that the user interacts with the event in
        the target week. Ids are of the types that they came in. ValueError before `fit`.
        """
        if self._lists is None:
            raise ValueError("there are no lists yet: fit a log first")
        lists = self._lists.predictions
        if users is None:
            rows = lists.assign(user=self._user_type.of_column(lists.user_id))
        else:
            if isinstance(users, str) or not isinstance(users, Iterable):
                raise ValueError(f"users is {users!r}; give a list of ids, [{users!r}]")
            rows = self._asked(users if isinstance(users, pd.Series) else as_series(users))
        more = [name for name in MORE if name in rows]
        rows = rows.assign(event=self._event_type.of_column(rows.event_id))
        return rows[[*RESULT, *more]].astype(dict.fromkeys(["source", *more], object)).reset_index(drop=True)

    def evaluate(self, weeks: int = 4, *, segment: str = "all", users: int = 50_000) -> pd.DataFrame:
        """How good the lists of the last `weeks` closed weeks would have been, beside the baselines.

        Each of them was made at the close of the week before, by a model that knew nothing later: the first one is
        trained from scratch, each later one goes on from the one before, as the pipeline does. The numbers are those of
        `tgn backtest --weeks N` in a fresh home (which also makes the lists for the week to come).

        Returns model, metric, value, ci_low, ci_high (95% interval) and users, a row per model and metric, over all
        weeks: ours (`tgn_assets`), the ranker's without any list of a baseline (`without_fallback`), the baselines from
        the best to the worst, and what knows the truth (`candidates`, `ceiling`). Metrics are ndcg, precision, recall,
        map, hit_rate and mrr at `k`; `ndcg_lift`, in the rows of a baseline, is our NDCG minus the baseline's.
        `segment` is all active users, those `seen` before, with a `repeat`, who `explore`, or `new` ones. `users` of a
        week's active users are drawn to be compared (0: all of them).

        ValueError before `fit`, after `load`, or if there are fewer than `weeks` + 1 closed weeks.
        """
        warehouse = self._log()
        assert self.week is not None
        closed = len(weeks_between(warehouse.first_week, self.week))
        if not 1 <= weeks < closed:
            raise ValueError(f"scoring {weeks} weeks takes {max(weeks, 1) + 1} closed ones; the log has {closed}")
        targets = weeks_between(shift(self.week, 1 - weeks), self.week)
        with _warned() as warn, notebook_words(), self._progress() as tell, warehouse.open() as con:
            with self._models(con, warehouse, tell, warn) as models:
                for week in targets:
                    models.train(shift(week, -1))
                    models.publish(shift(week, -1))
                    models.score(week, users)
            scores = pooled_scores(con, targets, compared=True)
        return _table([score for score in scores if score.segment == segment])

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

    def _log(self) -> _Warehouse:
        if self._warehouse is None:
            raise ValueError("there is no log: fit one first (a saved recommender does not hold its log)")
        return self._warehouse

    def _ingest(self, con: duckdb.DuckDBPyConnection, log: Log, tell: LogFn, warn: LogFn) -> tuple[str, str]:
        """Validates the rows of `log` and stores them in the warehouse `con`; returns the first and the newest week."""
        spec = SourceSpec("interactions", log.user, log.event, log.time, table=log.rows)
        extent, digests = survey_source(spec)
        if self.start_week is None:
            check_first_week(spec, digests or ())
        first = self.start_week or extent.first_week
        newest = newest_closed_week(extent, first_week=first, end_week=self.end_week, last_ended=last_ended_week())
        if newest is None:
            until = f" up to end_week={self.end_week}" if self.end_week else "; of a log that has ended, set end_week"
            raise ValueError(f"no week has closed yet: there is no row on the Sunday of week {first}, or later{until}")
        load_weeks(
            con,
            spec,
            weeks_between(first, newest),
            start_week=first,
            end_week=self.end_week,
            progress=tell,
            warn=warn,
        )
        return first, newest

    @contextmanager
    def _models(
        self, con: duckdb.DuckDBPyConnection, warehouse: _Warehouse, tell: LogFn, warn: LogFn
    ) -> Iterator[WeeklyModels]:
        try:
            device = device_name(self.device)
        except ValueError as error:
            raise ValueError(f"device={error}") from error
        with TemporaryDirectory(prefix="tgn-recommender-") as folder:
            yield WeeklyModels(
                con=con,
                first_week=warehouse.first_week,
                policy=self._policy,
                gnn=self.gnn,
                ranker=self.ranker,
                event_features=warehouse.event_features,
                user_features=warehouse.user_features,
                device=device,
                folder=Path(folder),
                progress=tell,
                warn=warn,
            )

    @contextmanager
    def _progress(self) -> Iterator[LogFn]:
        """What lines about progress are given to."""
        if callable(self.progress):
            yield self.progress
        elif not self.progress:
            yield no_log
        else:
            with tqdm(bar_format="{desc}", file=sys.stderr, leave=False, dynamic_ncols=True) as line:
                yield line.set_description_str

    def _asked(self, users: pd.Series) -> pd.DataFrame:
        """The lists of `users` one after the other: rows of the published lists and a column user."""
        assert self._lists is not None
        lists, new = self._lists.predictions, self._lists.new_users.assign(source=NEW_USERS)
        known = pd.CategoricalDtype(lists.user_id.cat.categories)
        asked = pd.DataFrame({"user_id": pd.Categorical(ids_as_text(users), dtype=known), "at": range(len(users))})
        own = asked.merge(lists, on="user_id")
        others = asked[~asked["at"].isin(own["at"])].merge(new, how="cross")
        rows = pd.concat(
            [part.astype({"event_id": object, "source": object}) for part in (own, others)], ignore_index=True
        )
        rows = rows.sort_values(["at", "rank"], ignore_index=True).astype({"event_id": "category"})
        return rows.assign(user=users.reset_index(drop=True).take(rows["at"].to_numpy()).to_numpy())


class _Warehouse:
    """The validated log of a `fit`, its first week and its attributes, in a temporary file: DuckDB wants no connection
    left open when a process ends."""

    def __init__(self, event_features: pd.DataFrame | None, user_features: pd.DataFrame | None) -> None:
        self.event_features, self.user_features = event_features, user_features
        self.first_week = ""
        folder = mkdtemp(prefix="tgn-recommender-")
        self._path = Path(folder) / "warehouse.duckdb"
        self._removed = finalize(self, rmtree, folder, ignore_errors=True)

    @contextmanager
    def open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection."""
        with connect(self._path) as con:
            yield con


def _table(scores: Sequence[PooledScore]) -> pd.DataFrame:
    """What `evaluate` returns of the `scores` of a segment."""
    ndcg = {score.model: score.value for score in scores if score.metric == "ndcg"}

    def place(score: PooledScore) -> tuple[Any, ...]:
        model = score.model
        first = model in BOUNDS, model != OURS, model != WITHOUT_FALLBACK
        return *first, -ndcg[model], model, METRICS.index(score.metric)

    shown = [score for score in scores if score.metric in METRICS]
    rows = [
        (score.model, score.metric, score.value, *(score.ci or (nan, nan)), score.users)
        for score in sorted(shown, key=place)
    ]
    return pd.DataFrame(rows, columns=["model", "metric", "value", "ci_low", "ci_high", "users"])


def _warn_about(con: duckdb.DuckDBPyConnection, week: str, made: WeekPublication, warn: LogFn) -> None:
    """Warns of what the checks of the pipeline warn of: a week unlike those before, and lists by baselines."""
    if drifted := [str(measure) for measure in drift(read_measures(con, week)) if measure.drifted]:
        warn(f"week {week} is unlike the weeks before: {'; '.join(drifted)}; is the log complete?")
    lists = made.lists_by_source
    if sum(lists.values()) and 1 - lists.get(OURS, 0) / sum(lists.values()) > FALLBACK_LIMIT:
        made_by = ", ".join(f"{source} {number:,}" for source, number in lists.items())
        warn(
            f"baselines made most lists ({made_by}): they did better than the ranker on week {week}, or the log has "
            "fewer than the three weeks that the ranker is trained on"
        )


@contextmanager
def _warned() -> Iterator[LogFn]:
    """Warns, where the method that opens the context was called, of what it tells, once each and at its end."""
    told = dict[str, None]()
    try:
        yield told.setdefault
    finally:
        for text in told:
            warnings.warn(in_notebook_words(text), stacklevel=4)


def _texts(ids: Iterable[Any]) -> frozenset[str]:
    return frozenset(text for text in ids_as_text(pd.Series(list(ids), dtype=object)) if text is not None)


def _monday(week: str | None) -> str | None:
    return None if week is None else week_key(week_number(week))
