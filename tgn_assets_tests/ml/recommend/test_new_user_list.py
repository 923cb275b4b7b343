import numpy as np

from tgn_assets.ml.evaluation.baselines import popular
from tgn_assets.ml.recommend.new_user_list import new_user_list
from tgn_assets.ml.schema import OURS
from tgn_assets_tests.support.worlds import Row, history


def starters(weeks: int) -> list[Row]:
    """Every week two new users begin with the same five events; everybody else is at twenty others, much more often."""
    rows: list[Row] = []
    for week in range(weeks):
        rows += [(f"new{week}{twin}", f"start{event}", week, 1) for twin in "ab" for event in range(5)]
        rows += [(f"old{user}", f"daily{(user + week) % 20:02}", week, 3) for user in range(20)]
    return rows


def test_new_users_rule_wins_where_it_did_better() -> None:
    found = new_user_list(history(starters(8), 7))
    assert sorted(found.events) == [20, 21, 22, 23, 24]  # of the events of week 0, by name, the five after the twenty
    assert found.source == OURS
    assert (found.hit_rate > 0.8).all() and (np.diff(found.hit_rate) <= 0).all()


def test_popular_wins_ties_and_without_history() -> None:
    rows = [(f"u{week}", "tea", week, 1) for week in range(6)]
    found = new_user_list(history(rows, 5))
    assert found.source == "popular"
    assert found.events.tolist() == [0, -1, -1, -1, -1] == popular(history(rows, 5)).tolist()
    assert new_user_list(history([("ann", "tea", 0, 1)], 0)).hit_rate.tolist() == [0] * 5


def test_new_user_list_does_not_depend_on_the_future() -> None:
    later = [(f"late{user}", "hype", 8, 50) for user in range(30)]
    before = new_user_list(history(starters(8), 7))
    whole = history([*starters(8), *later], 8)
    after = new_user_list(whole.as_of(whole.week - 1))
    np.testing.assert_array_equal(before.events, after.events)
    np.testing.assert_array_equal(before.hit_rate, after.hit_rate)


def test_scores_follow_a_log_that_drifts() -> None:
    """Each week five percent fewer of 100 new users begin with the same five events: 95, 90, 86, ... of them."""

    def rows(weeks: int) -> list[Row]:
        return [
            (f"{week}/{user}", f"start{event}" if user < 100 * 0.95**week else f"odd{week}/{user}/{event}", week, 1)
            for week in range(weeks)
            for user in range(100)
            for event in range(5)
        ]

    found, happened = new_user_list(history(rows(16), 15)).hit_rate, 0.95**16
    unfaded = np.mean([0.95**week for week in range(4, 16)])
    assert unfaded > 1.38 * happened
    assert happened < found[0] < 1.23 * happened


def test_a_rule_that_won_by_chance_has_no_better_score() -> None:
    def score(seed: int) -> float:
        """Anything may be next, of 200 events: whatever the best rule hit, it hit by chance."""
        rng, rows = np.random.default_rng(seed), list[Row]()
        for week in range(14):
            rows += [(f"{week}/{user}", f"e{event}", week, 1) for user, event in enumerate(rng.integers(0, 200, 30))]
        return float(new_user_list(history(rows, 13)).hit_rate.sum())

    assert np.mean([score(seed) for seed in range(20)]) < 1.3 * 5 / 200
