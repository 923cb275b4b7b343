"""What the historian infers, beside the oracle that knows."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import synthetic_bayes_oracle, synthetic_oracle
from tgn_assets.ml.sources.synthetic import WeekState, World, generate_week
from tgn_assets.ml.weeks import shift, week_number

FIRST, WEEK = "2025-04-28", "2025-08-04"
SMALL = World(users=150, events=60, communities=4)


def known(week: str, world: World) -> list[str]:
    """The users who were there the week before."""
    return WeekState(world, week_number(week) - 1).user_ids().tolist()


def of_oracle(week: str, users: list[str], events: list[str], world: World) -> np.ndarray:
    names, chance = synthetic_oracle.touch_probabilities(week, users, world)
    at = pd.Index(names).get_indexer(pd.Index(events))
    return np.where(at >= 0, chance[:, at], 0.0)


@pytest.fixture(scope="module")
def told() -> tuple[list[str], np.ndarray]:
    """What the historian makes of WEEK for its users."""
    return synthetic_bayes_oracle.touch_probabilities(WEEK, known(WEEK, SMALL), FIRST, SMALL)


def test_what_is_inferred_is_right_on_average_whatever_the_chance(told):
    later = shift(WEEK, 6)
    weeks = {WEEK: told, later: synthetic_bayes_oracle.touch_probabilities(later, known(later, SMALL), FIRST, SMALL)}
    pairs = []
    for week, (events, inferred) in weeks.items():
        pairs.append(np.stack([inferred.ravel(), of_oracle(week, known(week, SMALL), events, SMALL).ravel()]))
    inferred, true = np.concatenate(pairs, axis=1)
    part = np.digitize(inferred, [0.05, 0.2, 0.5])
    for at, tolerance in enumerate([0.01, 0.02, 0.04, 0.04]):
        assert true[part == at].mean() == pytest.approx(inferred[part == at].mean(), abs=tolerance)


def test_a_history_tells_something_of_habits_but_not_all(told):
    users, (events, inferred) = known(WEEK, SMALL), told
    _, uninformed = synthetic_bayes_oracle.touch_probabilities(WEEK, users, shift(WEEK, -1), SMALL)
    true = of_oracle(WEEK, users, events, SMALL)
    errors = [((guess - true) ** 2).mean() for guess in (true, inferred, uninformed)]
    assert errors[0] < errors[1] < 0.8 * errors[2]


def test_nothing_is_read_of_the_week_or_later(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def noted(week: str, world: World) -> pd.DataFrame:
        asked.append(week)
        return generate_week(week, world)

    monkeypatch.setattr(synthetic_bayes_oracle, "generate_week", noted)
    synthetic_bayes_oracle.touch_probabilities(WEEK, known(WEEK, SMALL), shift(WEEK, -3), SMALL)
    assert asked == [shift(WEEK, -3), shift(WEEK, -2), shift(WEEK, -1)]


def test_where_nobody_explores_an_event_that_was_touched_is_a_habit():
    world = World(users=100, events=30, communities=3, explorations=0)
    users, before = known(WEEK, world), generate_week(shift(WEEK, -1), world)
    events, chance = synthetic_bayes_oracle.touch_probabilities(WEEK, users, shift(WEEK, -1), world)
    touched = pd.Index(users).get_indexer(before.user_id), pd.Index(events).get_indexer(before.event_id)
    # At most .7 for a weekly habit, and it may end or not be due.
    still = chance[touched][chance[touched] > 0]
    assert still.min() > 0.3 and still.max() < 0.7
    others = np.ones(chance.shape, bool)
    others[touched] = False
    assert chance[others].mean() < 0.05


def test_a_user_who_is_not_there_has_no_chance():
    _, chance = synthetic_bayes_oracle.touch_probabilities(WEEK, ["nobody"], shift(WEEK, -1), SMALL)
    assert chance.sum() == 0
