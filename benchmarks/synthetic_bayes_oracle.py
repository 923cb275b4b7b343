"""The best lists that a history of the synthetic world allows: habits are inferred from what was done, not known.

`ml.oracle` knows each user's habits, and no history gives all of them away: one may be new, may not have been followed
yet, or may have ended, and its chance has to be guessed from a few weeks. The historian knows the laws of the world,
what is popular and every user's interests and rates, which is more than a ranker can know. Of habits it knows only
what Bayes's rule makes of the interactions since `first_week`. So its lists are a bound to what can be learnt.

A pair of user and event is a hidden semi-Markov chain: none, or a habit of some cadence and chance that began some
weeks ago. Pairs are taken one by one, as if a user's habits were independent given their number.
"""

from math import perm

import numpy as np
import pandas as pd

from tgn_assets.ml.parallel import map_threaded
from tgn_assets.ml.sources.synthetic import (
    CADENCE_SHARES,
    CADENCES,
    DEFAULT,
    DUE_CHANCE,
    ONCE,
    WEEKLY_CHANCE,
    WeekState,
    World,
    generate_week,
    interests_of,
)
from tgn_assets.ml.weeks import week_key, week_number

LEVELS = 5
"""Chances that stand for the range of a weekly habit's."""
USERS_PER_BLOCK = 4
NEVER_BY_CHANCE = 1e12
"""Likelihood ratio of what only a habit can have done."""


def touch_probabilities(
    week: str, users: list[str], first_week: str, world: World = DEFAULT
) -> tuple[list[str], np.ndarray]:
    """(event ids [E], the chance that each of `users` touches each event at least once in `week` [n, E]).

    As of the start of `week`, from the interactions since `first_week`: those of users and events that are there in the
    week before, all others have no chance. Dense: meant for worlds of about the default size.
    """
    target, first = week_number(week), week_number(first_week)
    now, then = WeekState(world, target - 1), WeekState(world, target)
    ids = pd.Index(now.user_ids()), pd.Index(now.event_ids())
    habits, oldest = _Habits(world), world.habit_life[1]
    appeal = {number: _appeal(world, now, number) for number in range(first - oldest, target + 1)}
    seen = {number: _counts(world, number, *ids) for number in range(first, target)}
    there = {number: WeekState(world, number).tenant == now.tenant for number in seen}

    def touched(block: slice) -> np.ndarray:
        rate, number_of = now.rate[block, None], now.habits[block, None]
        begun = np.stack([appeal[first - age][block] for age in range(1, oldest + 1)], axis=-1)
        state = habits.begun(number_of[..., None] * begun)
        for number, counts in seen.items():
            state = habits.a_week_later(state, number_of * appeal[number][block])
            state = habits.given(state, counts[block], rate * appeal[number][block], there[number][block])
        state = habits.a_week_later(state, number_of * appeal[target][block])
        return 1 - np.exp(-rate * appeal[target][block]) * (1 - habits.followed(state))

    blocks = [slice(at, at + USERS_PER_BLOCK) for at in range(0, world.users, USERS_PER_BLOCK)]
    chance, row = np.vstack(list(map_threaded(touched, blocks))), ids[0].get_indexer(pd.Index(users))
    chance[:, then.catalogue.tenant != now.catalogue.tenant] = 0
    chance[then.tenant != now.tenant] = 0
    return ids[1].tolist(), np.where(row[:, None] >= 0, chance[row], 0.0)


