from math import inf, nan

import pandas as pd
import pytest

from tgn_assets.ml.recommend.publish_checks import (
    CHECKS,
    CheckInput,
    CheckResult,
    Expectations,
    description_of,
    publish_checks,
)
from tgn_assets.ml.recommend.published import PublishedLists

WEEK, NEXT = "2024-01-01", "2024-01-08"
KNOWN = "events_known_before_target"
BOBS = slice(5, 9)
USERS = pd.DataFrame({"idx": [0, 1], "id": ["ann", "bob"], "first_week": [WEEK, "2023-12-25"]})
EVENTS = pd.DataFrame({"idx": range(6), "id": list("abcdef"), "first_week": WEEK})


def good() -> PublishedLists:
    """Ann and Bob have five of six events each, and so do new users."""
    lists = pd.DataFrame({"rank": range(1, 6), "event_id": list("abcde"), "score": [0.5, 0.4, 0.3, 0.2, 0.1]})
    lists = lists.assign(week=WEEK, target_week=NEXT, source="tgn_assets")
    return PublishedLists(
        pd.concat([lists.assign(user_id=user) for user in ("ann", "bob")], ignore_index=True), lists.copy()
    )


def checked(
    lists: PublishedLists,
    users: pd.DataFrame = USERS,
    events: pd.DataFrame = EVENTS,
    *,
    inputs: dict[str, str] | None = None,
    expected: Expectations | None = None,
) -> list[CheckResult]:
    """The results of all checks; unless something else is `expected`, of a policy that allows everything."""
    full = min(5, len(events))
    expected = expected or Expectations(pd.Series(full, index=users.id), full)
    return publish_checks(CheckInput(lists, users, events, WEEK, inputs or {"trained_ranker": WEEK}, 5, expected))


def failing(lists: PublishedLists, inputs: dict[str, str] | None = None) -> dict[str, str]:
    """Reasons by check, of the checks that fail."""
    results = checked(lists, inputs=inputs)
    assert [result.check for result in results] == list(CHECKS)
    return {result.check: result.reason for result in results if not result.passed}


def test_complete_lists_pass_every_check() -> None:
    assert failing(good()) == {}


@pytest.mark.parametrize(("events", "users"), [(3, 2), (0, 0)])
def test_short_catalogue_and_empty_history_pass(events: int, users: int) -> None:
    made = good()
    few = PublishedLists(*(lists[lists["rank"] <= events] for lists in (made.predictions, made.new_users)))
    assert all(result.passed for result in checked(few, USERS[:users], EVENTS[:events]))


def test_every_check_is_described() -> None:
    for name in CHECKS:
        assert len(description_of(name)) > 20 and description_of(name).endswith("."), name


@pytest.mark.parametrize(
    ("lists", "row", "column", "value", "check", "reason"),
    [
        ("predictions", 1, "rank", 1, "ranks_are_consecutive", "of user 'ann' has ranks other than 1, 2, ..."),
        ("predictions", 4, "rank", 6, "ranks_are_consecutive", "of user 'ann' has ranks other than 1, 2, ..."),
        ("new_users", 1, "event_id", "a", "ranks_are_consecutive", "for new users names an event twice"),
        ("predictions", 7, "event_id", "x", KNOWN, "of user 'bob' names an event that had not happened"),
        ("predictions", BOBS, "user_id", "eve", KNOWN, "of user 'eve' is of an unknown user (5 rows in all)"),
        ("predictions", 3, "score", inf, "scores_are_finite", "of user 'ann' has a score that is no finite number"),
        ("new_users", 0, "score", nan, "scores_are_finite", "for new users has a score that is no finite number"),
        ("predictions", 0, "target_week", WEEK, "no_input_newer_than_week", "of user 'ann' is dated another week"),
    ],
)
def test_each_damage_fails_its_check_alone(
    lists: str, row: int | slice, column: str, value: object, check: str, reason: str
) -> None:
    made = good()
    getattr(made, lists).loc[row, column] = value
    assert failing(made) == {check: f"the list {reason}"}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (5, "1 users have a list, and 2 are to have one"),
        (9, "1 lists have not the length (at most 5) that catalogue and policy allow"),
    ],
)
def test_missing_or_short_list_fails(rows: int, reason: str) -> None:
    made = good()
    assert failing(PublishedLists(made.predictions[:rows], made.new_users)) == {"rows_are_plausible": reason}


def test_list_of_a_user_left_out_fails() -> None:
    def failing_with(lengths: dict[str, int], users: str) -> dict[str, str]:
        made = good()
        lists = PublishedLists(made.predictions[made.predictions.user_id.isin(users.split())], made.new_users)
        expected = Expectations(pd.Series(lengths), 5)
        results = checked(lists, expected=expected)
        return {result.check: result.reason for result in results if not result.passed}

    left_out = {"ann": 5, "bob": 0}
    assert failing_with(left_out, "ann") == {}
    assert failing_with(left_out, "ann bob") == {"rows_are_plausible": "2 users have a list, and 1 are to have one"}
    assert failing_with(left_out, "bob") == {"rows_are_plausible": "1 users have a list whom the policy leaves out"}


@pytest.mark.parametrize("newer", ["trained_gnn", "interactions"])
def test_input_from_the_target_week_fails(newer: str) -> None:
    assert failing(good(), {"trained_ranker": WEEK, newer: NEXT}) == {
        "no_input_newer_than_week": f"newer than week {WEEK}: {newer} ({NEXT})"
    }
