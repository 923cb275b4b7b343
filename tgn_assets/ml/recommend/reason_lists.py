"""The reasons of a week's lists, whoever made them: ranker, baseline, or `enforce_min_distinct`."""

from collections.abc import Sequence

import numpy as np

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.data.interactions import UserPast
from tgn_assets.ml.evaluation.baselines import BASELINE_SHARD, BASELINES
from tgn_assets.ml.parallel import Workers
from tgn_assets.ml.ranker.training_set import PointInTimeView, blocks_of
from tgn_assets.ml.recommend.reason_choice import reason_chooser
from tgn_assets.ml.recommend.reason_facts import EventFacts, event_facts, pair_facts
from tgn_assets.ml.recommend.reasons import KINDS, POPULAR, VARIETY, WIDTH, ReasonIds, ReasonTable


class WeekReasons:
    """Gives each event of the lists made as of `view` a row of `table`, and -1 to ranks without an event."""

    def __init__(self, view: PointInTimeView, workers: Workers) -> None:
        generator, config = view.generator, view.config.features
        facts = event_facts(view.past, config, allowed=generator.allowed, attributes=view.attributes)
        names = candidate_feature_names(config, view.attributes.columns)
        self.view, self.workers, self.facts = view, workers, facts
        self.chooser = reason_chooser(generator, facts, names)
        self.table = ReasonTable(columns=facts.columns, sampled=facts.sampled)

    def of_baseline(self, name: str, users: IntArray, lists: IntArray) -> ReasonIds:
        """[n, k] of the `lists` [n, k] that the baseline `name` made for user positions `users` [n]."""
        kinds = [list(KINDS).index(kind) for kind in BASELINES[name].reasons]
        blocks = blocks_of(np.arange(len(users)), BASELINE_SHARD)
        shards = ((self.view.past.of_users(users[block]), lists[block]) for block in blocks)
        made = self.workers.map(first_true, (self.facts, kinds), shards)
        return np.concatenate([np.zeros((0, lists.shape[1]), np.int32), *map(self.table.add, made)])

    def of_new_users(self, events: IntArray) -> ReasonIds:
        """[k] of the list for users without a history: what is popular now."""
        nobody = self.view.past.of_users(np.array([-1]))
        return self.table.add(first_true((self.facts, (POPULAR,)), (nobody, events[None])))[0]

    def after_changes(self, before: IntArray, lists: IntArray, reason: ReasonIds) -> ReasonIds:
        """[n, k] the reasons of `lists` [n, k], into which `enforce_min_distinct` changed the lists `before`, whose
        reasons are `reason`."""
        reason = moved(before, lists, reason)
        row, rank = np.nonzero((reason < 0) & (lists >= 0))
        variety = np.zeros((len(row), WIDTH), np.int64)
        variety[:, 0], variety[:, 1] = VARIETY, self.facts.users[lists[row, rank]]
        reason[row, rank] = self.table.add(variety)
        return reason


def moved(before: IntArray, lists: IntArray, reason: ReasonIds) -> ReasonIds:
    """[n, k] `reason` [n, k] of the lists `before`, where its event stands in `lists` [n, k]; -1 for events that the
    user's list did not hold.

    >>> before, lists, reason = np.array([[7, 8, 9]]), np.array([[7, 9, 5]]), np.array([[0, 1, 2]], np.int32)
    >>> moved(before, lists, reason).tolist()
    [[0, 2, -1]]
    """
    same = lists[:, :, None] == before[:, None, :]
    found = np.take_along_axis(reason, same.argmax(2), axis=1)
    return np.where(same.any(2) & (lists >= 0), found, np.int32(-1))


def first_true(shared: tuple[EventFacts, Sequence[int]], shard: tuple[UserPast, IntArray]) -> IntArray:
    """[n, k, WIDTH] for lists [n, k] of the users of a past, the first of some kinds that is true of each pair."""
    (facts, kinds), (past, lists) = shared, shard
    reasons = np.full((*lists.shape, WIDTH), -1, np.int64)
    row, rank = np.nonzero(lists >= 0)
    reasons[row, rank] = pair_facts(facts, past, row, lists[row, rank]).first_of(kinds)
    return reasons
