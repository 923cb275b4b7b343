"""What may be recommended to whom, whatever the scores: list length, repeats, allowed and expired events.

A `Policy` names event ids; the user configures it. `Rules` are the same policy for the nodes of a warehouse. The ranker
and every baseline get the same rules, so that their lists are comparable.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.data.interactions import Catalogue, InteractionHistory
from tgn_assets.ml.schema import K
from tgn_assets.ml.weeks import shift, week_number, week_of

Repeats = Literal["learned", "exclude"]
NEVER = -(2**31)


@dataclass(frozen=True)
class Rules:
    """A policy for node indices. An event in `restricted` may be recommended up to its `last_week`."""

    k: int = K
    exclude_repeats: bool = False  # whether lists leave out the events that the user has interacted with
    min_distinct: int = 0  # distinct events that the lists of a week hold together, if so many are allowed
    restricted: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))  # [r] event indices, ascending
    last_week: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))  # [r] week numbers
    max_silent_weeks: int | None = None  # who was silent for longer has no list; None: everybody has one

    def allowed(self, known_events: Catalogue, week: int | None = None) -> BoolArray:
        """[E] the event may be listed for the week after week number `week` (None: the catalogue's), to a new user."""
        week = known_events.week if week is None else week
        free = np.ones(known_events.num_events, bool)
        if len(self.restricted) and known_events.num_events:
            at = np.searchsorted(known_events.event_idx, self.restricted).clip(max=known_events.num_events - 1)
            known = known_events.event_idx[at] == self.restricted
            free[at[known]] = self.last_week[known] > week
        return free

    def permits(self, history: InteractionHistory, users: IntArray, events: IntArray) -> BoolArray:
        """[m] whether each pair of user position (-1: a new user) and event position may be in a list."""
        free = self.allowed(history)[events]
        if not self.exclude_repeats:
            return free
        return free & ((users < 0) | ~np.isin(users * history.num_events + events, repeat_pairs(history)))

    def have_lists(self, history: InteractionHistory) -> BoolArray:
        """[U] whether each user gets a list: false for those who were silent for too long up to the history's week."""
        if self.max_silent_weeks is None:
            return np.ones(history.num_users, bool)
        heard = int(np.searchsorted(history.week_no, history.week - self.max_silent_weeks))
        have = np.zeros(history.num_users, bool)
        have[history.user[heard:]] = True
        return have

    def list_lengths(self, history: InteractionHistory) -> IntArray:
        """[U] the length of each user's list: k, or fewer if fewer events may be recommended; 0 without a list."""
        free = self.allowed(history)
        choice = np.where(self.have_lists(history), int(free.sum()), 0)
        if self.exclude_repeats:
            user, event = np.divmod(repeat_pairs(history), max(history.num_events, 1))
            choice -= np.bincount(user[free[event]], minlength=history.num_users)
        return np.clip(choice, 0, self.k)

    def new_user_length(self, history: InteractionHistory) -> int:
        """Number of events in the list for new users."""
        return min(self.k, int(self.allowed(history).sum()))


NO_RULES = Rules()
"""The usual length, and every event is allowed."""


def repeat_pairs(history: InteractionHistory) -> IntArray:
    """User position * num_events + event position of every pair that has interacted, ascending."""
    return np.unique(history.user.astype(np.int64) * history.num_events + history.event)


@dataclass(frozen=True)
class Policy:
    """What a deployment may recommend. Everything but `expires` holds for every week alike."""

    k: int = K
    repeats: Repeats = "learned"
    """`learned`: the ranker decides whether to repeat a user's own events; `exclude`: lists leave them out."""
    allow: frozenset[str] | None = None  # the only events that may be recommended; None: all
    deny: frozenset[str] = frozenset()
    expires: Mapping[str, datetime] = field(default_factory=dict)  # (UTC) from when on an event is not recommended
    min_distinct_events: int = 0  # as `Rules.min_distinct`
    max_silent_weeks: int | None = None  # as in `Rules`

    def rules(self, event_idx: IntArray, event_ids: Iterable[str]) -> Rules:
        """The policy for the events with the warehouse indices `event_idx` and, in that order, the ids `event_ids`."""
        last = []
        for idx, name in zip(event_idx.tolist(), event_ids, strict=True):
            if self._bars(name):
                last.append((idx, NEVER))
            elif name in self.expires:
                # The last week that begins before the event expires.
                last.append((idx, week_number(week_of(self.expires[name] - timedelta(microseconds=1)))))
        restricted, last_week = np.array(sorted(last), np.int64).reshape(-1, 2).T
        exclude_repeats = self.repeats == "exclude"
        return Rules(self.k, exclude_repeats, self.min_distinct_events, restricted, last_week, self.max_silent_weeks)

    def _bars(self, name: str) -> bool:
        return name in self.deny or (self.allow is not None and name not in self.allow)

    def excluded(self, event_ids: Iterable[str], week: str) -> set[str]:
        """The `event_ids` that may not be in lists made at the close of `week`."""
        expired = self.as_of(week).expires
        return {name for name in event_ids if name in expired or self._bars(name)}

    def leaves_none_of(self, event_ids: Collection[str], week: str) -> bool:
        """Whether there are `event_ids`, and none of them may be in lists made at the close of `week`."""
        return 0 < len(event_ids) == len(self.excluded(event_ids, week))

    def named(self) -> dict[str, frozenset[str]]:
        """The event ids that it names, by the setting that does."""
        return {
            "TGN_ALLOW_EVENTS": self.allow or frozenset(),
            "TGN_DENY_EVENTS": self.deny,
            "TGN_EVENT_EXPIRY": frozenset(self.expires),
        }

    def as_of(self, week: str) -> "Policy":
        """The policy for lists made at the close of `week`: an expiry after their target week starts is dropped."""
        start = datetime.fromisoformat(shift(week, 1)).replace(tzinfo=UTC)
        return replace(self, expires={name: when for name, when in self.expires.items() if when <= start})

    def without(self, is_forgotten: Callable[[str], bool]) -> "Policy":
        """The policy without the events for which `is_forgotten` is true: no list can have them anyway."""
        allow = None if self.allow is None else frozenset(event for event in self.allow if not is_forgotten(event))
        deny = frozenset(event for event in self.deny if not is_forgotten(event))
        expires = {event: when for event, when in self.expires.items() if not is_forgotten(event)}
        return replace(self, allow=allow, deny=deny, expires=expires)

    def to_json(self) -> str:
        """JSON text; equal policies give the same text."""
        stored = vars(self) | {"expires": {name: when.isoformat() for name, when in sorted(self.expires.items())}}
        if self.max_silent_weeks is None:
            del stored["max_silent_weeks"]  # as in the records of releases without it
        return json.dumps(stored, default=sorted)  # a set as a sorted list

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """Reads what `to_json` wrote."""
        stored: dict[str, Any] = json.loads(text)
        allow = None if stored["allow"] is None else frozenset(stored["allow"])
        expires = {name: datetime.fromisoformat(when) for name, when in stored["expires"].items()}
        return cls(**stored | {"allow": allow, "deny": frozenset(stored["deny"]), "expires": expires})
