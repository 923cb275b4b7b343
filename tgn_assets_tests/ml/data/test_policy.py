"""What a policy means for the nodes of a small history, and that the ranker and every baseline respect it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from tgn_assets.ml.candidates.retrieval import UserShard
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import NO_RULES, Policy, Rules, repeat_pairs
from tgn_assets.ml.encoder.train import train_gnn
from tgn_assets.ml.evaluation.baselines import all_baselines, popular
from tgn_assets.ml.evaluation.metric_names import CEILING
from tgn_assets.ml.ranker.baseline_fallback import BaselineFallback
from tgn_assets.ml.ranker.checkpoint import temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.ranker.training_set import EmbeddingHistory
from tgn_assets.ml.recommend import top_k
from tgn_assets.ml.recommend.new_user_list import new_user_list
from tgn_assets.ml.recommend.top_k import Recommendations, diagnose, recommend
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.tea_log import metrics_of
from tgn_assets_tests.support.worlds import START, Row, habits, history, snapshots, warehouse

ROWS: list[Row] = [("ann", "tea", 0, 1), ("ann", "rye", 1, 1), ("bob", "jam", 1, 1)]
NAMES = ["tea", "jam", "rye"]
TARGET = datetime(2024, 1, 15, tzinfo=UTC)
"""When the week after the first two starts."""

WEEKS = 8
LAST = shift(START, WEEKS - 1)
CONFIG = RankerConfig(dim=8, heads=2, origins=3, sequence=2, networks=1, epochs=3, candidates=6)
GNN = GNNConfig(dim=8, window=3, replay=5, epochs=2, warm_epochs=1, batching="full")
WORLD = [row for row in habits(users=24, events=16, weeks=WEEKS) if row[0] > "u005" or row[2] < 5]
"""The first six users fall silent after five weeks."""
EVENTS = [f"e{event:03}" for event in range(16)]
POLICIES = {
    "short lists": Policy(k=3),
    "long lists": Policy(k=9),
    "as long as the catalogue": Policy(k=20),
    "a deny-list": Policy(deny=frozenset(EVENTS[:4] + EVENTS[8:12])),
    "an allow-list of seven": Policy(allow=frozenset([*EVENTS[5:12], "unheard of"])),
    "no repeats": Policy(repeats="exclude"),
    "expired events": Policy(
        expires={event: datetime.fromisoformat(shift(LAST, 1) + "T00:00Z") for event in EVENTS[:9]}
    ),
    "all at once": Policy(k=4, repeats="exclude", deny=frozenset(EVENTS[:2]), allow=frozenset(EVENTS[:12])),
    "nothing at all": Policy(allow=frozenset(["unheard of"])),
}


def rules(policy: Policy, known: InteractionHistory | None = None) -> Rules:
    known = history(ROWS, 1) if known is None else known
    return policy.rules(known.event_idx, NAMES)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (Policy(), [True, True, True]),
        (Policy(deny=frozenset(["jam", "gin"])), [True, False, True]),
        (Policy(allow=frozenset(["jam", "gin"])), [False, True, False]),
        (Policy(allow=frozenset(["jam", "tea"]), deny=frozenset(["tea"])), [False, True, False]),
        (Policy(expires={"tea": TARGET}), [False, True, True]),
        (Policy(expires={"tea": TARGET + timedelta(seconds=1)}), [True, True, True]),
    ],
)
def test_allowed_denied_and_expired_events(policy: Policy, allowed: list[bool]) -> None:
    assert rules(policy).allowed(history(ROWS, 1)).tolist() == allowed
    assert policy.excluded(NAMES, shift(START, 1)) == {name for name, ok in zip(NAMES, allowed, strict=True) if not ok}


def test_event_is_gone_the_week_after_it_expires() -> None:
    late = rules(Policy(expires={"tea": TARGET + timedelta(days=3)}))
    assert [late.allowed(history(ROWS, 2), week)[0] for week in (history(ROWS, 1).week, history(ROWS, 2).week)] == [
        True,
        False,
    ]


def test_excluded_repeats_shorten_lists() -> None:
    known = history(ROWS, 1)
    strict = rules(Policy(k=2, repeats="exclude"))
    pairs = [(user, event) for user in (0, 1) for event in range(3)]
    may = strict.permits(known, *np.array(pairs).T)
    assert [pair for pair, ok in zip(pairs, may, strict=True) if ok] == [(0, 1), (1, 0), (1, 2)]
    assert strict.permits(known, np.array([-1, -1]), np.array([0, 2])).all()
    assert strict.list_lengths(known).tolist() == [1, 2]
    assert strict.new_user_length(known) == 2


def test_silent_users_by_rows_up_to_the_week() -> None:
    rows = [*ROWS, ("ann", "tea", 3, 1), ("cat", "tea", 4, 1)]  # ann in weeks 0, 1 and 3, bob in 1, cat in 4
    everything = history(rows, 4)

    def served(week: int, silent: int | None) -> list[bool]:
        known, same = history(rows, week), everything.as_of(everything.week - 4 + week)
        given = rules(Policy(max_silent_weeks=silent), known)
        assert (given.have_lists(known) == given.have_lists(same)).all(), "later rows count for nothing"
        assert ((given.list_lengths(known) > 0) == given.have_lists(known)).all()
        return given.have_lists(known).tolist()

    assert served(3, 0) == [True, False]
    assert served(3, 1) == [True, False]
    assert served(3, 2) == served(3, None) == [True, True]
    assert served(2, 0) == [False, False]  # ann comes back only later
    assert served(4, 1) == [True, False, True]
    assert history([], 0).num_users == len(Rules(max_silent_weeks=0).have_lists(history([], 0))) == 0


def test_no_length_is_negative_for_users_left_out() -> None:
    known = history(ROWS, 3)
    assert rules(Policy(repeats="exclude", max_silent_weeks=1), known).list_lengths(known).tolist() == [0, 0]


def test_policy_json_round_trip_and_as_of() -> None:
    policy = Policy(7, "exclude", frozenset("ab"), frozenset("c"), {"x": TARGET, "y": TARGET + timedelta(1)}, 9, 2)
    assert Policy.from_json(policy.to_json()) == policy
    assert policy.as_of(shift(START, 1)).expires == {"x": TARGET}
    assert policy.as_of(START).expires == {}
    assert "silent" not in Policy().to_json(), "records without it read as before"


@pytest.fixture(scope="module")
def past() -> InteractionHistory:
    return history(WORLD, WEEKS - 1)


@pytest.fixture(scope="module")
def embedding_history() -> EmbeddingHistory:
    return train_gnn(snapshots(WORLD, range(WEEKS)), LAST, GNN).embeddings


@pytest.fixture(scope="module")
def names(past: InteractionHistory) -> list[str]:
    rows = warehouse(WORLD).execute("SELECT event_idx, event_id FROM events").fetchall()
    return [dict(rows)[idx] for idx in past.event_idx.tolist()]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_ranker_and_baselines_respect_the_policy(
    policy: Policy, past: InteractionHistory, embedding_history: EmbeddingHistory, names: list[str]
) -> None:
    given = policy.rules(past.event_idx, names)
    everyone = np.arange(past.num_users)
    ranker = train_ranker(past, embedding_history, LAST, config=CONFIG, rules=given)
    assert ranker.k == policy.k and all(len(rates) == policy.k for rates in ranker.fallback.hit_rate.values())
    embeddings = temporal_embeddings(ranker, past, embedding_history)
    made = recommend(past, ranker, embedding_history, embeddings, rules=given)
    lists = {"published": made.events, **all_baselines(past, everyone, policy.k, given)}
    diagnostics = diagnose(past, ranker, embedding_history, embeddings, rules=given)
    lists["without_fallback"] = diagnostics.lists(everyone)
    had, free = set(repeat_pairs(past).tolist()), given.allowed(past)
    for name, of_all in lists.items():
        assert of_all.shape == (past.num_users, policy.k), name
        if name != "item_knn_new":  # leaves out own events whatever the policy says
            assert ((of_all >= 0).sum(1) == given.list_lengths(past)).all(), name
        for user, row in enumerate(of_all.tolist()):
            shown = [event for event in row if event >= 0]
            assert row[: len(shown)] == shown and len(set(shown)) == len(shown), name
            assert free[shown].all(), name
            if policy.repeats == "exclude":
                assert not had & {user * past.num_events + event for event in shown}, name
    assert (np.diff(made.scores) <= 0).all() and ((made.scores >= 0) & (made.scores <= 1)).all()
    for_new_users = new_user_list(past, policy.k, given).events
    for general in (for_new_users, popular(past, policy.k, given), made.new_user_events):
        assert (general >= 0).sum() == given.new_user_length(past)
        assert free[general[general >= 0]].all()


@pytest.mark.parametrize("distinct", [0, 16])
def test_users_left_out_are_not_ranked(
    distinct: int,
    past: InteractionHistory,
    embedding_history: EmbeddingHistory,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everybody = Policy(k=2, min_distinct_events=distinct)
    ranker = train_ranker(past, embedding_history, LAST, config=CONFIG, rules=everybody.rules(past.event_idx, names))
    embeddings, ranked = temporal_embeddings(ranker, past, embedding_history), list[int]()
    rank = top_k._rank

    def watched(ranking: top_k._RankingInputs, users: tuple[UserShard, Tensor]) -> top_k._RankedShard:
        ranked.extend(users[0].past.users.tolist())
        return rank(ranking, users)

    monkeypatch.setattr(top_k, "_rank", watched)

    def made(policy: Policy) -> Recommendations:
        ranked.clear()
        return recommend(past, ranker, embedding_history, embeddings, rules=policy.rules(past.event_idx, names))

    everyone = made(everybody)
    assert everyone.users.tolist() == list(range(24)) and ranked, "the ranker makes some of the lists"
    some, heard = made(replace(everybody, max_silent_weeks=1)), np.arange(6, 24)
    assert some.users.tolist() == heard.tolist() and min(ranked) >= 6
    assert (some.events >= 0).all() and len(np.unique(some.events)) >= distinct
    if not distinct:
        np.testing.assert_array_equal(some.events, everyone.events[heard])
        np.testing.assert_array_equal(some.scores, everyone.scores[heard])
        np.testing.assert_array_equal(some.source, everyone.source[heard])


def test_future_expiry_changes_nothing(
    past: InteractionHistory, embedding_history: EmbeddingHistory, names: list[str], tmp_path: Path
) -> None:
    later = datetime.fromisoformat(shift(LAST, 1) + "T00:00:01Z")
    given = Policy(expires=dict.fromkeys(names[:6], later)).rules(past.event_idx, names)
    for folder, known in (("with", given), ("without", NO_RULES)):
        ranker = train_ranker(past, embedding_history, LAST, config=CONFIG, rules=known)
        ranker.save(tmp_path / folder)
        made = recommend(
            past, ranker, embedding_history, temporal_embeddings(ranker, past, embedding_history), rules=known
        )
        np.save(tmp_path / folder / "lists.npy", made.events)
    for name in ("meta.json", "tensors.safetensors", "lists.npy"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_min_distinct_events_keeps_first_places(
    past: InteractionHistory, embedding_history: EmbeddingHistory, names: list[str]
) -> None:
    ranker = train_ranker(past, embedding_history, LAST, config=CONFIG, rules=Policy(k=2).rules(past.event_idx, names))
    embeddings = temporal_embeddings(ranker, past, embedding_history)
    usual, wide = (
        recommend(
            past,
            ranker,
            embedding_history,
            embeddings,
            rules=Policy(k=2, min_distinct_events=m).rules(past.event_idx, names),
        )
        for m in (0, 16)
    )
    assert len(np.unique(usual.events)) < len(np.unique(wide.events)) == 16
    assert (usual.events[:, 0] == wide.events[:, 0]).all()
    assert (np.diff(wide.scores) <= 0).all()


def test_fallback_hit_rates_extend_to_longer_lists() -> None:
    gate = BaselineFallback(dict.fromkeys(("active", "lapsed"), OURS), {"active": [0.5, 0.2], "lapsed": [0.1, 0.0]})
    assert gate.rates(4).tolist() == [[0.5, 0.2, 0.2, 0.2], [0.1, 0.0, 0.0, 0.0]]
    assert gate.rates(1).tolist() == [[0.5], [0.1]]


def test_ceiling_and_baselines_respect_the_policy() -> None:
    known, week = history(ROWS, 1), shift(START, 2)
    truth = pd.DataFrame({"user_id": ["ann", "ann", "bob"], "event_id": ["tea", "jam", "tea"]})
    lists = pd.DataFrame({"user_id": ["ann", "bob"], "rank": 1, "event_id": ["jam", "rye"]})

    ids = {"user_ids": np.array(["ann", "bob"], object), "event_ids": np.array(NAMES, object)}
    given: dict[str, Any] = {"new_user_list": ["tea"], "history": known, **ids}

    def scores(policy: Policy) -> dict[str, float]:
        frame = metrics_of(week, lists, truth, **given, rules=rules(policy, known))
        of_all = frame[(frame.metric == "recall") & (frame.segment == "all")]
        return dict(zip(of_all.model, of_all.value, strict=True))

    free, strict = scores(Policy()), scores(Policy(k=1, repeats="exclude"))
    assert free[CEILING] == 1
    # Ann's tea is her own, her jam is not; Bob never had tea.
    assert strict[CEILING] == pytest.approx((0.5 + 1) / 2)
    assert strict[OURS] == free[OURS] == pytest.approx(0.25)
    assert strict["repeat"] == strict["popular"]
    with pytest.raises(ValueError, match="ranks from 1 to 1"):
        metrics_of(week, lists.assign(rank=2), truth, **given, rules=rules(Policy(k=1), known))


def test_fallback_lists_are_full_without_own_events(
    past: InteractionHistory, embedding_history: EmbeddingHistory, names: list[str]
) -> None:
    given = Policy(k=12).rules(past.event_idx, names)
    ranker = train_ranker(past, embedding_history, LAST, config=CONFIG, rules=given)
    gated = replace(
        ranker, fallback=replace(ranker.fallback, source=dict.fromkeys(ranker.fallback.source, "item_knn_new"))
    )
    lists = recommend(past, gated, embedding_history, temporal_embeddings(gated, past, embedding_history), rules=given)
    assert set(lists.source) == {"item_knn_new"} and (lists.events >= 0).all()
