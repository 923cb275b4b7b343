"""The best lists that a history of the synthetic world allows: an oracle that infers habits instead of knowing them.

`synthetic_oracle` knows each user's habits, which no history reveals in full: a habit may be new, not followed yet, or
over, and its strength must be estimated from a few weeks. The Bayes oracle knows the world's laws, its popular events
and every user's interests and rates, which is more than a ranker can know. It infers habits by Bayes's rule from the
interactions since `first_week`, so its lists bound what a ranker can learn.

Each pair of a user and an event is a hidden semi-Markov chain: no habit, or a habit of some cadence and chance that
began some weeks ago. Pairs are treated separately, as if a user's habits were independent given their number.
"""

from math import perm

import numpy as np
import pandas as pd

from benchmarks.quality.synthetic_oracle import interest_by_community
from tgn_assets.ml.arrays import BoolArray, FloatArray, IntArray
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
"""The values that discretize the chance of a weekly habit."""
USERS_PER_BLOCK = 4
NEVER_BY_CHANCE = 1e12
"""The likelihood ratio of interactions that only a habit explains."""


def interaction_chances(
    week: str, users: list[str], first_week: str, world: World = DEFAULT
) -> tuple[list[str], FloatArray]:
    """(event ids [E], probability [n, E] that each of `users` interacts with each event at least once in `week`).

    As of the start of `week`, from the interactions since `first_week`. Users and events absent in the week before get
    zero. Dense: meant for worlds of about the default size.
    """
    target, first = week_number(week), week_number(first_week)
    now, then = WeekState(world, target - 1), WeekState(world, target)
    ids = pd.Index(now.user_ids()), pd.Index(now.event_ids())
    habits, oldest = _Habits(world), world.habit_life[1]
    appeal = {number: _appeal(world, now, number) for number in range(first - oldest, target + 1)}
    seen = {number: _counts(world, number, *ids) for number in range(first, target)}
    present = {number: WeekState(world, number).tenant == now.tenant for number in seen}

    def of_block(block: slice) -> FloatArray:
        rate, number_of = now.rate[block, None], now.habits[block, None]
        begun = np.stack([appeal[first - age][block] for age in range(1, oldest + 1)], axis=-1)
        state = habits.prior(number_of[..., None] * begun)
        for number, counts in seen.items():
            state = habits.advance(state, number_of * appeal[number][block])
            state = habits.update(state, counts[block], rate * appeal[number][block], present[number][block])
        state = habits.advance(state, number_of * appeal[target][block])
        return 1 - np.exp(-rate * appeal[target][block]) * (1 - habits.followed(state))

    blocks = [slice(at, at + USERS_PER_BLOCK) for at in range(0, world.users, USERS_PER_BLOCK)]
    chance, row = np.vstack(list(map_threaded(of_block, blocks))), ids[0].get_indexer(pd.Index(users))
    chance[:, then.catalogue.tenant != now.catalogue.tenant] = 0
    chance[then.tenant != now.tenant] = 0
    return ids[1].tolist(), np.where(row[:, None] >= 0, chance[row], 0.0)


class _Habits:
    """The law of habits. A state [n, E, kinds, ages] is the probability of a habit of each kind and age, by pair."""

    def __init__(self, world: World) -> None:
        shortest, longest = world.habit_life
        stay = np.arange(shortest, longest + 1)
        if shortest == longest:
            share = np.ones(1)
        else:
            share = np.log(np.minimum(stay + 1, longest) / stay) / np.log(longest / shortest)
        # A habit of n weeks makes room for the next one 1/n times as often as one of a single week.
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

    def prior(self, appeal: FloatArray) -> FloatArray:
        """The state at the close of a week before observations, from the `appeal` [n, E, ages] of 1, 2, … weeks ago."""
        return (self.births * appeal * self.reach)[:, :, None, :].astype(np.float32) * self.kinds[:, None]

    def advance(self, state: FloatArray, appeal: FloatArray) -> FloatArray:
        """`state` one week later: some habits end, others begin in proportion to `appeal` [n, E]."""
        later = np.empty_like(state)
        np.multiply(state[..., :-1], self.survive, out=later[..., 1:])
        later[..., 0] = (self.births * appeal)[..., None] * self.kinds
        return later

    def update(self, state: FloatArray, counts: IntArray, rate: FloatArray, present: BoolArray) -> FloatArray:
        """The posterior of `state` after a week with `counts` [n, E] interactions, `rate` [n, E] of which are expected
        without a habit. The state of users who were not `present` [n] stays."""
        found = state * (1 - self.chance)
        user, event = counts.nonzero()
        ratios = map(_ratio, counts[user, event].tolist(), rate[user, event].tolist())
        ratio = np.fromiter(ratios, np.float32, len(user))
        found[user, event] += state[user, event] * self.chance * ratio[:, None, None]
        none = np.maximum(1 - state.sum((2, 3), keepdims=True), 1e-6)
        found /= found.sum((2, 3), keepdims=True) + none
        return np.where(present[:, None, None, None], found, state)

    def followed(self, state: FloatArray) -> FloatArray:
        """[n, E] probability that there is a habit and that it is followed."""
        return np.minimum((state * self.chance).sum((2, 3)), 1.0)


def _ratio(count: int, rate: float) -> float:
    """The likelihood ratio of `count` interactions: with a followed habit against without one, at `rate` without."""
    likelihoods = (ONCE * (1 - ONCE) ** (n - 1) * perm(count, n) / max(rate, 1e-12) ** n for n in range(1, count + 1))
    return min(sum(likelihoods), NEVER_BY_CHANCE)


def _appeal(world: World, now: WeekState, number: int) -> FloatArray:
    """[users, events] share of each event of `now` in the interest of each user of `now`, in week `number`."""
    catalogue = WeekState(world, number).catalogue
    share = catalogue.share * (catalogue.tenant == now.catalogue.tenant)
    interest = interest_by_community(interests_of(world, now.who, number), world)
    return interest[:, catalogue.community] * share


def _counts(world: World, number: int, users: pd.Index, events: pd.Index) -> IntArray:
    """[users, events] interactions of week `number`."""
    rows = generate_week(week_key(number), world)
    user, event = users.get_indexer(pd.Index(rows.user_id)), events.get_indexer(pd.Index(rows.event_id))
    both = (user >= 0) & (event >= 0)
    return np.bincount(user[both] * len(events) + event[both], minlength=len(users) * len(events)).reshape(
        len(users), -1
    )
