from collections.abc import Callable

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


def test_short_catalogue_passes() -> None:
    made = good()
    few = PublishedLists(made.predictions[made.predictions["rank"] <= 3], made.new_users[made.new_users["rank"] <= 3])
    assert all(result.passed for result in checked(few, events=EVENTS[:3]))


def test_empty_history_passes() -> None:
    made = good()
    none = PublishedLists(made.predictions[:0], made.new_users[:0])
    assert all(result.passed for result in checked(none, USERS[:0], EVENTS[:0]))


def test_every_check_is_described() -> None:
    for name in CHECKS:
        assert len(description_of(name)) > 20 and description_of(name).endswith("."), name


def rank_twice(made: PublishedLists) -> None:
    made.predictions.loc[1, "rank"] = 1


def rank_six(made: PublishedLists) -> None:
    made.predictions.loc[4, "rank"] = 6


def event_twice_for_new_users(made: PublishedLists) -> None:
    made.new_users.loc[1, "event_id"] = "a"


def future_event(made: PublishedLists) -> None:
    made.predictions.loc[7, "event_id"] = "launched next week"


def infinite_score(made: PublishedLists) -> None:
    made.predictions.loc[3, "score"] = float("inf")


def missing_score_for_new_users(made: PublishedLists) -> None:
    made.new_users.loc[0, "score"] = float("nan")


def another_target_week(made: PublishedLists) -> None:
    made.predictions.loc[0, "target_week"] = "2024-01-15"


@pytest.mark.parametrize(
    ("damage", "check", "reason"),
    [
        (rank_twice, "ranks_are_consecutive", "the list of user 'ann' has ranks other than 1, 2, ..."),
        (rank_six, "ranks_are_consecutive", "the list of user 'ann' has ranks other than 1, 2, ..."),
        (event_twice_for_new_users, "ranks_are_consecutive", "the list for new users names an event twice"),
        (future_event, "events_known_before_target", "the list of user 'bob' names an event that had not happened"),
        (infinite_score, "scores_are_finite", "the list of user 'ann' has a score that is no finite number"),
        (
            missing_score_for_new_users,
            "scores_are_finite",
            "the list for new users has a score that is no finite number",
        ),
        (another_target_week, "no_input_newer_than_week", "the list of user 'ann' is dated another week"),
    ],
)
def test_each_damage_fails_its_check_alone(damage: Callable[[PublishedLists], None], check: str, reason: str) -> None:
    made = good()
    damage(made)
    assert failing(made) == {check: reason}


def test_missing_list_fails() -> None:
    made = good()
    without_bob = PublishedLists(made.predictions[made.predictions.user_id == "ann"], made.new_users)
    assert failing(without_bob) == {"rows_are_plausible": "1 users have a list, and 2 are to have one"}


def test_short_list_fails() -> None:
    made = good()
    short = PublishedLists(made.predictions[:-1], made.new_users)
    assert failing(short) == {
        "rows_are_plausible": "1 lists have not the length (at most 5) that catalogue and policy allow"
    }


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


def test_unknown_user_fails() -> None:
    made = good()
    made.predictions.loc[made.predictions.user_id == "bob", "user_id"] = "eve"
    assert failing(made) == {
        "events_known_before_target": "the list of user 'eve' is of an unknown user (5 rows in all)"
    }


@pytest.mark.parametrize("newer", ["trained_gnn", "interactions"])
def test_input_from_the_target_week_fails(newer: str) -> None:
    assert failing(good(), {"trained_ranker": WEEK, newer: NEXT}) == {
        "no_input_newer_than_week": f"newer than week {WEEK}: {newer} ({NEXT})"
    }
