import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.evaluation.metric_names import CEILING
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.tea_log import (
    HAPPENED,
    KNOWN,
    PUBLISHED,
    WEEK,
    Past,
    evaluate,
    happened,
    metrics_of,
    past,
    published,
    value,
)


def test_row_order_and_repeated_rows_change_nothing() -> None:
    predictions, truth = published(PUBLISHED), happened(HAPPENED)
    shuffled = metrics_of(
        WEEK,
        predictions.sample(frac=1, random_state=1),
        pd.concat([truth, truth]).sample(frac=1, random_state=2),
        new_user_list=["tea", "rye"],
        **past(KNOWN),
    )
    pd.testing.assert_frame_equal(shuffled, evaluate())


def test_no_active_users_gives_no_values() -> None:
    frame = evaluate(truth={})
    assert set(evaluate().metric) == set(frame.metric)
    frame = frame[~frame.metric.str.contains("brier|predicted|observed")]  # of pairs, which were published all the same
    assert (frame.users == 0).all()
    assert frame[["value", "ci_low", "ci_high"]].isna().all(axis=None)


def test_first_week_is_scored_without_history() -> None:
    frame = metrics_of(WEEK, published({}), happened({"ann": "tea"}), new_user_list=["oil"], **past([]))
    assert value(frame, OURS, "ndcg") == 0
    assert value(frame, CEILING, "ndcg", "new") == 0
    assert np.isnan(value(frame, OURS, "coverage"))


def test_ids_may_hold_quotes_unicode_and_sql() -> None:
    odd = '\'; DROP TABLE "events" -- é \U0001f375'
    known = past([(odd, odd, 1, 1)])
    predictions = pd.DataFrame({"user_id": [odd], "rank": [1], "event_id": [odd]})
    truth = pd.DataFrame({"user_id": [odd], "event_id": [odd]})
    frame = metrics_of(WEEK, predictions, truth, new_user_list=[odd], **known)
    assert value(frame, OURS, "ndcg") == value(frame, "repeat", "ndcg") == 1


def test_event_gone_from_history_is_a_miss() -> None:
    frame = evaluate({"ann": "gone tea"}, {"ann": "tea"})
    assert value(frame, OURS, "mrr") == 0.5
    assert value(frame, OURS, "coverage") == 1 / 4


def test_history_of_another_week_is_refused() -> None:
    for week in (shift(WEEK, 1), shift(WEEK, -1)):
        with pytest.raises(ValueError, match=f"week {week} is scored with the history up to {shift(week, -1)}"):
            metrics_of(week, published(PUBLISHED), happened(HAPPENED), new_user_list=["tea"], **past(KNOWN))
    known: Past = {**past(KNOWN), "history": past(KNOWN[:2])["history"]}
    with pytest.raises(ValueError, match="lacks users"):
        metrics_of(WEEK, published(PUBLISHED), happened(HAPPENED), new_user_list=["tea"], **known)


@pytest.mark.parametrize(
    ("rank", "event", "message"),
    [
        (0, "oil", "ranks from 1 to 5"),
        (6, "oil", "ranks from 1 to 5"),
        (1, "oil", "distinct ranks"),
        (3, "tea", "twice"),
    ],
)
def test_bad_ranks_or_repeated_events_are_refused(rank: int, event: str, message: str) -> None:
    more = pd.DataFrame({"user_id": ["ann"], "rank": [rank], "event_id": [event], "source": ["model"]})
    with pytest.raises(ValueError, match=message):
        metrics_of(
            WEEK, pd.concat([published(PUBLISHED), more]), happened(HAPPENED), new_user_list=["tea"], **past(KNOWN)
        )


def test_target_week_cannot_reach_the_baselines() -> None:
    leaking = past([*KNOWN, ("ann", "oil", 0, 99)], shift(WEEK, 1))
    cut = leaking["history"].as_of(week_number(WEEK) - 1)
    assert (cut.num_users, cut.num_events) == (len(leaking["user_ids"]), len(leaking["event_ids"]))
    lists, truth, new_user_list = published(PUBLISHED), happened(HAPPENED), ["tea", "rye"]
    known: Past = {**leaking, "history": cut}
    pd.testing.assert_frame_equal(metrics_of(WEEK, lists, truth, new_user_list=new_user_list, **known), evaluate())
    with pytest.raises(ValueError, match="history up to"):
        metrics_of(WEEK, lists, truth, new_user_list=new_user_list, **leaking)
