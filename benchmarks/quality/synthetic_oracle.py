"""The best score that the synthetic world allows: the lists of an oracle that knows everything about it but chance."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tgn_assets.ml.arrays import FloatArray
from tgn_assets.ml.evaluation.metric_names import RANKING_METRICS
from tgn_assets.ml.evaluation.metrics import per_user
from tgn_assets.ml.schema import K
from tgn_assets.ml.sources.synthetic import DEFAULT, Interests, WeekState, World, generate_week
from tgn_assets.ml.weeks import week_number


def interaction_chances(week: str, users: Sequence[str], world: World = DEFAULT) -> tuple[list[str], FloatArray]:
    """(event ids [E], probability [n, E] that each of `users` interacts with each event at least once in `week`).

    Given everything about the world but the week's random draws, for all events alive in `week`. The row of a user who
    is absent in `week` is zero. Dense: meant for worlds of about the default size.
    """
    state = WeekState(world, week_number(week))
    row = pd.Index(state.user_ids()).get_indexer(pd.Index(users))
    interest = interest_by_community(state.interests, world)
    no_interaction = np.exp(-state.rate[:, None] * interest[:, state.catalogue.community] * state.catalogue.share)
    for event, chance in zip(state.habit_event.T, state.habit_chance.T, strict=True):
        no_interaction[np.arange(world.users), event] *= 1 - chance
    return state.event_ids().tolist(), np.where(row[:, None] >= 0, 1 - no_interaction[row], 0.0)


def interest_by_community(interests: Interests, world: World) -> FloatArray:
    """[n, communities] share of the interest of each of n users, the background included; rows sum to one."""
    shares = np.full((len(interests.community), world.communities), world.background / world.communities)
    for community, share in zip(interests.community.T, interests.share.T, strict=True):
        shares[np.arange(len(shares)), community] += share
    return shares


def oracle_lists(
    week: str, users: Sequence[str], known_events: Collection[str] | None = None, world: World = DEFAULT, k: int = K
) -> NDArray[np.object_]:
    """The `k` likeliest events of `week` for each of `users`, best first: text [n, k].

    Only events in `known_events` (None: all that are alive); "" in the places beyond them.
    """
    return likeliest(*interaction_chances(week, users, world), known_events, k)


def likeliest(
    events: list[str], chance: FloatArray, known_events: Collection[str] | None, k: int = K
) -> NDArray[np.object_]:
    """The `k` of `events` [E] with the highest `chance` [n, E], best first: text [n, k], as `oracle_lists` returns."""
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
    """An upper bound of the expected score: the mean of each metric of `oracle_lists` over the users active in
    `target_week`.

    Under "known" the lists hold only events of `known_events` (those seen before the week, which a real ranker can
    list), under "all" any event. `users` restricts the mean to some of the active ones, such as those with a history;
    NaN if none is active. The ceiling in `eval_metrics` is higher: it belongs to a ranker that knows the truth.
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
        result[name] = {metric: float(values[metric].mean()) for metric in RANKING_METRICS}
    return result
