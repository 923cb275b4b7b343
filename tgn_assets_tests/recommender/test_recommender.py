"""`Recommender`: options, lists, what is odd about a log, the saved form."""

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tgn_assets import Recommender
from tgn_assets.ml.artifact_io import ArtifactError
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets_tests.recommender.logs import FAST, habit_log

NEXT = "2024-02-05"


def fast(k: int = 5, **options: Any) -> Recommender:
    given: dict[str, Any] = {
        "gnn": GNNConfig(**FAST["gnn"]),
        "ranker": RankerConfig(**FAST["ranker"]),
        "progress": False,
    }
    return Recommender(k, **given | options)


@pytest.fixture(autouse=True)
def _no_unexpected_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture(scope="module")
def model() -> Recommender:
    return fast().fit(habit_log())


def lists(model: Recommender) -> pd.DataFrame:
    return model.recommend().drop(columns="score")


def test_everybody_is_recommended_k_events_in_order_of_rank(model: Recommender) -> None:
    found = model.recommend()
    assert (model.week, model.target_week) == ("2024-02-05", "2024-02-12")
    assert sorted(found.user.unique()) == sorted(habit_log().user_id.unique())
    assert (found.groupby("user")["rank"].agg(list).map(lambda ranks: ranks == [1, 2, 3, 4, 5])).all()
    assert found.event.dtype == np.int64
    assert set(found.event) <= set(habit_log().item_id)
    assert (found.groupby("user").score.diff().dropna() <= 0).all()
    assert str(model) == "Recommender(k=5): lists for 24 users for the week of 2024-02-12"


def test_order_and_repetition_of_the_asked_users_stay(model: Recommender) -> None:
    everybody = model.recommend()
    asked = model.recommend(pd.Series(["u003", "nobody", "u001", "u003"], index=[4, 5, 6, 7]))
    assert list(asked.user) == [user for user in ("u003", "nobody", "u001", "u003") for _ in range(5)]
    own = everybody[everybody.user == "u003"]
    for part in (asked[:5], asked[15:]):
        pd.testing.assert_frame_equal(part.reset_index(drop=True), own.reset_index(drop=True))
    assert (asked.source == "new_users").tolist() == [False] * 5 + [True] * 5 + [False] * 10
    assert len(model.recommend([])) == 0


def test_unknown_users_of_any_type_get_the_list_for_new_users(model: Recommender) -> None:
    asked = model.recommend([12, None])
    assert set(asked.source) == {"new_users"}
    assert list(asked.event[:5]) == list(asked.event[5:])
    with pytest.raises(ValueError, match=r"give a list of ids, \['u001'\]"):
        model.recommend("u001")


def test_policy_holds_for_every_list() -> None:
    log = habit_log()
    popular = log.item_id.value_counts().index[0]
    model = fast(3, repeats="exclude", deny=[popular]).fit(log)
    found = model.recommend()
    assert set(found["rank"]) == {1, 2, 3}
    closed = log[log.datetime < "2024-02-12"]
    had = set(zip(closed.user_id, closed.item_id, strict=True))
    assert had.isdisjoint(zip(found.user, found.event, strict=True))
    assert popular not in {*found.event, *model.recommend(["nobody"]).event}
    assert set(fast(2, allow=[1, 2]).fit(log).recommend().event) == {1, 2}
    with pytest.raises(ValueError, match=r"none of the .* events up to week .* may be listed: look at allow, deny and"):
        fast(allow=["nothing"]).fit(log)


def test_expired_events_silent_users_and_words() -> None:
    log = habit_log(weeks=3)
    silent = log.user_id == "u000"
    log = log[~silent | (log.datetime < "2024-01-08")]
    popular = log.item_id.value_counts().index[0]
    expiry = {popular: pd.Timestamp("2024-01-22")}
    model = fast(max_silent_weeks=0, event_expiry=expiry, nouns="guest,dish,ate").fit(log)
    found = model.recommend()
    assert popular not in set(found.event) and "u000" not in set(found.user)
    assert set(model.recommend(["u000"]).source) == {"new_users"}
    assert found.reason.str.startswith("ate in ").any()


def test_preset_leaves_fields_that_are_set() -> None:
    model = Recommender(preset="fast", ranker=RankerConfig(epochs=7))
    assert (model.ranker.preset, model.ranker.networks, model.ranker.epochs) == ("fast", 1, 7)


def test_seed_alone_changes_what_is_learned(model: Recommender) -> None:
    again, other = fast().fit(habit_log()), fast(seed=1).fit(habit_log())
    pd.testing.assert_frame_equal(again.recommend(), model.recommend())
    assert not other.recommend().equals(model.recommend())


