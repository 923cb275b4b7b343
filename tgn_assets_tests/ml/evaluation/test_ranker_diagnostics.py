from dataclasses import replace

import numpy as np
import pytest

from tgn_assets.ml.data.policy import OPEN
from tgn_assets.ml.evaluation.evaluate import CANDIDATES, UNGATED, RankerDiagnostics, evaluate_week
from tgn_assets.ml.schema import OURS
from tgn_assets_tests.support.tea_log import (
    DISCOUNT,
    HAPPENED,
    KNOWN,
    PUBLISHED,
    WEEK,
    happened,
    past,
    published,
    value,
)


def tea_in_second_place(users: np.ndarray) -> np.ndarray:
    lists = np.full((len(users), 5), -1)
    lists[:, 1] = 0
    return lists


def test_a_look_inside_the_ranker_tells_recall_from_ranking_by_hand() -> None:
    def found(users: np.ndarray, row: np.ndarray, event: np.ndarray) -> np.ndarray:
        # ann (0) touched tea (0) and oil, bob (1) tea; only tea was among the candidates, by the second channel.
        assert users.tolist() == [0, 1] and sorted(row.tolist()) == [0, 0, 1]
        return np.stack([np.zeros(3, bool), event == 0], axis=1)

    diagnostics = RankerDiagnostics(("own", "popular"), found, tea_in_second_place)

    known, users, events = past(KNOWN)
    assert events[0] == "tea" and list(users[:2]) == ["ann", "bob"]
    lists = published(PUBLISHED)
    frame = evaluate_week(WEEK, lists, ["tea", "rye"], happened(HAPPENED), known, users, events, diagnostics)
    ideal = DISCOUNT[:2].sum()
    assert value(frame, CANDIDATES, "ndcg", "seen") == pytest.approx((1 / ideal + 1) / 2, abs=1e-6)
    assert value(frame, UNGATED, "ndcg", "seen") == pytest.approx((DISCOUNT[1] / ideal + DISCOUNT[1]) / 2, abs=1e-6)
    assert value(frame, CANDIDATES, "candidate_recall", "seen") == pytest.approx((1 / 2 + 1) / 2)
    assert value(frame, CANDIDATES, "candidate_recall:own", "seen") == 0
    # dan, who is new, had the list for new users: rye, of rye and an unknown event.
    assert value(frame, CANDIDATES, "ndcg", "new") == pytest.approx(1 / ideal, abs=1e-6)
    assert value(frame, UNGATED, "ndcg", "new") == value(frame, OURS, "ndcg", "new")


@pytest.mark.parametrize(("rules", "asked", "anns_tea"), [(OPEN, [1], 0), (replace(OPEN, min_distinct=4), [0, 1], 1)])
def test_the_ranker_makes_only_the_lists_anew_that_were_not_published_as_it_made_them(rules, asked, anns_tea) -> None:
    def lists(users: np.ndarray) -> np.ndarray:
        assert users.tolist() == asked
        return tea_in_second_place(users)

    diagnostics = RankerDiagnostics(("own",), lambda users, row, event: np.zeros((len(row), 1), bool), lists)
    # ann's list, with tea first, was the ranker's; bob's was that of `repeat`.
    made = published(PUBLISHED).replace({"source": {"model": OURS}})
    frame = evaluate_week(WEEK, made, ["tea"], happened(HAPPENED), *past(KNOWN), diagnostics, rules=rules)
    expected = (DISCOUNT[anns_tea] / DISCOUNT[:2].sum() + DISCOUNT[1]) / 2
    assert value(frame, UNGATED, "ndcg", "seen") == pytest.approx(expected, abs=1e-6)
