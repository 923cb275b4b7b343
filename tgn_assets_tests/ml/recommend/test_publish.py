import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.recommend.publish import most_recommended, named_lists
from tgn_assets.ml.recommend.reasons import POPULAR, REPEAT, TOGETHER, ReasonTable
from tgn_assets.ml.recommend.top_k import Recommendations
from tgn_assets.ml.recommend.words import Words
from tgn_assets.ml.schema import TABLES

WEEK = "2024-01-01"


def history(pairs: list[tuple[int, int]]) -> InteractionHistory:
    rows = pd.DataFrame(pairs, columns=["user_idx", "event_idx"]).assign(week_no=2817, count=1)
    return InteractionHistory.from_frame(rows.assign(event_order=rows.event_idx), WEEK)


def nodes(idx: list[int], ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"idx": idx, "id": ids, "first_week": WEEK})


def test_positions_become_ids_and_empty_places_no_rows() -> None:
    # Warehouse indices have gaps: user 1 and event 4 have no row any more.
    known = history([(0, 3), (2, 5)])
    recommendations = Recommendations(
        week=2817,
        users=np.array([0, 1]),
        events=np.array([[1, 0, -1], [0, -1, -1]]),
        scores=np.array([[0.5, 0.25, 0.0], [0.75, 0.0, 0.0]]),
        source=np.array(["tgn_assets", "repeat"], object),
        new_user_events=np.array([0, 1, -1]),
        new_user_scores=np.array([0.2, 0.1, 0.0]),
        new_user_source="popular",
        reason=np.array([[0, 2, -1], [1, -1, -1]], np.int32),
        new_user_reason=np.array([2, 1, -1], np.int32),
        reasons=ReasonTable({(REPEAT, 3, 4, 19_725): 0, (TOGETHER, 1, 12, 0): 1, (POPULAR, 1, 1, 2): 2}),
    )
    users, events = nodes([0, 1, 2], ["ann", "gone", "'; DROP"]), nodes([3, 4, 5], ["tea", "x", "Ω"])
    words = Words("customer", "product", "bought")
    made = named_lists(recommendations, WEEK, history=known, users=users, events=events, words=words)
    repeat = (
        "repeat",
        "bought in 3 of the last 4 weeks, last on 2024-01-03",
        '{"weeks": 3, "of": 4, "last": "2024-01-03"}',
    )
    together = (
        "together",
        "often together with Ω, which the customer bought (12 customers bought both)",
        '{"with": "Ω", "users": 12}',
    )
    popular = (
        "popular",
        "popular: 1 customer bought it last week, place 2 among all products",
        '{"users": 1, "of": 1, "place": 2}',
    )
    assert made.predictions.to_numpy().tolist() == [
        [WEEK, "2024-01-08", "ann", 1, "Ω", 0.5, "tgn_assets", *repeat],
        [WEEK, "2024-01-08", "ann", 2, "tea", 0.25, "tgn_assets", *popular],
        [WEEK, "2024-01-08", "'; DROP", 1, "tea", 0.75, "repeat", *together],
    ]
    assert made.new_users.to_numpy().tolist() == [
        [WEEK, "2024-01-08", 1, "tea", 0.2, "popular", *popular],
        [WEEK, "2024-01-08", 2, "Ω", 0.1, "popular", *together],
    ]


def test_empty_history_publishes_nothing() -> None:
    nobody = Recommendations(
        week=2817,
        users=np.zeros(0, int),
        events=np.full((0, 5), -1),
        scores=np.zeros((0, 5)),
        source=np.array([], dtype=object),
        new_user_events=np.full(5, -1),
        new_user_scores=np.zeros(5),
        new_user_source="popular",
        reason=np.full((0, 5), -1, np.int32),
        new_user_reason=np.full(5, -1, np.int32),
        reasons=ReasonTable(),
    )
    made = named_lists(nobody, WEEK, history=history([]), users=nodes([], []), events=nodes([], []))
    assert made.predictions.empty and made.new_users.empty
    assert list(made.predictions.columns) == TABLES["weekly_top5_predictions"].names


def test_most_recommended_ties_go_by_id() -> None:
    lists = pd.DataFrame({"user_id": list("aabbcc"), "event_id": ["x", "y", "x", "z", "x", "y"]})
    assert most_recommended(lists, 2).to_numpy().tolist() == [["x", 3], ["y", 2]]
    assert most_recommended(lists.assign(event_id=list("bacbca"))).event_id.tolist() == ["a", "b", "c"]
