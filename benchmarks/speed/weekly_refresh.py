"""One warm weekly refresh of online_retail through Dagster, all assets, beside three peers on the same rows.

    python -m benchmarks.speed.weekly_refresh [--minutes N] [--only ALS SASRec LambdaRank]

Every peer ranks for the same target week from the rows before it. It is timed from arrays in memory to five events for
every user. The refresh is timed from the start of `tgn refresh` to its end: imports, source, Dagster's event log,
evaluation and report included. NDCG@5 is over all users active in the target week; for users without a past, or without
a list of SASRec's, the peers get the popular list of the week before.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import Usage, refresh, run_peer
from benchmarks.logs.cases import Case, retail
from benchmarks.table import Row, show
from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.evaluation.baselines import baseline_lists, popular
from tgn_assets.ml.evaluation.metrics import per_user
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets.state.warehouse import Warehouse

SASREC_MINUTES = 10.0
PEERS = {"ALS": ("peers", "als"), "LambdaRank": ("peers", "lambdarank"), "SASRec": ("rectools", "sasrec")}
AGAINST = {
    "ALS": ("implicit ALS (64 factors, 15 iterations), fit + recommend", "higher NDCG@5", "within 3x of its time"),
    "LambdaRank": ("candidate retrieval + LightGBM LambdaRank on 8 weeks", "2x faster, higher NDCG@5", ""),
    "SASRec": ("RecTools SASRec, fit until it passes `repeat` + recommend", "10x faster, higher NDCG@5", ""),
}

LISTS_SQL = """
    SELECT user_id, event_id, rank FROM weekly_top5_predictions WHERE week = $week AND rank <= 5
    UNION ALL SELECT NULL, event_id, rank FROM new_user_top5_predictions WHERE week = $week AND rank <= 5
