"""Why an event is on a list: a closed set of kinds, the numbers that each states, and one sentence for each.

A reason is four whole numbers: an index in `KINDS` and the values of that kind's parameters. They become words where
lists become rows. To add a kind, add it to `KINDS`, say in `reason_facts.py` of which pairs it is true, in
`reason_choice.py` what its removal takes from a pair, and in `reason_check.py` how the log refutes it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.weeks import week_key

WIDTH = 4
"""Numbers of a reason: the kind and at most three parameters."""
DAYS, WEEKS, EVENTS, COLUMNS = ("last",), ("first_week",), ("after", "with"), ("column",)
"""Parameters that are days since 1970, week numbers, event positions and attribute columns; all others are numbers."""


ReasonIds = NDArray[np.int32]
"""Rows of a `ReasonTable`; -1 for no reason."""


class ReasonKind(NamedTuple):
    """A kind of reason: the names of its parameters, its sentence, and what it says of the pair."""

    parameters: tuple[str, ...]
    sentence: str
    meaning: str


KINDS: Mapping[str, ReasonKind] = {
    "repeat": ReasonKind(
        ("weeks", "of", "last"),
        "{had} in {weeks} of the last {of} weeks, last on {last}",
        "The user had the event before.",
    ),
    "next_step": ReasonKind(
        ("after", "times"),
        "often follows {after}, which the {user} {had} last week ({times} times in the week after it{at_least})",
        "Users have the event in the week after another one, which this user had in the week that closed.",
    ),
    "together": ReasonKind(
        ("with", "users"),
        "often together with {with}, which the {user} {had} ({users} {had} both{at_least})",
        "Users who have the event also have another one, which this user had.",
    ),
    "popular": ReasonKind(
        ("users", "of", "place"),
        "popular: {users} {had} it {period}, place {place} among all {event}s",
        "Many users had the event lately; or it fills up a list that is too short.",
    ),
    "new": ReasonKind(
        ("first_week", "users"),
        "new: first {had} in the week of {first_week}, by {users} so far",
        "The event was first seen in the last four weeks.",
    ),
    "attributes": ReasonKind(
        ("column", "same", "of"),
        "same {column} as {same} of the {of} other {event}s that the {user} {had}",
        "The event has the category of events that the user had, in a column of TGN_EVENT_FEATURES.",
    ),
    "learned": ReasonKind(
        ("users",),
        "learned from what all {user}s {had}; {users} {had} it so far",
        "The learned vectors ranked the event; no other kind says more.",
    ),
    "variety": ReasonKind(
        ("users",),
        "for more variety among all lists; {users} {had} it so far",
        "TGN_MIN_DISTINCT_EVENTS put the event in the place of one that stands on many lists.",
    ),
}
REPEAT, NEXT_STEP, TOGETHER, POPULAR, NEW, ATTRIBUTES, LEARNED, VARIETY = range(len(KINDS))
"""Indices in `KINDS`."""
KIND_NAMES = tuple(KINDS)


@dataclass(frozen=True)
class ReasonTable:
    """The distinct reasons of a week. Lists hold its rows: far fewer reasons than rows are ever spelled out.

    `columns` names the attribute columns that reasons refer to. The counts of the kinds in `sampled` are lower bounds:
    not all users were counted.
    """

    at: dict[tuple[int, ...], int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    sampled: tuple[int, ...] = ()

    def add(self, reasons: IntArray) -> ReasonIds:
        """[...] the rows of `reasons` [..., WIDTH], which are entered where they are missing; -1 for kind -1."""
        flat = reasons.reshape(-1, WIDTH)
        order = np.lexsort(flat.T[::-1])  # as `np.unique` of rows, in a fraction of its time
        ordered = flat[order]
        is_first = np.append(True, (ordered[1:] != ordered[:-1]).any(1))[: len(order)]
        distinct = ordered[is_first].tolist()
        ids = [-1 if row[0] < 0 else self.at.setdefault(tuple(row), len(self.at)) for row in distinct]
        found = np.empty(len(order), np.int32)
        found[order] = np.array(ids, np.int32)[np.cumsum(is_first) - 1]
        shape: tuple[int, ...] = reasons.shape[:-1]
        return found.reshape(shape)

    def texts(self, event_ids: Sequence[str], words: Words) -> dict[str, Any]:
        """The reasons [r] as columns of the published tables, in `words`; `event_ids` are the ids by event position."""
        kinds, sentences, parameters = list[str](), list[str](), list[str]()
        for kind, *values in self.at:
            name = KIND_NAMES[kind]
            facts: dict[str, str | int | bool] = {
                parameter: _value(parameter, value, event_ids, self.columns)
                for parameter, value in zip(KINDS[name].parameters, values, strict=False)
            }
            if kind in self.sampled:
                facts["at_least"] = True
            kinds.append(name)
            sentences.append(_sentence(KINDS[name].sentence, facts, words))
            parameters.append(json.dumps(facts, ensure_ascii=False))
        columns = {"reason_kind": kinds, "reason": sentences, "reason_parameters": parameters}
        return {name: _categorical(values) for name, values in columns.items()}


def _value(parameter: str, value: int, event_ids: Sequence[str], columns: Sequence[str]) -> str | int:
    """The value of a parameter as a reader is shown it."""
    if parameter in DAYS:
        return (date(1970, 1, 1) + timedelta(days=value)).isoformat()
    if parameter in WEEKS:
        return week_key(value)
    if parameter in EVENTS:
        return str(event_ids[value])
    return columns[value] if parameter in COLUMNS else value


def _sentence(template: str, facts: Mapping[str, str | int | bool], words: Words) -> str:
    """`template` with facts and words filled in."""
    of = facts.get("of")
    shown = {name: words.counted(int(value)) if name == "users" else value for name, value in facts.items()}
    shown |= {"at_least": ", or more" if facts.get("at_least") else ""}
    period = "last week" if of == 1 else f"in the last {of} weeks"
    return template.format_map({**shown, "period": period, "user": words.user, "event": words.event, "had": words.had})


def _categorical(values: Sequence[str]) -> Any:
    code, texts = pd.factorize(np.array(values, dtype=object))
    return pd.Categorical.from_codes(code, dtype=pd.CategoricalDtype(pd.Index(texts, dtype=object)))
