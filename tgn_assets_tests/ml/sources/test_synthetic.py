from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.synthetic_oracle import ceiling, interaction_chances, oracle_lists
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.evaluation.baselines import all_baselines
from tgn_assets.ml.evaluation.metrics import per_user
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift, week_key, week_number

WEEK = "2026-01-05"
SMALL = World(users=150, events=100, communities=5)
worlds = st.builds(
    World,
    seed=st.integers(0, 2**63 - 1),
    users=st.integers(1, 60),
    events=st.integers(12, 40),
    communities=st.integers(1, 12),
    habits=st.integers(0, 3),
    explorations=st.floats(0, 5),
    drift=st.integers(1, 30),
    focus=st.floats(0, 1),
    background=st.floats(0, 1),
)
mondays = st.integers(0, week_number("2199-12-30")).map(week_key)


def weeks(count: int, start: str = WEEK) -> list[str]:
    return [shift(start, offset) for offset in range(count)]


def pairs(week: str, world: World) -> set[tuple[str, str]]:
    frame = generate_week(week, world)
    return set(zip(frame.user_id, frame.event_id, strict=True))


def chances(week: str, world: World, users: list[str]) -> pd.DataFrame:
    events, chance = interaction_chances(week, users, world)
    return pd.DataFrame(chance, users, events)


def lasting_users(keys: Iterable[str], world: World) -> list[str]:
    return sorted(set.intersection(*(set(generate_week(week, world).user_id) for week in keys)))


@settings(max_examples=25, deadline=None)
@given(week=mondays, world=worlds)
def test_generated_week_is_sorted_and_inside_its_week(week: str, world: World) -> None:
    frame = generate_week(week, world)
    assert list(frame.columns) == ["user_id", "event_id", "ts"]
    assert frame.ts.dtype == "datetime64[us]"
    assert frame.ts.is_monotonic_increasing
    assert frame.ts.between(pd.Timestamp(week), pd.Timestamp(week) + pd.Timedelta(weeks=1), inclusive="left").all()
    assert frame.user_id.str.fullmatch(r"10(\.(0|[1-9]\d{0,2})){3}").all()
    assert frame.event_id.str.fullmatch(r"[a-z]+-[a-z]+-\d{4}").all()
    assert frame.user_id.nunique() <= world.users
    pd.testing.assert_frame_equal(generate_week(week, world), frame)


def test_a_week_is_the_same_whatever_was_generated_before_it() -> None:
    forwards = {week: generate_week(week, SMALL) for week in weeks(4)}
    for week in reversed(weeks(4)):
        pd.testing.assert_frame_equal(generate_week(week, SMALL), forwards[week])


def test_another_seed_is_another_world() -> None:
    one, other = generate_week(WEEK, SMALL), generate_week(WEEK, replace(SMALL, seed=1))
    assert len(set(one.user_id) & set(other.user_id)) < 5
    assert len(set(one.event_id) & set(other.event_id)) < 5


@pytest.mark.parametrize("start", ["1970-01-05", "2000-01-03", "2026-01-05", "2190-01-04"])
def test_the_default_world_has_the_same_volume_in_every_age(start: str) -> None:
    sizes = [len(generate_week(week)) for week in weeks(4, start)]
    assert all(3600 < size < 4500 for size in sizes)
    assert abs(np.mean(sizes) - 4050) < 250


def test_events_fall_into_as_many_communities_as_the_world_has() -> None:
    world = World(users=400, events=240, communities=8, habits=0, focus=1, background=0)
    frame = pd.concat(generate_week(week, world) for week in weeks(3))
    touched = pd.crosstab(frame.user_id, frame.event_id).clip(upper=1).to_numpy(float)
    touched /= np.sqrt(np.outer(touched.sum(1), touched.sum(0)))
    # A graph of C groups that hardly mix has C large singular values, and then a gap.
    spectrum = np.linalg.svd(touched, compute_uv=False)
    assert np.diff(spectrum)[:40].argmin() == world.communities - 1


def test_habits_make_users_return_to_their_own_events_for_months() -> None:
    def returning(world: World) -> float:
        before = set().union(*(pairs(shift(WEEK, -lag), world) for lag in range(10, 14)))
        users = {user for user, _ in before}
        now = {(user, event) for user, event in pairs(WEEK, world) if user in users}
        return len(now & before) / len(now)

    assert returning(World()) > 0.1 > 2 * returning(World(habits=0))


def test_some_habits_come_every_second_or_fourth_week() -> None:
    keys = weeks(9)
    users = lasting_users([keys[0], keys[-1]], World())
    chance = [chances(week, World(), users) for week in keys]
    lasting = chance[0].columns.intersection(chance[-1].columns)
    series = np.stack([part[lasting].to_numpy() for part in chance])  # [weeks, users, events]
    for cadence in (2, 4):
        due = np.arange(len(keys)) % cadence == 0
        assert ((series[due] >= 0.9).all(0) & (series[~due] < 0.3).all(0)).sum() > 5


def test_interests_drift_slowly_and_far() -> None:
    world = World(users=100, habits=0, event_life=(9000, 9000), user_life=(9000, 9000))
    users = lasting_users([WEEK, shift(WEEK, 40)], world)

    def likeness(later: int, world: World) -> float:
        one, other = (chances(week, world, users).to_numpy() for week in (WEEK, shift(WEEK, later)))
        return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean())

    assert likeness(1, world) > 0.95
    assert 0.6 < likeness(6, world) < 0.95
    assert likeness(40, world) < 0.6
    assert likeness(40, replace(world, drift=9000)) > 0.95


