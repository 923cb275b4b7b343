"""Tables and lines for the terminal, read from the warehouse."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import duckdb
from rich.box import SIMPLE
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from tgn_assets.ml.evaluation.metric_names import FORMER_MODELS, WITHOUT_FALLBACK
from tgn_assets.ml.safe_text import printable
from tgn_assets.ml.schema import OURS, K
from tgn_assets.ml.weeks import shift
from tgn_assets.state.warehouse import Warehouse, WarehouseError

BOUNDS = ("candidates", "ceiling")
"""Models of `eval_metrics` that know the truth: upper bounds, which no ranker reaches."""
NDCG = "NDCG@5"
"""Its name where lists have the default length."""
LABELS = {"ndcg": NDCG, "precision": "Precision@5", "recall": "Recall@5", "map": "MAP@5"}
LABELS |= {"hit_rate": "HitRate@5", "mrr": "MRR"}
LENGTHS_SQL = """
    SELECT DISTINCT k FROM published_weeks WHERE list_contains($weeks, strftime(target_week, '%Y-%m-%d')) ORDER BY k
"""
SEGMENT_TITLES = {"all": "all active users", "seen": "users seen before"}

POOLED_SQL = """
    SELECT model, segment, metric, sum(value * users) / sum(users), sum(users)::BIGINT,
           CASE WHEN count(ci_low) = count(*) THEN sqrt(sum(((ci_high - ci_low) / 2 * users) ** 2)) / sum(users) END
    FROM eval_metrics
    WHERE users > 0 AND isfinite(value) AND list_contains($weeks, strftime(week, '%Y-%m-%d'))
    GROUP BY ALL
"""
"""The mean over the active users of all weeks. If all weeks have a 95% interval, they are pooled as independent."""
SOURCES_SQL = """
    SELECT count(DISTINCT user_id), string_agg(DISTINCT source, ', ' ORDER BY source)
    FROM weekly_top5_predictions WHERE week = ?
"""
SAMPLE_SQL = """
    SELECT user_id, list(event_id ORDER BY rank), any_value(source)
    FROM weekly_top5_predictions WHERE week = ? GROUP BY user_id ORDER BY hash(user_id) LIMIT 8
"""
SOME_USER_SQL = "SELECT user_id FROM weekly_top5_predictions WHERE week = ? ORDER BY hash(user_id) LIMIT 1"


class Score(NamedTuple):
    """A metric of a model in a segment, over some weeks."""

    value: float
    users: int
    margin: float | None
    """Half of the 95% interval."""

    def __str__(self) -> str:
        if self.margin is None:
            return f"{self.value:.4f}"
        return f"{self.value:.4f}  [{self.value - self.margin:.4f}, {self.value + self.margin:.4f}]"


Scores = dict[tuple[str, str, str], Score]
"""By (model, segment, metric)."""


def pooled_scores(warehouse: Warehouse, weeks: Sequence[str]) -> Scores:
    """The scores of the lists for the target `weeks`, all weeks together."""
    with warehouse.reader() as con:
        rows = con.execute(POOLED_SQL, {"weeks": list(weeks)}).fetchall()
    return {(model, segment, metric): Score(*score) for model, segment, metric, *score in rows}


def at_length(text: str, warehouse: Warehouse, weeks: Sequence[str]) -> str:
    """`text` with the length of the lists for the target `weeks` in place of the 5 of `@5`."""
    with warehouse.reader() as con:
        lengths = [str(k) for (k,) in con.execute(LENGTHS_SQL, {"weeks": list(weeks)}).fetchall()]
    return text.replace("@5", f"@{'/'.join(lengths) or K}")


def backtest_tables(warehouse: Warehouse, weeks: Sequence[str]) -> Iterator[Table]:
    """For each segment, our metrics over the target `weeks` beside the baselines'; then NDCG@5 week by week."""
    scores = pooled_scores(warehouse, weeks)
    names = [at_length(name, warehouse, weeks) for name in LABELS.values()]
    span = weeks[0] if len(weeks) == 1 else f"{weeks[0]} to {weeks[-1]}"
    for segment, who in SEGMENT_TITLES.items():
        users = max((score.users for key, score in scores.items() if key[1:] == (segment, "ndcg")), default=0)
        table = results_table(f"{who}: {users:,} in {len(weeks)} target weeks, {span}", "ranker", names)
        for model in _models(scores, segment):
            ndcg, *others = (scores[model, segment, metric] for metric in LABELS)
            cells = [str(ndcg), *(f"{score.value:.4f}" for score in others)]
            table.add_row(Text(model), *cells, style="bold" if model == OURS else None)
        yield table
    models = _models(scores, "all")
    title = at_length(f"{NDCG} by target week, all active users", warehouse, weeks)
    table = results_table(title, "week", ["users", *models])
    for week in weeks:
        of_week = pooled_scores(warehouse, [week])
        ndcg_of = {model: of_week.get((model, "all", "ndcg")) for model in models}
        users = max((score.users for score in ndcg_of.values() if score), default=0)
        table.add_row(week, f"{users:,}", *(f"{score.value:.4f}" if score else "" for score in ndcg_of.values()))
    yield table


