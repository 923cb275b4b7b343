"""Options of a `Recommender` as the policy and the configurations of the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from tgn_assets.ml.config import PresetName
from tgn_assets.ml.data.policy import Policy, Repeats
from tgn_assets.ml.data.policy_files import expiry_times
from tgn_assets.ml.presets import PRESETS, Config, with_preset
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.weeks import week_key, week_number
from tgn_assets.recommender.tables import ids_as_text, read_features


def policy_of(
    k: int,
    *,
    repeats: Repeats,
    allow: Iterable[Any] | None,
    deny: Iterable[Any],
    event_expiry: Any,
    min_distinct_events: int,
    max_silent_weeks: int | None,
) -> Policy:
    """The policy that the options of a notebook describe. ValueError names one that cannot be used."""
    if not 1 <= k <= 100:
        raise ValueError(f"k is {k}; a list has 1 to 100 events")
    if repeats not in ("learned", "exclude"):
        raise ValueError(f"repeats is {repeats!r}; it may be 'learned' or 'exclude'")
    for name, ids in {"allow": allow, "deny": deny}.items():
        if isinstance(ids, str):
            raise ValueError(f"{name} is {ids!r}; give a list of ids, [{ids!r}]")
    allowed = None if allow is None else _texts(allow)
    if allowed is not None and not allowed:
        raise ValueError("allow holds no event id; leave it out where every event may be recommended")
    for name, number in {"min_distinct_events": min_distinct_events, "max_silent_weeks": max_silent_weeks or 0}.items():
        if number < 0:
            raise ValueError(f"{name} is {number}; it may be 0 or more")
    return Policy(k, repeats, allowed, _texts(deny), _expiry(event_expiry), min_distinct_events, max_silent_weeks)


def words_of(nouns: str) -> Words:
    """The words of reasons. ValueError if `nouns` are not three."""
    try:
        return Words.parse(nouns)
    except ValueError as error:
        raise ValueError(f"nouns={error}") from None


def config_of(config: Config, preset: PresetName, seed: int | None) -> Config:
    """`config` with the `seed`, if any, and the values of `preset` in fields at their default."""
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; it may be {', '.join(map(repr, PRESETS))}")
    seeded = config if seed is None else type(config).model_validate(config.model_dump() | {"seed": seed})
    return with_preset(seeded, preset)


def monday(week: str | None) -> str | None:
    """`week` in its usual form. ValueError if it is no Monday."""
    return None if week is None else week_key(week_number(week))


def _expiry(given: Any) -> dict[str, datetime]:
    """Event id as text -> when it expires, of a table or of a mapping of ids to times."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        given = pd.DataFrame({"event_id": list(given), "expires_at": list(given.values())})
    table = read_features(given, "event", "event_id", name="event_expiry")
    assert table is not None
    if "expires_at" not in table:
        raise ValueError(f"event_expiry has no column expires_at; its columns are {', '.join(table.columns)}")
    return expiry_times(table)


def _texts(ids: Iterable[Any]) -> frozenset[str]:
    return frozenset(text for text in ids_as_text(pd.Series(list(ids), dtype=object)) if text is not None)