def test_attributes_are_learned_from(model: Recommender) -> None:
    log = habit_log()
    events = pd.DataFrame({"item_id": np.arange(12), "shelf": ["a", "b"] * 6, "valid_from": pd.Timestamp("2023-12-01")})
    assert not fast(event_features=events).fit(log).recommend().equals(model.recommend())
    timeless = fast(event_features=events.drop(columns="valid_from"))
    with pytest.warns(UserWarning, match="^event_features has no column valid_from") as told:
        timeless.fit(log)
    assert len(told) == 1
    assert Path(told[0].filename) == Path(__file__)


def test_evaluated_lists_know_nothing_of_the_week_they_are_scored_on(model: Recommender) -> None:
    scores = model.evaluate(weeks=1)
    assert list(scores.model[:1]) == ["tgn_assets"]
    assert {"repeat", "popular", "ceiling"} <= set(scores.model)
    assert (scores.ci_low <= scores.value).all() and (scores.value <= scores.ci_high).all()
    assert model._memory is not None
    with model._memory.open() as con:
        query = (
            "SELECT user_id AS user, event_id::BIGINT AS event, rank::BIGINT AS rank, score, source "
            "FROM weekly_top5_predictions WHERE week = '2024-01-29' ORDER BY user, rank"
        )
        evaluated = con.execute(query).df()
    log = habit_log()
    before = fast(end_week="2024-01-29").fit(log[log.datetime < "2024-02-05"])
    pd.testing.assert_frame_equal(before.recommend()[list(evaluated)], evaluated)
    pd.testing.assert_frame_equal(model.evaluate(weeks=1), scores)


@pytest.fixture(scope="module")
def begun() -> Callable[[], Recommender]:
    """Gives recommenders that were fitted when one day of the week `NEXT` was known."""
    log = habit_log()
    made = fast().fit(log[log.datetime < f"{NEXT} 23:59"])

    def fresh() -> Recommender:
        again = copy(made)
        assert made._memory is not None
        again._memory = copy(made._memory)
        return again

    return fresh


def test_update_takes_the_whole_log_or_new_weeks(begun: Callable[[], Recommender]) -> None:
    log = habit_log()
    whole, part = begun().update(log), begun().update(log[log.datetime >= NEXT])
    assert (whole.week, whole.target_week) == (NEXT, "2024-02-12")
    pd.testing.assert_frame_equal(whole.recommend(), part.recommend())


def test_update_that_cannot_be_done_leaves_the_lists(begun: Callable[[], Recommender]) -> None:
    log, model = habit_log(), begun()
    before = model.recommend()
    with pytest.raises(ValueError, match=r"no week has closed since 2024-01-29.* on the Sunday of week 2024-02-05"):
        model.update(log[log.datetime < f"{NEXT} 23:59"])
    with pytest.raises(ValueError, match=r"week 2024-02-05 has .* rows, and had .*: give all rows from Monday"):
        model.update(log[log.datetime >= "2024-02-11"])
    with pytest.raises(ValueError, match="the ids of item_id are of type object, and were of type int64"):
        model.update(log.assign(item_id="x" + log.item_id.astype(str)))
    with pytest.raises(ValueError, match="there is no log: fit one first"):
        fast().update(log)
    pd.testing.assert_frame_equal(model.recommend(), before)


def test_update_warns_of_late_rows(begun: Callable[[], Recommender]) -> None:
    log = habit_log()
    late = pd.concat([log, log[:1].assign(user_id="late")])
    with pytest.warns(UserWarning, match=r"rows of 1 weeks up to 2024-01-29, the first of them 2024-01-01"):
        model = begun().update(late)
    assert "late" not in set(model.recommend().user)


def test_evaluation_takes_a_closed_week_more(model: Recommender) -> None:
    with pytest.raises(ValueError, match="scoring 6 weeks takes 7 closed ones; the log has 6"):
        model.evaluate(weeks=6)
    with pytest.raises(ValueError, match="there is no log: fit one first"):
        fast().evaluate()
    with pytest.raises(ValueError, match="there are no lists yet: fit a log first"):
        fast().recommend()


def test_young_log_gets_lists_of_baselines_and_a_warning() -> None:
    log = habit_log(weeks=1)
    with pytest.warns(UserWarning, match=r"lists \(\w+ 24\): they did better than the ranker in the last closed weeks"):
        model = fast().fit(log)
    assert model.week == "2024-01-01"
    assert "tgn_assets" not in set(model.recommend().source)


def test_last_week_of_a_finished_log_is_closed_by_end_week() -> None:
    log = habit_log(weeks=2)
    unfinished = log[log.datetime < "2024-01-06"]
    with pytest.raises(ValueError, match=r"no week has closed yet.*2024-01-01.*set end_week"):
        fast().fit(unfinished)
    with pytest.warns(UserWarning, match="baselines made most lists"):
        assert fast(end_week="2024-01-01").fit(unfinished).target_week == "2024-01-08"