"""


@dataclass(frozen=True)
class Weekly:
    """The refresh of a week: its cost, and NDCG@5 of its lists in the week after."""

    case: Case
    usage: Usage
    ndcg: float


def measure(case: Case, task: "Task") -> Weekly:
    """Refreshes `case` in a copy of its home."""
    with case.home() as home:
        return refreshed(case, task, home)


def refreshed(case: Case, task: "Task", home: Path) -> Weekly:
    """Refreshes `case` in `home`."""
    usage = refresh(case.log, home, case.week)
    with Warehouse(home / "warehouse.duckdb").reader() as con:
        lists = con.execute(LISTS_SQL, {"week": case.week}).df()
    return Weekly(case, usage, task.ndcg_of_rows(lists))


def rows(ours: Weekly, task: "Task", minutes: float = SASREC_MINUTES, only: list[str] | None = None) -> Iterator[Row]:
    """One row for each peer; SASRec is stopped after `minutes`."""
    for name in only or AGAINST:
        environment, script = PEERS[name]
        # SASRec has done enough when its lists pass `repeat`.
        answer = run_peer(environment, script, **task.given(), enough=task.repeat, patience=np.inf, limit=minutes * 60)
        theirs, ratio = task.ndcg(answer["lists"]), float(answer["seconds"]) / ours.usage.seconds
        speed = f"{ratio:.1f}x faster" if ratio >= 1 else f"{1 / ratio:.1f}x its time"
        stopped = name == "SASRec" and bool(answer["stopped"])
        if stopped:
            speed = f"more than {speed}"
        against, must, aim = AGAINST[name]
        yield Row(
            what=f"one warm weekly refresh of {ours.case.name}, all assets, through Dagster",
            against=against,
            must=must,
            aim=aim,
            measured=f"{speed}, NDCG@5 {ours.ndcg / theirs - 1:+.1%}",
            figures=f"{ours.usage.seconds:.1f} s, {ours.ndcg:.4f}; {float(answer['seconds']):.1f} s, {theirs:.4f}"
            + (f" ({answer['note']})" if str(answer["note"]) else "")
            + (f", stopped after {minutes:g} minutes" if stopped else ""),
        )


class Task:
    """The peers' input and score. Users and events are codes in the order of their ids."""

    def __init__(self, case: Case) -> None:
        log, self.target = case.rows(), shift(case.week, 1)
        past, truth = log[log.week < self.target], log[log.week == self.target].drop_duplicates(["user", "item"])
        self.events = pd.Index(sorted(set(past["item"]) | set(truth["item"])))
        self.users = pd.Index(sorted(set(past.user)))
        self.past = pd.DataFrame(
            {
                "user_idx": self.users.get_indexer(past.user),
                "event_idx": self.events.get_indexer(past["item"]),
                "ts": past.ts.to_numpy(),
                "week_no": past.week.map({week: week_number(week) for week in past.week.unique()}).to_numpy(),
            }
        )
        self.active, self.row = np.unique(truth.user, return_inverse=True)
        self.truth = self.events.get_indexer(truth["item"])
        self.position = self.users.get_indexer(pd.Index(self.active))  # -1: a user without a past
        history = self._history(shift(self.target, -1))
        names = history.event_idx
        self.popular = names[popular(history, 5)]
        own = baseline_lists(["repeat"], history, np.arange(history.num_users), 5)["repeat"]
        lists = np.append(names, -1)[own]
        self.repeat = self.ndcg(lists, np.flatnonzero(self.position >= 0))

    def given(self) -> Mapping[str, NDArray[Any] | float]:
        """The arrays that `benchmarks.peers` describes, and those by which SASRec judges its epochs."""
        known = self.position[self.row] >= 0
        monday = np.datetime64(self.target, "s").astype(np.int64)
        return {
            "user": self.past.user_idx.to_numpy(),
            "item": self.past.event_idx.to_numpy(),
            "ts": self.past.ts.to_numpy(),
            "cut": monday,
            "repeat": self.repeat,
            "true_user": self.position[self.row][known],
            "true_item": self.truth[known],
        }

    def ndcg(self, lists: IntArray, among: IntArray | None = None) -> float:
        """Mean NDCG@5 of `lists` [users, 5] (event codes, -1 for none) over the active users, or those at `among`.

        Users without a list get the popular one.
        """
        shown = np.where((self.position >= 0)[:, None], lists[self.position], -1)
        shown = np.where((shown < 0).all(1, keepdims=True), self.popular, shown)
        values = per_user(shown, self.row, self.truth).ndcg.to_numpy()
        return float(values.mean() if among is None else values[among].mean())

    def ndcg_of_rows(self, rows: pd.DataFrame) -> float:
        """The same of the rows of `LISTS_SQL`; users without a list get the one for new users."""
        lists = np.full((len(self.active) + 1, 5), -1)
        to = pd.Index(self.active).get_indexer(rows.user_id)
        kept = (to >= 0) | rows.user_id.isna().to_numpy()  # a NULL user goes to the last row, the new users' list
        lists[to[kept], rows["rank"].to_numpy()[kept] - 1] = self.events.get_indexer(rows.event_id)[kept]
        lists = np.where((lists[:-1] < 0).all(1, keepdims=True), lists[-1], lists[:-1])
        return float(per_user(lists, self.row, self.truth).ndcg.mean())

    def _history(self, week: str) -> InteractionHistory:
        frame = self.past.groupby(["user_idx", "event_idx", "week_no"], as_index=False).agg(
            count=("ts", "size"), last=("ts", "max")
        )
        close = (frame.week_no + 1) * 7 * 86400 + int(np.datetime64("1970-01-05", "s").astype(np.int64))
        return InteractionHistory.from_frame(
            frame.assign(event_order=frame.event_idx, since=(close - frame["last"]) / 604800), week
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=SASREC_MINUTES, help="limit of SASRec's training (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=AGAINST, help="peers (default: all)")
    given = parser.parse_args()
    case = retail()
    task = Task(case)
    show(rows(measure(case, task), task, given.minutes, given.only))


if __name__ == "__main__":
    main()
