from dataclasses import replace

import numpy as np
import pytest

from tgn_assets.ml.arrays import BoolArray, IntArray
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.evaluation.metric_names import (
    CANDIDATES,
    WITHOUT_FALLBACK,
)
from tgn_assets.ml.evaluation.scored_week import RankerDiagnostics
from tgn_assets.ml.schema import OURS
from tgn_assets_tests.support.tea_log import (
    DISCOUNT,
    HAPPENED,
    KNOWN,
    PUBLISHED,
    WEEK,
    happened,
    metrics_of,
    past,
    published,
    value,
)


def tea_in_second_place(users: IntArray) -> IntArray:
    lists = np.full((len(users), 5), -1)
    lists[:, 1] = 0
    return lists


def test_candidates_and_without_fallback_by_hand() -> None:
    def found(users: IntArray, row: IntArray, event: IntArray) -> BoolArray:
        # ann (0) had tea (0) and oil, bob (1) tea; only tea was among the candidates, by the second channel.
        assert users.tolist() == [0, 1] and sorted(row.tolist()) == [0, 0, 1]
        return np.stack([np.zeros(3, bool), event == 0], axis=1)

    diagnostics = RankerDiagnostics(("repeat", "popular"), found, tea_in_second_place)

    known = past(KNOWN)
    assert known["event_ids"][0] == "tea" and list(known["user_ids"][:2]) == ["ann", "bob"]
    frame = metrics_of(
        WEEK,
        published(PUBLISHED),
        happened(HAPPENED),
        new_user_list=["tea", "rye"],
        **known,
        diagnostics=diagnostics,
    )
    ideal = DISCOUNT[:2].sum()
    assert value(frame, CANDIDATES, "ndcg", "seen") == pytest.approx((1 / ideal + 1) / 2, abs=1e-6)
    assert value(frame, WITHOUT_FALLBACK, "ndcg", "seen") == pytest.approx(
        (DISCOUNT[1] / ideal + DISCOUNT[1]) / 2, abs=1e-6
    )
    assert value(frame, CANDIDATES, "candidate_recall", "seen") == pytest.approx((1 / 2 + 1) / 2)
    assert value(frame, CANDIDATES, "candidate_recall:repeat", "seen") == 0
    # dan, who is new, had the list for new users: rye, of rye and an unknown event.
    assert value(frame, CANDIDATES, "ndcg", "new") == pytest.approx(1 / ideal, abs=1e-6)
    assert value(frame, WITHOUT_FALLBACK, "ndcg", "new") == value(frame, OURS, "ndcg", "new")


@pytest.mark.parametrize(
    ("rules", "asked", "anns_tea"), [(NO_RULES, [1], 0), (replace(NO_RULES, min_distinct=4), [0, 1], 1)]
)
def test_only_unpublished_own_lists_are_made_again(rules: Rules, asked: list[int], anns_tea: int) -> None:
    def lists(users: IntArray) -> IntArray:
        assert users.tolist() == asked
        return tea_in_second_place(users)

    diagnostics = RankerDiagnostics(("repeat",), lambda users, row, event: np.zeros((len(row), 1), bool), lists)
    # ann's list, with tea first, was the ranker's; bob's was that of `repeat`.
    made = published(PUBLISHED).replace({"source": {"model": OURS}})
    frame = metrics_of(
        WEEK,
        made,
        happened(HAPPENED),
        new_user_list=["tea"],
        **past(KNOWN),
        diagnostics=diagnostics,
        rules=rules,
    )
    expected = (DISCOUNT[anns_tea] / DISCOUNT[:2].sum() + DISCOUNT[1]) / 2
    assert value(frame, WITHOUT_FALLBACK, "ndcg", "seen") == pytest.approx(expected, abs=1e-6)