def closing_lines(warehouse: Warehouse, weeks: Sequence[str], tgn: str = "tgn") -> Iterator[str]:
    """What a backtest over `weeks` did, where its results are, and what to do next with the command `tgn`."""
    yield f"done       {len(weeks)} weeks, {weeks[0]} to {weeks[-1]}, each as if it had just closed"
    yield f"results    {warehouse.path}: current_top5 has the lists, eval_metrics their scores"
    with warehouse.reader() as con:
        user = con.execute(SOME_USER_SQL, [weeks[-1]]).fetchone()
    verbs = {f"{tgn} top5 {shlex.quote(printable(user[0]))}": "one user's list"} if user else {}
    verbs |= {
        f"{tgn} status": "what is published, how it scored, what is missing",
        f"{tgn} dev": "the Dagster UI, with all of this in it",
        f"TGN_SOURCE=your_log.csv {tgn} status": "your own log: docs/tutorial.md",
    }
    width = max(map(len, verbs))
    for place, (verb, meaning) in enumerate(verbs.items()):
        yield f"{'' if place else 'next':10} {verb:{width}}  {meaning}"


def week_summary(warehouse: Warehouse, week: str) -> str:
    """The result of the run of `week`: its lists for the week after, and the score of the lists for `week`."""
    with warehouse.reader() as con:
        users, sources = con.execute(SOURCES_SQL, [week]).fetchall()[0]
    score = score_line(warehouse, week) or f"no lists were made for week {week}, so there is no score yet"
    return f"{users:,} users have a list for the week of {shift(week, 1)} (source: {sources or 'none'})\n{score}"


def score_line(warehouse: Warehouse, week: str) -> str | None:
    """Our NDCG@5 on the target week `week` beside the best baseline's; None if nothing was scored."""
    scores = pooled_scores(warehouse, [week])
    if (ours := scores.get((OURS, "all", "ndcg"))) is None:
        return None
    best = next((model for model in _models(scores, "all") if model not in (OURS, WITHOUT_FALLBACK, *BOUNDS)), None)
    beside = f"; the best baseline, {best}, {scores[best, 'all', 'ndcg'].value:.4f}" if best else ""
    ndcg = at_length(NDCG, warehouse, [week])
    return f"the lists for the week of {week} scored {ndcg} {ours} with {ours.users:,} active users{beside}"


def top5_table(warehouse: Warehouse, user: str, week: str | None = None) -> tuple[Table, str | None]:
    """The list of `user` made at the close of `week` (None: the newest), and a note if it is the list for new users.

    WarehouseError if nothing was published for that week.
    """
    with warehouse.reader() if week else warehouse.newest_lists() as con:
        published = weeks_with_lists(con)
        if not published or (week and week not in published):
            there = f"there are lists of {published[0]} to {published[-1]}" if published else "there are none yet"
            asked = f"no lists were published for week {week}: {there}; run `tgn refresh`"
            raise WarehouseError(asked if week else there)
        week, who, note = week or published[-1], printable(user), None
        query = "SELECT rank, event_id, score, source FROM {} ORDER BY rank"
        of_user = query.format("weekly_top5_predictions WHERE week = ? AND user_id = ?")
        if not (rows := con.execute(of_user, [week, user]).fetchall()):
            note = f"{who} has no interaction up to the close of week {week}: this is the list for new users"
            who = "new users"
            rows = con.execute(query.format("new_user_top5_predictions WHERE week = ?"), [week]).fetchall()
    table = results_table(f"{who}, week of {shift(week, 1)}", "rank", ["event", "score", "source"], "left")
    for rank, event, score, source in rows:
        table.add_row(str(rank), Text(printable(event)), f"{score:.4f}", Text(source))
    return table, note


def sample_table(warehouse: Warehouse, week: str) -> Table:
    """The lists of a fixed sample of users, made at the close of `week`."""
    with warehouse.reader() as con:
        rows = con.execute(SAMPLE_SQL, [week]).fetchall()
        length = con.execute("SELECT k FROM published_weeks WHERE week = ?", [week]).fetchone()
    longest = length[0] if length else K
    columns = [*map(str, range(1, longest + 1)), "source"]
    table = results_table(f"some lists for the week of {shift(week, 1)}", "user", columns, "left")
    for user, events, source in rows:
        cells = [printable(event) for event in events] + [""] * (longest - len(events))
        table.add_row(*(Text(cell) for cell in (printable(user), *cells, source)))
    return table


def weeks_with_lists(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The weeks at whose close lists were published, oldest first: every one of them has the list for new users."""
    query = "SELECT DISTINCT strftime(week, '%Y-%m-%d') FROM new_user_top5_predictions ORDER BY 1"
    return [week for (week,) in con.execute(query).fetchall()]


def results_table(title: str, first: str, others: Iterable[str], justify: JustifyMethod = "right") -> Table:
    """An empty table in the style of all commands, with the columns `first` and `others`."""
    table = Table(box=SIMPLE, title=Text(title), title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _models(scores: Scores, segment: str) -> list[str]:
    """Ours first, then the others from the best to the worst NDCG, what knows the truth last."""
    ndcg = {model: score.value for (model, of, metric), score in scores.items() if (of, metric) == (segment, "ndcg")}
    models = set(ndcg) - set(FORMER_MODELS.values())
    ours_first = [OURS, WITHOUT_FALLBACK]
    return sorted(models, key=lambda m: (m in BOUNDS, *(m != name for name in ours_first), -ndcg[m], m))
