"""Results read from the warehouse, as tables and lines for the terminal and as numbers for `--json`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from tgn_assets.ml.evaluation import pooled
from tgn_assets.ml.evaluation.metric_names import BOUNDS, RANKING_METRICS, WITHOUT_FALLBACK, in_order
from tgn_assets.ml.evaluation.pooled import PooledScore
from tgn_assets.ml.recommend.published import read_publication_record
from tgn_assets.ml.safe_text import printable
from tgn_assets.ml.schema import OURS, K
from tgn_assets.ml.weeks import shift, span_of, week_number
from tgn_assets.reporting.tables import Column, ResultTable, digits
from tgn_assets.state.warehouse import Warehouse, WarehouseError

NDCG = RANKING_METRICS["ndcg"].title
"""Its name where lists have the default length."""
LENGTHS_SQL = """
    SELECT DISTINCT k FROM published_weeks WHERE list_contains($weeks, strftime(target_week, '%Y-%m-%d')) ORDER BY k
"""
SEGMENT_TITLES = {"all": "all active users", "seen": "users seen before"}

SOURCES_SQL = """
    SELECT count(*), list(DISTINCT source ORDER BY source)
    FROM weekly_top5_predictions WHERE week = ? AND rank = 1
"""
SAMPLE_SQL = """
    WITH shown AS (SELECT user_id FROM weekly_top5_predictions WHERE week = $week AND rank = 1
                   ORDER BY hash(user_id) LIMIT 8)
    SELECT user_id, list(event_id ORDER BY rank), any_value(source)
    FROM weekly_top5_predictions SEMI JOIN shown USING (user_id) WHERE week = $week
    GROUP BY user_id ORDER BY hash(user_id)
"""
WITHOUT_LIST_SQL = """
    SELECT (SELECT count(*) FROM users WHERE first_week <= $week::DATE) - users FROM published_weeks WHERE week = $week
"""
LAST_WEEK_SQL = """
    SELECT strftime(max(week), '%Y-%m-%d') FROM raw_interactions WHERE user_id = $user AND week <= $week::DATE
"""
PUBLISHED_SQL = """
    SELECT strftime(week, '%Y-%m-%d')
    FROM (SELECT week FROM published_weeks UNION SELECT week FROM new_user_top5_predictions) ORDER BY week
"""
SOME_USER_SQL = "SELECT user_id FROM weekly_top5_predictions WHERE week = ? AND rank = 1 ORDER BY hash(user_id) LIMIT 1"


@dataclass(frozen=True)
class LeftOut:
    """How many known users have no list, as they were silent for longer than `max_silent_weeks`."""

    users: int
    max_silent_weeks: int

    def __str__(self) -> str:
        users = f"{self.users:,} {'user was' if self.users == 1 else 'users were'}"
        weeks = f"{self.max_silent_weeks:,} {'week' if self.max_silent_weeks == 1 else 'weeks'}"
        return f"{users} left out, silent for longer than {weeks}"


Scores = dict[tuple[str, str, str], PooledScore]
"""By (model, segment, metric)."""


def pooled_scores(warehouse: Warehouse, weeks: Sequence[str], *, compared: bool = False) -> Scores:
    """The scores of the lists for the target `weeks`, all weeks together.

    Ours are over all active users, or `compared` with the others over the drawn users, as theirs are.
    """
    with warehouse.reader() as con:
        scores = pooled.pooled_scores(con, weeks, compared=compared)
    return {(one.model, one.segment, one.metric): one for one in scores}


def interval(limits: Sequence[float] | None) -> str:
    """A 95% interval as it is shown; nothing for None."""
    return f"[{', '.join(map(digits, limits))}]" if limits else ""


def list_lengths(warehouse: Warehouse, weeks: Sequence[str]) -> list[int]:
    """How long the lists for the target `weeks` may be, where that is recorded."""
    with warehouse.reader() as con:
        return [k for (k,) in con.execute(LENGTHS_SQL, {"weeks": list(weeks)}).fetchall()]


def at_length(text: str, warehouse: Warehouse, weeks: Sequence[str]) -> str:
    """`text` with the length of the lists for the target `weeks` in place of the 5 of `@5`."""
    return text.replace("@5", f"@{'/'.join(map(str, list_lengths(warehouse, weeks))) or K}")


def backtest_tables(warehouse: Warehouse, weeks: Sequence[str]) -> dict[str, ResultTable]:
    """By segment, our metrics over the target `weeks` beside the baselines'; `by_week`, NDCG@5 week by week."""
    scores, of_all = pooled_scores(warehouse, weeks, compared=True), pooled_scores(warehouse, weeks)
    length = at_length("@5", warehouse, weeks)
    titles = {name: metric.title.replace("@5", length) for name, metric in RANKING_METRICS.items()}
    metrics = [Column(metric, title, drop=2 * at) for at, (metric, title) in enumerate(titles.items())]
    metrics.insert(1, Column("ci", "95% interval", interval, drop=1))
    tables = {}
    for segment, who in SEGMENT_TITLES.items():
        users = max((score.users for key, score in scores.items() if key[1:] == (segment, "ndcg")), default=0)
        active = of_all[OURS, segment, "ndcg"].users if (OURS, segment, "ndcg") in of_all else users
        number = f"{users:,}" if users == active else f"{users:,} drawn of {active:,}"
        title = f"{who}: {number} in {len(weeks)} target weeks, {span_of(weeks)}"
        models = _models(scores, segment)
        rows = [
            {"model": model, "ci": scores[model, segment, "ndcg"].ci, "users": scores[model, segment, "ndcg"].users}
            | {metric: scores[model, segment, metric].value for metric in RANKING_METRICS}
            for model in models
        ]
        ours = [at for at, model in enumerate(models) if model == OURS]
        tables[segment] = ResultTable(title, [Column("model", "ranker"), *metrics], rows, ours)
    models = _models(scores, "all")
    by_week: list[dict[str, Any]] = []
    for week in weeks:
        of_week = pooled_scores(warehouse, [week], compared=True)
        ndcg_of = {model: of_week.get((model, "all", "ndcg")) for model in models}
        users = max((score.users for score in ndcg_of.values() if score), default=0)
        by_week.append(
            {"week": week, "users": users} | {m: score.value if score else None for m, score in ndcg_of.items()}
        )
    columns = [Column(model, model, drop=at) for at, model in enumerate(models)]
    title = at_length(f"{NDCG} by target week, all active users", warehouse, weeks)
    tables["by_week"] = ResultTable(title, [Column("week", "week"), Column("users", "users"), *columns], by_week)
    return tables


