"""`Recommender` on a CSV that pandas reads gives what a `tgn` process gives on the same CSV, week after week."""

import json
import os
import subprocess
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd
import pytest

from tgn_assets import Recommender
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets_tests.recommender.logs import FAST, habit_log

pytestmark = pytest.mark.e2e

COLUMNS = {"TGN_USER_COLUMN": "user_id", "TGN_EVENT_COLUMN": "item_id", "TGN_TIMESTAMP_COLUMN": "datetime"}
TRAINING = json.dumps({"trained_gnn": {"config": FAST["gnn"]}, "trained_ranker": {"config": FAST["ranker"]}})
OPTIONS = {"TGN_PRESET": "fast", "TGN_NOUNS": "customer,product,bought", "QUICK_TRAINING": TRAINING}
"""With a training of a second: that `tgn` and `Recommender` do the same is all that is tested."""
COLD, WARM = "2024-01-29", "2024-02-05"


class Tgn(NamedTuple):
    """A `tgn` for one home, and the log of that home."""

    program: Path
    home: Path
    log: Path

    def __call__(self, *arguments: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TGN_", "DAGSTER_"))}
        settings = {"TGN_HOME": str(self.home), "TGN_SOURCE": str(self.log), **COLUMNS, **OPTIONS}
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
    """A home after a cold week, `COLD`, and a warm one, `WARM`."""
    folder = tmp_path_factory.mktemp("csv")
    log = habit_log()
    bad = pd.DataFrame([(None, 3, log.datetime[0]), ("u001", 4, "soon")], columns=log.columns)
    pd.concat([log.sample(frac=1, random_state=0), bad]).to_csv(folder / "log.csv", index=False)
    of_home = Tgn(tgn, folder / "home", folder / "log.csv")
    of_home("refresh", "--week", COLD)
    of_home("refresh")
    return of_home


@pytest.fixture(scope="module")
def cold(refreshed: Tgn) -> Recommender:
    """Fitted when one day of `WARM` was known; to be left as it is."""
    log = pd.read_csv(refreshed.log)
    gnn, ranker = GNNConfig(**FAST["gnn"]), RankerConfig(**FAST["ranker"])
    model = Recommender(preset="fast", nouns="customer,product,bought", progress=False, gnn=gnn, ranker=ranker)
    with pytest.warns(UserWarning, match="rejected rows: missing_user 1, unreadable_time 1"):
        return model.fit(log[~log.datetime.between(f"{WARM} 24", "2024-03")])


@pytest.fixture(scope="module")
def warm(refreshed: Tgn, cold: Recommender) -> Recommender:
    """A copy of `cold` that was updated with the whole log."""
    model = copy(cold)
    model._memory = copy(cold._memory)
    return model.update(pd.read_csv(refreshed.log))


def check_lists(refreshed: Tgn, model: Recommender) -> None:
    published = refreshed.table(
        "SELECT user_id AS user, event_id::BIGINT AS event, rank::BIGINT AS rank, score, source, reason_kind, reason "
        f"FROM weekly_top5_predictions WHERE week = '{model.week}' ORDER BY user, rank"
    )
    assert set(published.source) == {"tgn_assets"}, "a ranker was trained"
    pd.testing.assert_frame_equal(model.recommend()[list(published)], published)
    of_new_users = refreshed.table(
        "SELECT rank::BIGINT AS rank, event_id::BIGINT AS event, score "
        f"FROM new_user_top5_predictions WHERE week = '{model.week}' ORDER BY rank"
    )
    pd.testing.assert_frame_equal(model.recommend(["nobody"])[list(of_new_users)], of_new_users)


def test_fit_publishes_the_lists_of_a_cold_refresh(refreshed: Tgn, cold: Recommender) -> None:
    assert cold.week == COLD
    check_lists(refreshed, cold)
    assert cold.recommend().reason.str.startswith("bought in ").any()


def test_rejected_rows_are_those_of_tgn(refreshed: Tgn, cold: Recommender) -> None:
    query = "SELECT reason, user_id AS user, event_id AS event, ts AS time FROM rejected_interactions ORDER BY ALL"
    pd.testing.assert_frame_equal(cold.rejected, refreshed.table(query))


def test_update_publishes_the_lists_of_a_warm_refresh(refreshed: Tgn, warm: Recommender) -> None:
    assert warm.week == WARM
    check_lists(refreshed, warm)


def test_evaluate_gives_the_numbers_of_tgn_backtest(refreshed: Tgn, warm: Recommender) -> None:
    told: dict[str, Any] = json.loads(refreshed("backtest", "--weeks", "1", "--json"))
    for segment in ("all", "seen"):
        scores = warm.evaluate(weeks=1, segment=segment)
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
