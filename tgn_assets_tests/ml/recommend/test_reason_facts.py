"""What reasons state of pairs, worked out by hand in the log of `reason_logs.rows`."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.candidates import associations
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.ml.recommend.reason_logs import ALL_KINDS, WEEK, categories, reason_log, rows, said
from tgn_assets_tests.support.worlds import START, warehouse


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    return reason_log()


@pytest.fixture(scope="module")
def reasons(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return said(con, attributes=categories(con))


def sentence(reasons: pd.DataFrame, user: str, event: str, kind: str) -> str | None:
    found = reasons.query("user_id == @user and event_id == @event and reason_kind == @kind").reason
    return None if found.empty else str(found.item())


@pytest.mark.parametrize(
    ("user", "event", "kind", "text"),
    [
        ("ann", "tea", "repeat", "had in 2 of the last 4 weeks, last on 2024-02-26"),
        ("f0", "y", "repeat", "had in 1 of the last 12 weeks, last on 2024-01-22"),
        ("bob", "tea", "repeat", None),
        ("ann", "y", "next_step", "often follows x, which the user had last week (4 times in the week after it)"),
        ("f0", "y", "next_step", None),  # had x, but not last week
        ("ann", "q", "together", "often together with p, which the user had (4 users had both)"),
        ("bob", "q", "together", None),
        ("ann", "hit", "popular", "popular: 2 users had it last week, place 1 among all events"),
        ("ann", "new0", "new", "new: first had in the week of 2024-02-26, by 1 user so far"),
        ("ann", "tea", "new", None),
        ("ann", "hit", "attributes", "same sort as 1 of the 3 other events that the user had"),
        ("ann", "tea", "attributes", None),  # the only drink that ann had
        ("ann", "y", "attributes", None),  # of no known sort
        ("ann", "q", "learned", "learned from what all users had; 4 users had it so far"),
    ],
)
def test_reason_states_what_the_log_holds(
    user: str, event: str, kind: str, text: str | None, reasons: pd.DataFrame
) -> None:
    assert sentence(reasons, user, event, kind) == text


def test_log_holds_every_kind_of_reason(reasons: pd.DataFrame) -> None:
    assert set(reasons.reason_kind) == ALL_KINDS


def test_event_outside_of_last_week_is_not_popular_now() -> None:
    known = said(warehouse([("ann", "old", 0, 1), ("bob", "hit", 1, 1)]), shift(START, 1))
    assert set(known[known.reason_kind == "popular"].event_id) == {"hit"}


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2024-01-01 00:00:00", "2024-01-01"),
        ("2024-01-02 23:59:59", "2024-01-02"),
        ("2024-01-03 00:00:00", "2024-01-03"),
        ("2024-01-03 00:00:01", "2024-01-03"),
        ("2024-01-07 00:00:00", "2024-01-07"),
        ("2024-01-07 23:59:59.999", "2024-01-07"),
    ],
)
def test_last_day_of_repeat_changes_at_midnight(time: str, day: str) -> None:
    con = warehouse([("ann", "tea", 0, 1)])
    con.execute("UPDATE raw_interactions SET ts = ?::TIMESTAMP", [time])
    assert str(sentence(said(con, shift(START, 2)), "ann", "tea", "repeat")).endswith(f"last on {day}")


def test_later_weeks_change_no_reason(con: duckdb.DuckDBPyConnection) -> None:
    week = shift(WEEK, -1)
    until = said(warehouse([row for row in rows() if row[2] < 9]), week)
    pd.testing.assert_frame_equal(said(con, week), until)
    assert set(until.reason_kind) >= {"repeat", "together", "popular", "new"}


def test_counts_of_sampled_users_are_lower_bounds(
    con: duckdb.DuckDBPyConnection, reasons: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not reasons.reason.str.contains(", or more").any()
    monkeypatch.setattr(associations, "MAX_PRODUCTS", 4 * 14)
    sampled = said(con)
    text = sampled[sampled.reason_kind.isin(["next_step", "together"])].reason
    assert len(text) and text.str.contains(", or more").all()


def test_event_pairs_no_more_frequent_than_chance_are_no_reason() -> None:
    everybody = [(f"u{user}", event, 0, 1) for user in range(6) for event in ("x", "y")]
    assert "together" not in set(said(warehouse(everybody), START).reason_kind)
    others = [(f"v{user}", event, 0, 1) for user in range(3) for event in ("a", "b")]
    assert "together" in set(said(warehouse([*everybody, *others]), START).reason_kind)


def test_two_users_are_too_few_to_say_that_events_belong_together() -> None:
    for users, told in ((2, False), (3, True)):
        pairs = [(f"{pair}{user}", f"{pair}{at}", 0, 1) for pair in "xy" for user in range(users) for at in (1, 2)]
        assert ("together" in set(said(warehouse(pairs), START).reason_kind)) == told


def test_empty_log_has_no_facts() -> None:
    assert said(warehouse([]), START).empty
    assert np.prod(said(warehouse([("ann", "tea", 0, 1)]), START).shape) > 0
