"""The best score that the synthetic world allows: what one would list who knows everything about it but its luck."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from tgn_assets.ml.evaluation.metrics import METRICS, per_user
from tgn_assets.ml.schema import K
from tgn_assets.ml.sources.synthetic import DEFAULT, WeekState, World, generate_week
from tgn_assets.ml.weeks import week_number


def touch_probabilities(week: str, users: Sequence[str], world: World = DEFAULT) -> tuple[list[str], np.ndarray]:
    """(event ids [E], the chance that each of `users` touches each event at least once in `week` [n, E]).

    The chance given everything about the world but the week's luck; all events alive in `week`. The row of a user who
    is not there in `week` is zero. Dense: meant for worlds of about the default size.
    """
    state = WeekState(world, week_number(week))
    row = pd.Index(state.user_ids()).get_indexer(pd.Index(users))
    interest = state.interests.by_community(world)
    untouched = np.exp(-state.rate[:, None] * interest[:, state.catalogue.community] * state.catalogue.share)
    for event, chance in zip(state.habit_event.T, state.habit_chance.T, strict=True):
        untouched[np.arange(world.users), event] *= 1 - chance
    return state.event_ids().tolist(), np.where(row[:, None] >= 0, 1 - untouched[row], 0.0)


def oracle_lists(
    week: str, users: Sequence[str], known_events: Collection[str] | None = None, world: World = DEFAULT, k: int = K
) -> np.ndarray:
    """The `k` likeliest events of `week` for each of `users` by `touch_probabilities`, best first: text [n, k].

    Only events in `known_events` (None: all that are alive); "" where there are fewer than `k`.
    """
    return likeliest(*touch_probabilities(week, users, world), known_events, k)


def likeliest(events: list[str], chance: np.ndarray, known_events: Collection[str] | None, k: int = K) -> np.ndarray:
    """The `k` of `events` [E] with the highest `chance` [n, E], best first: text [n, k], as `oracle_lists` has them."""
    allowed = np.ones(len(events), bool) if known_events is None else pd.Index(events).isin(list(known_events))
    ids = np.array(events, object)[allowed]
    best = np.argsort(-chance[:, allowed], axis=1, kind="stable")[:, :k]
    lists = np.full((len(chance), k), "", object)
    lists[:, : best.shape[1]] = ids[best]
    return lists


def ceiling(
    target_week: str,
    known_events: Collection[str],
    world: World = DEFAULT,
    k: int = K,
    users: Collection[str] | None = None,
) -> dict[str, dict[str, float]]:
    """What nobody can expect to beat: the mean of each metric over `target_week`'s active users.

    The lists are `oracle_lists`, the truth is what `generate_week` gave the week: under "known" the lists hold events
    of `known_events` only (those seen before the week; what a real ranker can reach), under "all" any event. `users`
    restricts the mean to some of the active ones, such as those with a history; NaN if none is active. A model that
    knows all but the week's luck gets this; the ceiling in `eval_metrics` is of a ranker that knows the luck as well.
    """
    truth = generate_week(target_week, world)[["user_id", "event_id"]].drop_duplicates()
    truth = truth if users is None else truth[truth.user_id.isin(set(users))]
    user, active = pd.factorize(truth.user_id)
    event, events = pd.factorize(truth.event_id)
    result = {}
    for name, allowed in (("known", known_events), ("all", None)):
        text = oracle_lists(target_week, list(active), allowed, world, k)
        codes = pd.Index(events).append(pd.Index(np.unique(text))).unique().drop("", errors="ignore")
        values = per_user(codes.get_indexer(pd.Index(text.ravel())).reshape(text.shape), user, event)
        result[name] = {metric: float(values[metric].mean()) for metric in METRICS}
    return result