def closing_lines(warehouse: Warehouse, weeks: Sequence[str], tgn: str) -> Iterator[str]:
    """What a backtest over `weeks` did, where its results are, and what to do next with the command `tgn`."""
    yield f"done       {len(weeks)} weeks, {span_of(weeks)}, each as if it had just closed"
    if numbers := "; ".join(scores_and_stability(warehouse, weeks[1:])):
        yield f"numbers    {numbers}"
    yield f"results    {warehouse.path}: current_top5 has the lists, eval_metrics their scores"
    with warehouse.reader() as con:
        user = con.execute(SOME_USER_SQL, [weeks[-1]]).fetchone()
    verbs = {f"{tgn} top5 {shlex.quote(printable(user[0]))}": "one user's list"} if user else {}
    verbs |= {
        f"{tgn} status": "what is published, how it scored, what is missing",
        f"{tgn} dev": "the Dagster UI, with all of this in it",
        f"{tgn} report": "the newest week as a page",
    }
    width = max(map(len, verbs))
    for place, (verb, meaning) in enumerate(verbs.items()):
        yield f"{'' if place else 'next':10} {verb:{width}}  {meaning}"


def published_lists(warehouse: Warehouse, week: str) -> tuple[dict[str, Any], LeftOut | None]:
    """How many users got lists at the close of `week`, for which week and made by whom; and who was left out."""
    with warehouse.reader() as con:
        users, sources = con.execute(SOURCES_SQL, [week]).fetchall()[0]
        left = left_out(con, week)
    return {"week": week, "target_week": shift(week, 1), "users": users, "sources": sources or []}, left


def scores_and_stability(warehouse: Warehouse, weeks: Sequence[str]) -> Iterator[str]:
    """Whether the scores of the lists for the target `weeks` told more than a constant, and how stable lists were."""
    from tgn_assets.ml.evaluation.summary import score_verdict

    found = pooled_scores(warehouse, weeks)
    brier, constant = (found.get((OURS, "all", metric)) for metric in ("brier", "brier_constant"))
    if brier and constant and (said := score_verdict(brier.value, constant.value)):
        yield said
    if overlap := found.get((OURS, "all", "overlap")):
        name = at_length("overlap@5", warehouse, weeks)
        yield f"{name} of active users' lists with those of the week before: {overlap.value:.0%}"


def newest_score(warehouse: Warehouse, week: str) -> dict[str, Any] | None:
    """Our NDCG@5 on the target week `week` beside the best baseline's; None if nothing was scored."""
    scores = pooled_scores(warehouse, [week])
    if (ours := scores.get((OURS, "all", "ndcg"))) is None:
        return None
    best = next((model for model in _models(scores, "all") if model not in (OURS, WITHOUT_FALLBACK, *BOUNDS)), None)
    baseline = None
    if best:
        of_best = scores[best, "all", "ndcg"]
        baseline = {"model": best, "value": of_best.value, "users": of_best.users}
    k = next(iter(list_lengths(warehouse, [week])), K)
    found = {"target_week": week, "metric": "ndcg", "k": k, "value": ours.value, "users": ours.users, "ci": ours.ci}
    return {**found, "best_baseline": baseline}


