from itertools import product
from math import inf, nan

import pandas as pd
import pytest

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.recommend.publish_checks import CHECKS, CheckInput, CheckResult, description_of, publish_checks
from tgn_assets.ml.recommend.published import PublishedLists, rules_of
from tgn_assets.ml.weeks import week_number

WEEK, NEXT = "2024-01-01", "2024-01-08"
KNOWN = "events_known_before_target"
BOBS = slice(5, 9)
USERS = pd.DataFrame({"idx": [0, 1], "id": ["ann", "bob"], "first_week": [WEEK, "2023-12-25"]})
EVENTS = pd.DataFrame({"idx": range(6), "id": list("abcdef"), "first_week": WEEK})
POLICY = Policy()
Past = list[tuple[int, int, int]]
"""Users and events by index, and weeks ago."""


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
    policy: Policy = POLICY,
    past: Past | None = None,
) -> list[CheckResult]:
    """The results of all checks; unless the `past` is another one, everybody had every event in the week."""
    rows = past or [(user, event, 0) for user, event in product(users.idx, events.idx)]
    frame = pd.DataFrame(rows, columns=["user_idx", "event_idx", "age"]).assign(event_order=lambda row: row.event_idx)
    history = InteractionHistory.from_frame(frame.assign(week_no=week_number(WEEK) - frame.age, count=1), WEEK)
    inputs = inputs or {"trained_ranker": WEEK}
    rules = rules_of(policy, events)
    return publish_checks(CheckInput(lists, users, events, WEEK, inputs, history, policy, rules))


def failing(
    lists: PublishedLists,
    inputs: dict[str, str] | None = None,
    policy: Policy = POLICY,
    past: Past | None = None,
) -> dict[str, str]:
    """Reasons by check, of the checks that fail."""
    results = checked(lists, inputs=inputs, policy=policy, past=past)
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


def lists_of(*users: str) -> PublishedLists:
    made = good()
    return PublishedLists(made.predictions[made.predictions.user_id.isin(users)], made.new_users)


def test_list_of_a_user_left_out_fails() -> None:
    policy = Policy(max_silent_weeks=0)
    past: Past = [*((0, event, 0) for event in EVENTS.idx), (1, 0, 1)]  # bob was silent in the week
    assert failing(lists_of("ann"), policy=policy, past=past) == {}
    for users, reason in (
        (("ann", "bob"), "2 users have a list, and 1 are to have one"),
        (("bob",), "1 users have a list whom the policy leaves out"),
    ):
        assert failing(lists_of(*users), policy=policy, past=past) == {"rows_are_plausible": reason}


@pytest.mark.parametrize("policy", [Policy(deny=frozenset("a")), Policy(allow=frozenset("bcdef"))])
def test_event_that_the_policy_excludes_fails(policy: Policy) -> None:
    reason = "the list of user 'ann' names an event that is not allowed, denied or expired (3 rows in all)"
    assert failing(good(), policy=policy) == {"lists_follow_policy": reason}


def test_event_that_the_user_has_had_fails_where_repeats_are_excluded() -> None:
    past: Past = [*((0, event, 0) for event in EVENTS.idx), (1, 0, 1)]  # ann had everything, bob had a
    assert failing(lists_of("bob"), policy=Policy(repeats="exclude"), past=past) == {
        "lists_follow_policy": "the list of user 'bob' names an event that the user has had"
    }


@pytest.mark.parametrize("newer", ["trained_gnn", "interactions"])
def test_input_from_the_target_week_fails(newer: str) -> None:
    assert failing(good(), {"trained_ranker": WEEK, newer: NEXT}) == {
        "no_input_newer_than_week": f"newer than week {WEEK}: {newer} ({NEXT})"
    }
