"""Whether a week's predictions may be published: every finding must pass before a row of the table is replaced."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import Policy, Rules
from tgn_assets.ml.recommend.publish import PublishedLists
from tgn_assets.ml.schema import K
from tgn_assets.ml.weeks import shift

CHECKS = {
    "ranks_are_1_to_5": "Every list has ranks 1, 2, ... without gap or repetition, and names no event twice.",
    "events_known_before_target": "Every recommended event, and every user, had happened by the close of the week.",
    "scores_are_finite": "No score is missing or infinite.",
    "rows_are_plausible": "Every user with a history, and nobody else, has a list as long as may be.",
    "lists_follow_policy": "No list names an event that the policy excludes: denied, expired, already had, ...",
    "no_input_newer_than_week": "Nothing that the predictions were made from is newer than their week.",
}


@dataclass(frozen=True)
class Expectations:
    """What the policy makes of the lists: how long they are (by user id; for new users), and what must not be in them.

    `had` are the pairs (user_id, event_id) of the past if they must not be shown again.
    """

    lengths: pd.Series
    new_user_length: int
    excluded: Collection[str] = ()
    had: pd.MultiIndex | None = None


def expectations_of(
    policy: Policy, rules: Rules, history: InteractionHistory, users: pd.DataFrame, events: pd.DataFrame, week: str
) -> Expectations:
    """Those of `policy`, whose `rules` are for `events`, on the lists made at the close of `week` for `users`.

    `users` and `events` (column id) stand in the order of the positions of `history`.
    """
    names, user_ids = events.id.to_numpy(object), pd.Index(users.id.to_numpy(object))
    had = None
    if rules.exclude_own:
        had = pd.MultiIndex.from_arrays([user_ids[history.user], names[history.event]]).unique()
    lengths = pd.Series(rules.list_lengths(history), index=user_ids)
    return Expectations(lengths, rules.new_user_length(history), policy.excluded(names, week), had)


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one of `CHECKS`; `reason` says what is wrong (empty if nothing is), `numbers` how much."""

    check: str
    reason: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.reason


def publish_checks(
    publication: PublishedLists,
    users: pd.DataFrame,
    events: pd.DataFrame,
    week: str,
    input_weeks: Mapping[str, str],
    k: int = K,
    expectations: Expectations | None = None,
) -> list[CheckResult]:
    """One finding per entry of `CHECKS`, in that order, for the predictions made at the close of `week`.

    `users` and `events` (columns id, first_week) are those known then; `input_weeks` names each input with the newest
    week it holds. `expectations` None: anything may be recommended.
    """
    full = min(k, len(events))
    expectations = expectations or Expectations(pd.Series(full, index=users.id), full)
    lists = pd.concat([publication.predictions, publication.new_users.assign(user_id=None)], ignore_index=True)
    return [
        _ranks(lists, k),
        _known(lists, users, events),
        _finite(lists),
        _plausible(publication, expectations),
        _follows(lists, expectations),
        _not_newer(lists, week, {**input_weeks, **_newest(users, "users"), **_newest(events, "events")}),
    ]


def _ranks(lists: pd.DataFrame, k: int) -> CheckResult:
    # The list for new users belongs to nobody (user_id None): dropna would lose it.
    per_list = lists.groupby("user_id", dropna=False, sort=False)
    place = per_list["rank"].rank(method="first")
    wrong = lists[(lists["rank"] != place) | (lists["rank"] > k)]
    twice = lists[lists.duplicated(["user_id", "event_id"])]
    reason = _reason(wrong, "has ranks other than 1, 2, ...") or _reason(twice, "names an event twice")
    return CheckResult("ranks_are_1_to_5", reason, {"wrong_ranks": len(wrong), "repeated_events": len(twice)})


def _known(lists: pd.DataFrame, users: pd.DataFrame, events: pd.DataFrame) -> CheckResult:
    new_events = lists[~lists.event_id.isin(events.id)]
    new_users = lists[~lists.user_id.isin(users.id) & lists.user_id.notna()]
    reason = _reason(new_events, "names an event that had not happened") or _reason(new_users, "is of an unknown user")
    return CheckResult(
        "events_known_before_target", reason, {"unknown_events": len(new_events), "unknown_users": len(new_users)}
    )


def _finite(lists: pd.DataFrame) -> CheckResult:
    wrong = lists[~np.isfinite(lists.score.to_numpy(np.float64))]
    return CheckResult(
        "scores_are_finite", _reason(wrong, "has a score that is no finite number"), {"rows": len(wrong)}
    )


def _plausible(publication: PublishedLists, expectations: Expectations) -> CheckResult:
    lengths = publication.predictions.groupby("user_id", sort=False).size()
    expected = expectations.lengths[expectations.lengths > 0]
    served, general = len(lengths), len(publication.new_users)
    due = expected.reindex(lengths.index)
    short = int((due.notna() & (lengths != due)).sum())
    numbers = {"users": len(expected), "users_served": served, "lists_of_wrong_length": short, "new_user_rows": general}
    longest = int(expected.max()) if len(expected) else 0
    reason = ""
    if served != len(expected):
        reason = f"{served} users have a list, and {len(expected)} have a history"
    elif short:
        reason = f"{short} lists have not the length (at most {longest}) that catalogue and policy allow"
    elif general != expectations.new_user_length:
        reason = f"the list for new users has {general} events instead of {expectations.new_user_length}"
    return CheckResult("rows_are_plausible", reason, numbers)


def _follows(lists: pd.DataFrame, expectations: Expectations) -> CheckResult:
    out = lists.event_id.isin(list(expectations.excluded))
    again = pd.Series(False, index=lists.index)
    if expectations.had is not None:
        again = pd.Series(
            pd.MultiIndex.from_frame(lists[["user_id", "event_id"]]).isin(expectations.had), index=lists.index
        )
    reason = _reason(lists[out], "names an event that is not allowed, denied or expired") or _reason(
        lists[again], "names an event that the user has had"
    )
    numbers = {"excluded_events": int(out.sum()), "events_had_before": int(again.sum())}
    return CheckResult("lists_follow_policy", reason, numbers)


def _not_newer(lists: pd.DataFrame, week: str, input_weeks: Mapping[str, str]) -> CheckResult:
    newer = sorted(f"{name} ({newest})" for name, newest in input_weeks.items() if newest > week)
    misdated = lists[(lists.week != week) | (lists.target_week != shift(week, 1))]
    reason = f"newer than week {week}: {', '.join(newer)}" if newer else _reason(misdated, "is dated another week")
    return CheckResult("no_input_newer_than_week", reason, {"inputs": len(input_weeks), "newer_inputs": len(newer)})


def _newest(nodes: pd.DataFrame, name: str) -> dict[str, str]:
    return {name: nodes.first_week.max()} if len(nodes) else {}


def _reason(rows: pd.DataFrame, what: str) -> str:
    """What is wrong with the first of `rows` and with how many others; nothing if there are none."""
    if rows.empty:
        return ""
    user = rows.user_id.iloc[0]
    of = "the list for new users" if pd.isna(user) else f"the list of user {str(user)[:80]!r}"
    return f"{of} {what}" + (f" ({len(rows)} rows in all)" if len(rows) > 1 else "")