class _Habits:
    """The law of habits; a state [n, E, kinds, ages] is the chance of a habit of each kind and age, by pair."""

    def __init__(self, world: World) -> None:
        shortest, longest = world.habit_life
        stay = np.arange(shortest, longest + 1)
        if shortest == longest:
            share = np.ones(1)
        else:
            share = np.log(np.minimum(stay + 1, longest) / stay) / np.log(longest / shortest)
        # A habit of n weeks leaves its place to the next one n times as seldom as one of a single week.
        self.births = float((share / stay).sum())
        of_a_birth = share / stay / self.births
        reach = np.array([of_a_birth[stay > age].sum() for age in range(longest)])  # [ages] of those that begin
        self.reach = reach.astype(np.float32)
        self.survive = (reach[1:] / np.maximum(reach[:-1], 1e-300)).astype(np.float32)
        low, high = WEEKLY_CHANCE
        levels = low + (high - low) * (np.arange(LEVELS) + 0.5) / LEVELS
        age = np.arange(longest)
        weekly = np.repeat(levels[:, None], longest, axis=1)
        others = [DUE_CHANCE * (age % cadence == 0) for cadence in CADENCES[1:]]
        self.chance = np.vstack([weekly, *others]).astype(np.float32)  # [kinds, ages]
        shares = [CADENCE_SHARES[0] / LEVELS] * LEVELS + CADENCE_SHARES[1:].tolist()
        self.kinds = np.array(shares, np.float32)

    def begun(self, appeal: np.ndarray) -> np.ndarray:
        """The state at the close of a week, before anything was seen, from what could begin [n, E, ages] weeks ago."""
        return (self.births * appeal * self.reach)[:, :, None, :].astype(np.float32) * self.kinds[:, None]

    def a_week_later(self, state: np.ndarray, appeal: np.ndarray) -> np.ndarray:
        """`state` with a week gone by: habits end, and others begin where `appeal` [n, E] is."""
        later = np.empty_like(state)
        np.multiply(state[..., :-1], self.survive, out=later[..., 1:])
        later[..., 0] = (self.births * appeal)[..., None] * self.kinds
        return later

    def given(self, state: np.ndarray, counts: np.ndarray, rate: np.ndarray, there: np.ndarray) -> np.ndarray:
        """`state` given a week's `counts` [n, E] where `rate` [n, E] are expected without a habit; users who were not
        `there` [n] say nothing."""
        found = state * (1 - self.chance)
        user, event = counts.nonzero()
        ratios = map(_ratio, counts[user, event].tolist(), rate[user, event].tolist())
        ratio = np.fromiter(ratios, np.float32, len(user))
        found[user, event] += state[user, event] * self.chance * ratio[:, None, None]
        none = np.maximum(1 - state.sum((2, 3), keepdims=True), 1e-6)
        found /= found.sum((2, 3), keepdims=True) + none
        return np.where(there[:, None, None, None], found, state)

    def followed(self, state: np.ndarray) -> np.ndarray:
        """[n, E] chance that there is a habit and that it is followed."""
        return np.minimum((state * self.chance).sum((2, 3)), 1.0)


def _ratio(count: int, rate: float) -> float:
    """How much likelier `count` interactions are with a followed habit than without one, at `rate` without."""
    likelihoods = (ONCE * (1 - ONCE) ** (n - 1) * perm(count, n) / max(rate, 1e-12) ** n for n in range(1, count + 1))
    return min(sum(likelihoods), NEVER_BY_CHANCE)


def _appeal(world: World, now: WeekState, number: int) -> np.ndarray:
    """[users, events] share of the interest of those who are there `now` in each event of now, in week `number`."""
    catalogue = WeekState(world, number).catalogue
    share = catalogue.share * (catalogue.tenant == now.catalogue.tenant)
    return interests_of(world, now.who, number).by_community(world)[:, catalogue.community] * share


def _counts(world: World, number: int, users: pd.Index, events: pd.Index) -> np.ndarray:
    rows = generate_week(week_key(number), world)
    user, event = users.get_indexer(pd.Index(rows.user_id)), events.get_indexer(pd.Index(rows.event_id))
    both = (user >= 0) & (event >= 0)
    return np.bincount(user[both] * len(events) + event[both], minlength=len(users) * len(events)).reshape(
        len(users), -1
    )