def score_text(score: Mapping[str, Any]) -> str:
    """What `newest_score` found, as a line."""
    best, users = score["best_baseline"], score["users"]
    ours = f"{digits(score['value'])}  {interval(score['ci'])}".rstrip()
    beside = f"; the best baseline, {best['model']}, {digits(best['value'])}" if best else ""
    if best and best["users"] < users:
        beside += f" with {best['users']:,} drawn ones"
    lists, ndcg = f"the lists for the week of {score['target_week']}", f"NDCG@{score['k']}"
    return f"{lists} scored {ndcg} {ours} with {users:,} active users{beside}"


def left_out(con: duckdb.DuckDBPyConnection, week: str) -> LeftOut | None:
    """Who was left out of the lists made at the close of `week`; None if everybody was to have one."""
    silent = read_publication_record(con, week).policy.max_silent_weeks
    return None if silent is None else LeftOut(con.execute(WITHOUT_LIST_SQL, {"week": week}).fetchall()[0][0], silent)


def top5(warehouse: Warehouse, user: str, week: str | None = None) -> dict[str, Any]:
    """The list of `user` made at the close of `week` (None: the newest), or the list for new users.

    `silent_weeks` is for how long a user was silent who was left out, and else None. WarehouseError if nothing was
    published for that week.
    """
    columns = [Column("rank", "rank"), Column("event_id", "event"), Column("score", "score")]
    columns += [Column("source", "source", drop=1), Column("reason", "reason", wraps=True)]
    names = [*(column.key for column in columns), "reason_kind"]
    query = f"SELECT {', '.join(names)} FROM {{}} WHERE week = ? AND {{}} ORDER BY rank"
    with warehouse.reader() if week else warehouse.newest_lists() as con:
        published = weeks_with_lists(con)
        if not published or (week and week not in published):
            there = f"there are lists of {span_of(published)}" if published else "there are none yet"
            asked = f"no lists were published for week {week}: {there}; run `tgn refresh --week {week}`"
            raise WarehouseError(asked if week else there)
        week = week or published[-1]
        own = con.execute(query.format("weekly_top5_predictions", "user_id = ?"), [week, user]).fetchall()
        rows = own or con.execute(query.format("new_user_top5_predictions", "true"), [week]).fetchall()
        max_silent_weeks = None if own else read_publication_record(con, week).policy.max_silent_weeks
    silent = None if max_silent_weeks is None else _silent_weeks(warehouse, user, week)
    who = printable(user) if own else "new users"
    listed = [dict(zip(names, row, strict=True)) for row in rows]
    table = ResultTable(f"{who}, week of {shift(week, 1)}", columns, listed)
    found = {"user_id": user, "week": week, "target_week": shift(week, 1)}
    return {**found, "is_new_user": not own and silent is None, "silent_weeks": silent, "list": table}


def _silent_weeks(warehouse: Warehouse, user: str, week: str) -> int | None:
    """For how many weeks up to the close of `week` the user has had no interaction; None for a user without any."""
    with warehouse.reader() as con:
        (last,) = con.execute(LAST_WEEK_SQL, {"user": user, "week": week}).fetchall()[0]
    return None if last is None else week_number(week) - week_number(last)


def sample_table(warehouse: Warehouse, week: str) -> ResultTable:
    """The lists of a fixed sample of users, made at the close of `week`."""
    with warehouse.reader() as con:
        lists = con.execute(SAMPLE_SQL, {"week": week}).fetchall()
        length = con.execute("SELECT k FROM published_weeks WHERE week = ?", [week]).fetchone()
    places = range(1, (length[0] if length else K) + 1)
    rows = [
        {"user_id": user, "source": source} | {f"event_{rank}": event for rank, event in enumerate(events, 1)}
        for user, events, source in lists
    ]
    columns = [Column(f"event_{rank}", str(rank), drop=rank - 1) for rank in places]
    columns = [Column("user_id", "user"), *columns, Column("source", "source", drop=len(places))]
    return ResultTable(f"some lists for the week of {shift(week, 1)}", columns, rows)


def weeks_with_lists(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The weeks at whose close lists were published, oldest first, though everybody in them may be forgotten."""
    return [week for (week,) in con.execute(PUBLISHED_SQL).fetchall()]


def _models(scores: Scores, segment: str) -> list[str]:
    return in_order({one: score.value for (one, *of), score in scores.items() if of == [segment, "ndcg"]})
