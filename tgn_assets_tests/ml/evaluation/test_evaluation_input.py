import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.evaluation.evaluate import CEILING, evaluate_week
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_number
from tgn_assets_tests.support.tea_log import (
    HAPPENED,
    KNOWN,
    PUBLISHED,
    WEEK,
    evaluate,
    happened,
    past,
    published,
    value,
)


def test_predictions_may_lack_their_source() -> None:
    frame = evaluate_week(WEEK, published(PUBLISHED).drop(columns="source"), ["tea"], happened(HAPPENED), *past(KNOWN))
    assert not frame.metric.str.startswith("share_of_source").any()


def test_ids_that_are_read_as_codes_are_scored_alike() -> None:
    lists = published({**PUBLISHED, "zoe": "tea oil"}).assign(score=0.2)
    coded = lists.astype({"user_id": "category", "event_id": "category", "source": "category"})
    as_text, as_codes = (
        evaluate_week(WEEK, frame, ["tea", "rye"], happened(HAPPENED), *past(KNOWN)) for frame in (lists, coded)
    )
    pd.testing.assert_frame_equal(as_codes, as_text)


def test_the_order_of_rows_and_repeated_interactions_change_nothing() -> None:
    predictions, truth = published(PUBLISHED), happened(HAPPENED)
    shuffled = evaluate_week(
        WEEK,
        predictions.sample(frac=1, random_state=1),
        ["tea", "rye"],
        pd.concat([truth, truth]).sample(frac=1, random_state=2),
        *past(KNOWN),
    )
    pd.testing.assert_frame_equal(shuffled, evaluate())


def test_a_week_without_active_users_has_counts_of_zero_and_no_values() -> None:
    frame = evaluate(truth={})
    assert (frame.users == 0).all()
    assert frame[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert set(evaluate().metric) == set(frame.metric)


def test_the_first_week_of_all_is_scored_without_a_history() -> None:
    no_log = past([])
    frame = evaluate_week(WEEK, published({}), [], happened({"ann": "tea"}), *no_log)
    assert value(frame, OURS, "ndcg") == 0
    assert value(frame, CEILING, "ndcg", "new") == 0
    assert np.isnan(value(frame, OURS, "coverage"))


def test_an_id_may_hold_quotes_unicode_and_sql() -> None:
    odd = '\'; DROP TABLE "events" -- é \U0001f375'
    known = past([(odd, odd, 1, 1)])
    predictions = pd.DataFrame({"user_id": [odd], "rank": [1], "event_id": [odd]})
    frame = evaluate_week(WEEK, predictions, [odd], pd.DataFrame({"user_id": [odd], "event_id": [odd]}), *known)
    assert value(frame, OURS, "ndcg") == value(frame, "repeat", "ndcg") == 1


def test_a_prediction_that_left_the_history_since_it_was_published_is_a_miss_and_not_an_error() -> None:
    frame = evaluate({"ann": "gone tea"}, {"ann": "tea"})
    assert value(frame, OURS, "mrr") == 0.5
    assert value(frame, OURS, "coverage") == 1 / 4


def test_a_history_that_is_not_the_week_before_is_refused() -> None:
    for week in (shift(WEEK, 1), shift(WEEK, -1)):
        with pytest.raises(ValueError, match=f"week {week} is scored with the history up to {shift(week, -1)}"):
            evaluate_week(week, published(PUBLISHED), [], happened(HAPPENED), *past(KNOWN))
    history, users, events = past(KNOWN)
    with pytest.raises(ValueError, match="one for one"):
        evaluate_week(WEEK, published(PUBLISHED), [], happened(HAPPENED), history, users[1:], events)


@pytest.mark.parametrize(
    ("rank", "event", "message"),
    [
        (0, "oil", "ranks from 1 to 5"),
        (6, "oil", "ranks from 1 to 5"),
        (1, "oil", "distinct ranks"),
        (3, "tea", "twice"),
    ],
)
def test_predictions_with_bad_ranks_or_repeated_events_are_refused(rank: int, event: str, message: str) -> None:
    more = pd.DataFrame({"user_id": ["ann"], "rank": [rank], "event_id": [event], "source": ["model"]})
    with pytest.raises(ValueError, match=message):
        evaluate_week(WEEK, pd.concat([published(PUBLISHED), more]), [], happened(HAPPENED), *past(KNOWN))


def test_an_interaction_of_the_target_week_cannot_reach_the_baselines() -> None:
    history, users, events = past([*KNOWN, ("ann", "oil", 0, 99)], shift(WEEK, 1))
    cut = history.as_of(week_number(WEEK) - 1)
    assert (cut.num_users, cut.num_events) == (len(users), len(events))
    frame = evaluate_week(WEEK, published(PUBLISHED), ["tea", "rye"], happened(HAPPENED), cut, users, events)
    pd.testing.assert_frame_equal(frame, evaluate())
    with pytest.raises(ValueError, match="history up to"):
        evaluate_week(WEEK, published(PUBLISHED), [], happened(HAPPENED), history, users, events)