def test_an_event_rises_fades_and_ends() -> None:
    world = replace(SMALL, habits=0, event_life=(16, 20))
    interest = {}
    for week in weeks(40):
        events, chance = interaction_chances(week, generate_week(week, world).user_id.unique().tolist(), world)
        interest[week] = pd.Series(chance.sum(0), events)
    table = pd.DataFrame(interest).fillna(0)  # [events, weeks] expected users
    whole = table[(table.iloc[:, 0] == 0) & (table.iloc[:, -1] == 0)].to_numpy()
    assert len(whole) > 80
    lives = [np.trim_zeros(life) for life in whole]
    assert {len(life) for life in lives} <= {16, 17, 18, 19, 20}
    course = np.mean([life[:16] for life in lives], axis=0)
    peak = int(course.argmax())
    assert 1 <= peak <= 3
    assert course[0] < 0.5 * course[peak]
    assert (np.diff(course[peak:]) < 0).all()
    assert course[15] < 0.15 * course[peak]


def test_users_join_every_week_and_leave_in_the_end() -> None:
    seen = set().union(*(generate_week(week).user_id for week in weeks(8)))
    for week in weeks(4, shift(WEEK, 8)):
        users = set(generate_week(week).user_id)
        assert 10 <= len(users - seen) <= 60
        seen |= users
    assert not seen & set(generate_week(shift(WEEK, 200)).user_id)


def test_ids_are_unique_among_all_who_are_there() -> None:
    events, _ = interaction_chances(WEEK, [], World(users=1, events=100_000, communities=1000, event_life=(1, 300)))
    assert len(set(events)) == 100_000


def test_true_probabilities_are_what_happens() -> None:
    hits, chance = [], []
    for week in weeks(4):
        touched = generate_week(week, SMALL).drop_duplicates(["user_id", "event_id"])
        truth = pd.crosstab(touched.user_id, touched.event_id)
        expected = chances(week, SMALL, truth.index.tolist())
        hits.append(truth.reindex(columns=expected.columns, fill_value=0).to_numpy().ravel())
        chance.append(expected.to_numpy().ravel())
    hit, p = np.concatenate(hits), np.concatenate(chance)
    for low, high in ((0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
        part = (p > low) & (p <= high)
        assert part.sum() > 100
        luck = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(hit[part].sum() - p[part].sum()) < 4 * luck
    assert hit[p == 0].sum() == 0


def test_a_user_who_is_not_there_touches_nothing() -> None:
    events, chance = interaction_chances(WEEK, ["nobody", generate_week(WEEK, SMALL).user_id[0]], SMALL)
    assert chance.shape == (2, len(events)) == (2, SMALL.events)
    assert chance[0].sum() == 0
    assert chance[1].sum() > 0


def test_oracle_lists_hold_the_likeliest_known_events_best_first() -> None:
    user = generate_week(WEEK, SMALL).user_id[0]
    likeliest = chances(WEEK, SMALL, [user]).iloc[0].sort_values(ascending=False).index.tolist()
    assert oracle_lists(WEEK, [user], world=SMALL, k=3).tolist() == [likeliest[:3]]
    known = [likeliest[1], likeliest[4], "never heard of"]
    assert oracle_lists(WEEK, [user], known, SMALL, k=3).tolist() == [[likeliest[1], likeliest[4], ""]]


def test_oracle_beats_baselines_and_repeat_beats_popular() -> None:
    past = pd.concat([generate_week(week).assign(week=week) for week in weeks(20, shift(WEEK, -20))])
    history, users, events = known_history(past, shift(WEEK, -1))
    truth = generate_week(WEEK)[["user_id", "event_id"]].drop_duplicates()
    user, active = pd.factorize(truth.user_id)
    event = pd.Index(events).append(pd.Index(truth.event_id.unique())).unique().get_indexer(truth.event_id)
    lists = all_baselines(history, pd.Index(users).get_indexer(active))
    ndcg = {name: float(per_user(lists[name], user, event).ndcg.mean()) for name in lists}
    best = ceiling(WEEK, set(events))
    assert ndcg["popular"] < 0.15
    assert ndcg["item_knn_new"] < 0.15
    assert 2 * ndcg["popular"] < ndcg["repeat"] < 0.45
    assert 0.6 < best["known"]["ndcg"] < best["all"]["ndcg"] + 0.01 < 0.72
    assert best["known"]["ndcg"] > 1.5 * max(ndcg.values())


def test_oracle_is_zero_without_known_events_nan_without_users() -> None:
    assert ceiling(WEEK, [], SMALL)["known"]["ndcg"] == 0
    assert np.isnan(ceiling(WEEK, [], SMALL, users=["nobody"])["all"]["ndcg"])


def known_history(rows: pd.DataFrame, week: str) -> tuple[InteractionHistory, np.ndarray, np.ndarray]:
    """The history at the close of `week`, and the text ids of its user and event positions."""
    user, users = pd.factorize(rows.user_id)
    event, events = pd.factorize(rows.event_id)
    frame = pd.DataFrame(
        {
            "user_idx": user,
            "event_idx": event,
            "event_order": np.argsort(np.argsort(events))[event],
            "week_no": rows.week.map({key: week_number(key) for key in rows.week.unique()}),
        }
    )
    counted = frame.groupby(list(frame.columns), as_index=False).size().rename(columns={"size": "count"})
    return InteractionHistory.from_frame(counted, week), np.asarray(users), np.asarray(events)
