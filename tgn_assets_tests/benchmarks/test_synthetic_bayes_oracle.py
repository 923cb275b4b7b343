"""The Bayes oracle of the synthetic world, beside the oracle that knows the habits."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import synthetic_bayes_oracle, synthetic_oracle
from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.sources.synthetic import WeekState, World, generate_week
from tgn_assets.ml.weeks import shift, week_number

FIRST, WEEK = "2025-04-28", "2025-08-04"
SMALL = World(users=70, events=40, communities=4)


WEEK_STATE = cache(WeekState)
"""Of the same weeks in most tests."""


@pytest.fixture(autouse=True, scope="module")
def states_are_kept() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_bayes_oracle, "WeekState", WEEK_STATE)
        yield


def users_before(week: str, world: World) -> list[str]:
    """The users of the week before."""
    return WEEK_STATE(world, week_number(week) - 1).user_ids().tolist()


def true_chance(week: str, users: list[str], events: list[str], world: World) -> FloatArray:
    """What the oracle knows of the same pairs."""
    names, chance = synthetic_oracle.interaction_chances(week, users, world)
    at = pd.Index(names).get_indexer(pd.Index(events))
    return np.where(at >= 0, chance[:, at], 0.0)


@pytest.fixture(scope="module")
def inferred_in_week() -> tuple[list[str], FloatArray]:
    """(events, chances) of WEEK for its users."""
    return synthetic_bayes_oracle.interaction_chances(WEEK, users_before(WEEK, SMALL), FIRST, SMALL)


def test_inferred_chances_are_calibrated(inferred_in_week: tuple[list[str], FloatArray]) -> None:
    later = shift(WEEK, 6)
    weeks = {
        WEEK: inferred_in_week,
        later: synthetic_bayes_oracle.interaction_chances(later, users_before(later, SMALL), FIRST, SMALL),
    }
    pairs = []
    for week, (events, inferred) in weeks.items():
        pairs.append(np.stack([inferred.ravel(), true_chance(week, users_before(week, SMALL), events, SMALL).ravel()]))
    inferred, true = np.concatenate(pairs, axis=1)
    part = np.digitize(inferred, [0.05, 0.2, 0.5])
    for at, tolerance in enumerate([0.01, 0.02, 0.04, 0.04]):
        assert true[part == at].mean() == pytest.approx(inferred[part == at].mean(), abs=tolerance)


def test_history_reveals_habits_in_part(inferred_in_week: tuple[list[str], FloatArray]) -> None:
    users, (events, inferred) = users_before(WEEK, SMALL), inferred_in_week
    _, uninformed = synthetic_bayes_oracle.interaction_chances(WEEK, users, shift(WEEK, -1), SMALL)
    true = true_chance(WEEK, users, events, SMALL)
    errors = [((guess - true) ** 2).mean() for guess in (true, inferred, uninformed)]
    assert errors[0] < errors[1] < 0.8 * errors[2]


def test_reads_only_weeks_before_target(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def generate_and_note(week: str, world: World) -> pd.DataFrame:
        read.append(week)
        return generate_week(week, world)

    monkeypatch.setattr(synthetic_bayes_oracle, "generate_week", generate_and_note)
    synthetic_bayes_oracle.interaction_chances(WEEK, users_before(WEEK, SMALL), shift(WEEK, -3), SMALL)
    assert read == [shift(WEEK, -3), shift(WEEK, -2), shift(WEEK, -1)]


def test_without_exploration_every_interaction_is_a_habit() -> None:
    world = World(users=50, events=30, communities=3, explorations=0)
    users, before = users_before(WEEK, world), generate_week(shift(WEEK, -1), world)
    events, chance = synthetic_bayes_oracle.interaction_chances(WEEK, users, shift(WEEK, -1), world)
    pairs = (pd.Index(users), before.user_id), (pd.Index(events), before.event_id)
    repeated = tuple(known.get_indexer(pd.Index(ids)) for known, ids in pairs)
    # At most .7 for a weekly habit, and it may end or not be due.
    still = chance[repeated][chance[repeated] > 0]
    assert still.min() > 0.3
    assert still.max() < 0.7
    others = np.ones(chance.shape, bool)
    others[repeated] = False
    assert chance[others].mean() < 0.05


def test_unknown_user_has_no_chance() -> None:
    _, chance = synthetic_bayes_oracle.interaction_chances(WEEK, ["nobody"], shift(WEEK, -1), SMALL)
    assert chance.sum() == 0
