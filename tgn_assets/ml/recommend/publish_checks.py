"""Whether a week's predictions may be published: every check must pass before a row of the table is replaced.

To add a check, write a function with the decorator `publish_check`: its name is the check's name, its docstring the
description that the UI shows. It is then run before every publication, by the weekly job too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Policy, Rules
from tgn_assets.ml.recommend.published import PublishedLists
from tgn_assets.ml.weeks import shift


@dataclass(frozen=True)
class CheckInput:
    """What the checks look at: lists made at the close of `week` for the `users` and from the `events` known then.

    `users` and `events` have the columns id and first_week, in the order of the positions of `history`; `rules` are
    those of `policy`; `input_weeks` names each input of the lists with the newest week that it holds.
    """

    lists: PublishedLists
    users: pd.DataFrame
    events: pd.DataFrame
    week: str
    input_weeks: Mapping[str, str]
    history: InteractionHistory
    policy: Policy
    rules: Rules

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows of all lists; the list for new users belongs to nobody, user_id None."""
        predictions, new_users = self.lists.predictions, self.lists.new_users
        nobody = pd.Series(None, index=new_users.index, dtype=predictions.user_id.dtype)
        return pd.concat([predictions, new_users.assign(user_id=nobody)], ignore_index=True)


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one of `CHECKS`; `reason` says what is wrong (empty if nothing is), `numbers` how much."""

    check: str
    reason: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reason


Check = Callable[[CheckInput], tuple[str, Mapping[str, int]]]
"""`CheckResult.reason` and `CheckResult.numbers` of some lists."""

CHECKS: dict[str, Check] = {}
"""The registry of checks by name, in the order in which they are shown."""


def publish_check(check: Check) -> Check:
    """Enters `check` in `CHECKS`, under its name."""
    CHECKS[check.__name__] = check
    return check


def description_of(check: str) -> str:
    """What the check of that name looks at, for the UI."""
    return " ".join(str(CHECKS[check].__doc__).split())


def publish_checks(given: CheckInput) -> list[CheckResult]:
    """One result per entry of `CHECKS`, in that order."""
    return [CheckResult(name, *check(given)) for name, check in CHECKS.items()]


@publish_check
def ranks_are_consecutive(given: CheckInput) -> tuple[str, Mapping[str, int]]:
    """Every list has ranks 1, 2, ... up to k, without gap or repetition, and names no event twice."""
    # The list for new users belongs to nobody (user_id None): dropna would lose it.
    rows = given.rows
    expected = rows.groupby("user_id", dropna=False, sort=False, observed=True)["rank"].rank(method="first")
    wrong = rows[(rows["rank"] != expected) | (rows["rank"] > given.rules.k)]
    twice = rows[rows.duplicated(["user_id", "event_id"])]
    reason = _reason(wrong, "has ranks other than 1, 2, ...") or _reason(twice, "names an event twice")
    return reason, {"wrong_ranks": len(wrong), "repeated_events": len(twice)}


@publish_check
def events_known_before_target(given: CheckInput) -> tuple[str, Mapping[str, int]]:
    """Every recommended event, and every user, had happened by the close of the week."""
    rows = given.rows
    new_events = rows[~rows.event_id.isin(given.events.id)]
    new_users = rows[~rows.user_id.isin(given.users.id) & rows.user_id.notna()]
    reason = _reason(new_events, "names an event that had not happened") or _reason(new_users, "is of an unknown user")
    return reason, {"unknown_events": len(new_events), "unknown_users": len(new_users)}


@publish_check
def scores_are_finite(given: CheckInput) -> tuple[str, Mapping[str, int]]:
    """No score is missing or infinite."""
    wrong = given.rows[~np.isfinite(given.rows.score.to_numpy(np.float64))]
    return _reason(wrong, "has a score that is no finite number"), {"rows": len(wrong)}


@publish_check
def rows_are_plausible(given: CheckInput) -> tuple[str, Mapping[str, int]]:
    """Every user with a history whom the policy does not leave out, and nobody else, has a list as long as may be."""
    lengths = given.lists.predictions.groupby("user_id", sort=False, observed=True).size()
    lengths.index = lengths.index.astype(object)
    of_all = pd.Series(given.rules.list_lengths(given.history), index=given.users.id.astype(object))
    expected, for_new_users = of_all[of_all > 0], given.rules.new_user_length(given.history)
    served, general = len(lengths), len(given.lists.new_users)
    due = of_all.reindex(lengths.index)
    undue, short = int((due == 0).sum()), int(((due > 0) & (lengths != due)).sum())
    numbers = {"users": len(expected), "users_served": served, "lists_of_wrong_length": short, "new_user_rows": general}
    longest = int(expected.max()) if len(expected) else 0
    reason = ""
    if served != len(expected):
        reason = f"{served} users have a list, and {len(expected)} are to have one"
    elif undue:
        reason = f"{undue} users have a list whom the policy leaves out"
    elif short:
        reason = f"{short} lists have not the length (at most {longest}) that catalogue and policy allow"
    elif general != for_new_users:
        reason = f"the list for new users has {general} events instead of {for_new_users}"
    return reason, numbers


@publish_check
def lists_follow_policy(given: CheckInput) -> tuple[str, Mapping[str, int]]:
    """No list names an event that the policy excludes: denied, expired, already had, ..."""
    rows, history = given.rows, given.history
    user_ids, event_ids = given.users.id.to_numpy(object), given.events.id.to_numpy(object)
    out = rows.event_id.isin(list(given.policy.excluded(event_ids, given.week)))
    again = pd.Series(False, index=rows.index)
    if given.rules.exclude_repeats:
        had = pd.MultiIndex.from_arrays([user_ids[history.user], event_ids[history.event]])
        again[:] = pd.MultiIndex.from_frame(rows[["user_id", "event_id"]]).isin(had)
    reason = _reason(rows[out], "names an event that is not allowed, denied or expired") or _reason(
        rows[again], "names an event that the user has had"
    )
    return reason, {"excluded_events": int(out.sum()), "events_had_before": int(again.sum())}


@publish_check
def no_input_newer_than_week(given: CheckInput) -> tuple[str, Mapping[str, int]]:
    """Nothing that the predictions were made from is newer than their week."""
    rows, week = given.rows, given.week
    nodes = {"users": given.users, "events": given.events}
    inputs = {**given.input_weeks, **{name: known.first_week.max() for name, known in nodes.items() if len(known)}}
    newer = sorted(f"{name} ({newest})" for name, newest in inputs.items() if newest > week)
    misdated = rows[(rows.week != week) | (rows.target_week != shift(week, 1))]
    reason = f"newer than week {week}: {', '.join(newer)}" if newer else _reason(misdated, "is dated another week")
    return reason, {"inputs": len(inputs), "newer_inputs": len(newer)}


def _reason(rows: pd.DataFrame, what: str) -> str:
    """What is wrong with the first of `rows` and with how many others; nothing if there are none."""
    if rows.empty:
        return ""
    user = rows.user_id.iloc[0]
    of = "the list for new users" if pd.isna(user) else f"the list of user {str(user)[:80]!r}"
    return f"{of} {what}" + (f" ({len(rows)} rows in all)" if len(rows) > 1 else "")