def test_messages_name_parameters_and_no_setting() -> None:
    log = habit_log().assign(datetime="31.12.2024 10:00")
    with pytest.raises(ValueError, match=r"none of the .* rows of interactions can be used") as raised:
        fast().fit(log)
    assert "pandas.to_datetime" in str(raised.value) and "TGN_" not in str(raised.value)
    old = pd.concat([habit_log(), habit_log()[:1].assign(datetime=pd.Timestamp("1999-01-01"))])
    with pytest.raises(ValueError, match=r"set start_week=2024-01-01 to begin there, or start_week="):
        fast().fit(old)
    assert fast(start_week="2024-01-01").fit(old).week == "2024-02-05"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"repeats": "never"}, "repeats is 'never'"),
        ({"nouns": "customer,product"}, "nouns='customer,product' are not three words"),
        ({"preset": "cheap"}, "preset is 'cheap'; it may be 'fast', 'standard', 'best'"),
        ({"min_distinct_events": -1}, "min_distinct_events is -1"),
        ({"event_expiry": pd.DataFrame({"event_id": [1]})}, "event_expiry has no column expires_at"),
        ({"event_expiry": {1: "soon"}}, "expires_at cannot be read"),
        ({"allow": []}, "allow holds no event id"),
        ({"deny": "tea"}, r"deny is 'tea'; give a list of ids, \['tea'\]"),
        ({"end_week": "2024-01-02"}, "2024-01-02 is a Tuesday"),
        ({"start_week": "2024-01-08", "end_week": "2024-01-01"}, "end_week=2024-01-01 comes before"),
    ],
)
def test_option_that_cannot_be_used_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Recommender(**options)


def test_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="device=cuda:7 cannot be used"):
        fast(device="cuda:7").fit(habit_log())


def test_progress_is_told_to_a_function() -> None:
    lines = list[str]()
    fast(progress=lines.append).fit(habit_log(weeks=3))
    assert any(line.startswith("encoder, week 2024-01-15") for line in lines)


def test_log_of_a_recommender_goes_with_it() -> None:
    with pytest.warns(UserWarning, match="baselines"):
        model = fast().fit(habit_log(weeks=1))
    assert model._memory is not None
    folder = model._memory.folder
    assert folder.exists()
    del model
    gc.collect()
    assert not folder.exists()


LOAD = """
import sys
from tgn_assets import Recommender
model = Recommender.load(sys.argv[1])
model.recommend(["u001", "nobody"]).to_json(sys.argv[2], orient="table", double_precision=15)
model.recommend().to_json(sys.argv[3], orient="table", double_precision=15)
"""


@pytest.mark.e2e
def test_saved_recommender_recommends_the_same_in_another_process(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    files = [str(tmp_path / name) for name in ("model", "some.json", "all.json")]
    subprocess.run([sys.executable, "-c", LOAD, *files], check=True, timeout=120)
    for path, expected in ((files[1], model.recommend(["u001", "nobody"])), (files[2], model.recommend())):
        assert Path(path).read_text() == expected.to_json(orient="table", double_precision=15)


def test_loaded_recommender_keeps_options_and_can_be_fitted(model: Recommender, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="baselines"):
        fast(2, deny=[3], end_week="2024-01-01", seed=4).fit(habit_log()).save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert (loaded.k, loaded.end_week, loaded.gnn.seed, loaded.ranker.dim) == (2, "2024-01-01", 4, 8)
    before = loaded.recommend()
    with pytest.raises(ValueError, match="a saved recommender does not hold its log"):
        loaded.evaluate()
    loaded.progress = False
    with pytest.warns(UserWarning, match="baselines"):
        loaded.fit(habit_log())
    pd.testing.assert_frame_equal(loaded.recommend(), before)
    assert 3 not in set(before.event)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(Recommender.load(tmp_path / "model").recommend(), model.recommend())


def test_attributes_are_not_saved_and_missed(tmp_path: Path) -> None:
    events = pd.DataFrame({"item_id": [1], "price": [2.5], "valid_from": pd.Timestamp("2023-12-01")})
    with pytest.warns(UserWarning, match="baselines"):
        fast(event_features=events).fit(habit_log(weeks=1)).save(tmp_path / "model")
    with pytest.raises(ValueError, match="event_features are not saved: make a new Recommender with them"):
        Recommender.load(tmp_path / "model").fit(habit_log())


def test_saving_replaces_no_other_folder(model: Recommender, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="something else than a recommender"):
        model.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_folder_that_is_no_recommender_is_an_artifact_error(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    meta = (tmp_path / "model" / "meta.json").read_text()
    for damaged in ("{}", meta.replace('"format_version": ', '"format_version": 9'), meta.replace("recommender", "x")):
        (tmp_path / "model" / "meta.json").write_text(damaged)
        with pytest.raises(ArtifactError, match="is no recommender that this version of tgn_assets can read"):
            Recommender.load(tmp_path / "model")
    with pytest.raises(ArtifactError, match="is no recommender"):
        Recommender.load(tmp_path / "nothing")
