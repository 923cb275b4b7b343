"""`Recommender` on a CSV that pandas reads gives what a `tgn` process gives on the same CSV in a fresh home."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd
import pytest

from tgn_assets import Recommender
from tgn_assets_tests.recommender.logs import habit_log

COLUMNS = {"TGN_USER_COLUMN": "user_id", "TGN_EVENT_COLUMN": "item_id", "TGN_TIMESTAMP_COLUMN": "datetime"}


class Tgn(NamedTuple):
    """A `tgn` for one home, and the log of that home."""

    program: Path
    home: Path
    log: Path

    def __call__(self, *arguments: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TGN_", "DAGSTER_"))}
        settings = {"TGN_HOME": str(self.home), "TGN_SOURCE": str(self.log), **COLUMNS}
        done = subprocess.run(
            [self.program, *arguments], env=inherited | settings, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def table(self, query: str) -> pd.DataFrame:
        with duckdb.connect(self.home / "warehouse.duckdb", read_only=True) as con:
            return con.execute(query).df()


@pytest.fixture(scope="module")
def refreshed(tgn: Path, tmp_path_factory: pytest.TempPathFactory) -> Tgn:
    """A fresh home after `tgn refresh`."""
    folder = tmp_path_factory.mktemp("csv")
    log = habit_log()
    bad = pd.DataFrame([(None, 3, log.datetime[0]), ("u001", 4, "soon")], columns=log.columns)
    pd.concat([log.sample(frac=1, random_state=0), bad]).to_csv(folder / "log.csv", index=False)
    of_home = Tgn(tgn, folder / "home", folder / "log.csv")
    of_home("refresh")
    return of_home


@pytest.fixture(scope="module")
def model(refreshed: Tgn) -> Recommender:
    with pytest.warns(UserWarning, match="rejected rows: missing_user 1, unreadable_time 1"):
        return Recommender(progress=False).fit(pd.read_csv(refreshed.log))


def test_fit_publishes_the_lists_of_tgn_refresh(refreshed: Tgn, model: Recommender) -> None:
    published = refreshed.table(
        "SELECT user_id AS user, event_id::BIGINT AS event, rank::BIGINT AS rank, score, source, week "
        "FROM weekly_top5_predictions ORDER BY user, rank"
    )
    assert {f"{week:%Y-%m-%d}" for week in published.week} == {model.week}
    assert set(published.source) == {"tgn_assets"}, "a ranker was trained"
    lists = model.recommend()
    pd.testing.assert_frame_equal(lists[["user", "event", "rank", "score", "source"]], published.drop(columns="week"))


def test_new_users_get_the_list_of_tgn_refresh(refreshed: Tgn, model: Recommender) -> None:
    published = refreshed.table(
        "SELECT rank::BIGINT AS rank, event_id::BIGINT AS event, score FROM new_user_top5_predictions ORDER BY rank"
    )
    pd.testing.assert_frame_equal(model.recommend(["nobody"])[["rank", "event", "score"]], published)


def test_rejected_rows_are_those_of_tgn(refreshed: Tgn, model: Recommender) -> None:
    query = "SELECT reason, user_id AS user, event_id AS event, ts AS time FROM rejected_interactions ORDER BY ALL"
    pd.testing.assert_frame_equal(model.rejected, refreshed.table(query))


def test_evaluate_gives_the_numbers_of_tgn_backtest(refreshed: Tgn, model: Recommender) -> None:
    told: dict[str, Any] = json.loads(refreshed("backtest", "--weeks", "2", "--json"))
    for segment in ("all", "seen"):
        scores = model.evaluate(weeks=2, segment=segment)
        values = scores.pivot(index="model", columns="metric", values="value")
        ndcg = scores[scores.metric == "ndcg"].set_index("model")
        assert list(ndcg.index) == [row["model"] for row in told[segment]]
        for row in told[segment]:
            of_model = values.loc[row["model"]]
            assert {metric: of_model[metric] for metric in ("ndcg", "recall", "map", "mrr")} == {
                metric: row[metric] for metric in ("ndcg", "recall", "map", "mrr")
            }
            assert [*ndcg.loc[row["model"], ["ci_low", "ci_high"]]] == row["ci"]
            assert ndcg.users[row["model"]] == row["users"]
