from collections.abc import Sequence
from datetime import date

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgn_assets.ml.candidates.pair_tables import PairTables
from tgn_assets.ml.config import CandidateConfig
from tgn_assets.ml.data.interactions import HISTORY_SQL, InteractionHistory
from tgn_assets.ml.data.policy import repeat_pairs
from tgn_assets.ml.ranker.training_set import truth_after
from tgn_assets.ml.schema import create_tables
from tgn_assets.ml.weeks import week_key, week_number

FIRST = week_number("2024-01-01")
Row = tuple[str, str, int]
"""A user, an event and a week counted from the first one."""

ROWS: list[Row] = [
    ("ann", "tea", 0),
    ("ann", "tea", 0),
    ("bob", "jam", 0),
    ("ann", "jam", 1),
    ("cat", "ale", 2),
    ("ann", "tea", 2),
]


def history(rows: Sequence[Row], week: int, order: Sequence[str] | None = None) -> InteractionHistory:
    """The history of a warehouse of `rows` at the close of `week`; indices go by first week and id, or by `order`."""
    log = pd.DataFrame(list(rows), columns=["user_id", "event_id", "number"])
    with duckdb.connect() as con:
        create_tables(con)
        dated = log.assign(week=[week_key(FIRST + number) for number in log.number])
        con.register("log", dated.assign(ts=dated.week).drop(columns="number"))
        con.execute("INSERT INTO raw_interactions BY NAME FROM log")
        for node in ("user", "event"):
            nodes = log.groupby(f"{node}_id").number.min().reset_index()
            rank = {name: at for at, name in enumerate(order or [])}
            nodes = (
                nodes.sort_values(f"{node}_id", key=lambda ids: ids.map(rank))
                if order
                else nodes.sort_values("number", kind="stable")
            )
            nodes["first_week"] = [week_key(FIRST + number) for number in nodes.number]
            con.register("nodes", nodes.drop(columns="number").assign(**{f"{node}_idx": range(len(nodes))}))
            con.execute(f"INSERT INTO {node}s BY NAME FROM nodes")
        found = con.execute(HISTORY_SQL, {"week": date.fromisoformat(week_key(FIRST + week))}).df()
    return InteractionHistory.from_frame(found, week_key(FIRST + week))


def table(history: InteractionHistory) -> list[tuple[int, int, int, float]]:
    """(week counted from the first, user position, event position, count) of each row."""
    columns = (history.week_no - FIRST, history.user, history.event, history.count)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def same(one: InteractionHistory, other: InteractionHistory) -> bool:
    names = ("user_idx", "event_idx", "event_order", "user", "event", "week_no", "count")
    return one.week == other.week and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_interactions_are_counted_by_user_event_and_week() -> None:
    known = history(ROWS, 2)  # ann 0, bob 1, cat 2; jam 0, tea 1, ale 2
    assert table(known) == [(0, 0, 1, 2.0), (0, 1, 0, 1.0), (1, 0, 0, 1.0), (2, 0, 1, 1.0), (2, 2, 2, 1.0)]
    assert (known.week, known.num_users, known.num_events) == (FIRST + 2, 3, 3)


def test_history_ends_at_its_week() -> None:
    known = history(ROWS, 1)
    assert table(known) == [(0, 0, 1, 2.0), (0, 1, 0, 1.0), (1, 0, 0, 1.0)]
    assert (known.user_idx.tolist(), known.event_idx.tolist()) == ([0, 1], [0, 1])


def test_event_order_is_text_order_among_known_events() -> None:
    assert history(ROWS, 1).event_order.tolist() == [0, 1]  # jam, tea
    assert history(ROWS, 2).event_order.tolist() == [1, 2, 0]  # jam, tea, ale


def test_positions_are_dense_whatever_the_indices() -> None:
    late = ["zoe", "zen", "ann", "bob", "cat", "jam", "tea", "ale"]  # zoe and zen have the first indices
    rows = [*ROWS, ("zoe", "zen", 2)]
    before, after = history(rows, 1, late), history(rows, 2, late)
    assert (before.user_idx.tolist(), before.event_idx.tolist()) == ([1, 2], [1, 2])
    assert table(before) == [(0, 0, 0 + 1, 2.0), (0, 1, 0, 1.0), (1, 0, 0, 1.0)]
    assert after.user_idx.tolist() == [0, 1, 2, 3]


def test_first_week_of_users_and_events() -> None:
    known = history(ROWS, 2)
    assert (known.first_week_of_user - FIRST).tolist() == [0, 0, 2]
    assert (known.first_week_of_event - FIRST).tolist() == [0, 0, 2]


def test_in_week_gives_the_pairs_of_a_week() -> None:
    known = history(ROWS, 2)
    assert [part.tolist() for part in known.in_week(FIRST)] == [[0, 1], [1, 0]]
    assert [part.tolist() for part in known.in_week(FIRST + 7)] == [[], []]


def test_history_before_the_first_row_is_empty() -> None:
    for empty in (history(ROWS, -1), history(ROWS, 2).as_of(FIRST - 1)):
        assert (empty.week, empty.num_users, empty.num_events, table(empty)) == (FIRST - 1, 0, 0, [])
        assert empty.first_week_of_user.tolist() == empty.as_of(FIRST - 2).count.tolist() == []


def test_derived_is_computed_once_per_week() -> None:
    known, made = history(ROWS, 2), list[int]()
    for week in (2, 1, 0, 1, 2):
        past = known.as_of(FIRST + week)

        def make(past: InteractionHistory = past) -> int:
            made.append(past.week)
            return past.week

        assert past.derived("week", make) == FIRST + week
    assert made == [FIRST + 2, FIRST + 1, FIRST]
    assert same(known.as_of(FIRST + 1), history(ROWS, 1))


def test_rows_newer_than_the_week_are_refused() -> None:
    newer = pd.DataFrame({"user_idx": [0], "event_idx": [0], "event_order": [0], "week_no": [FIRST + 1], "count": [1]})
    with pytest.raises(ValueError, match="newer than week 2024-01-01"):
        InteractionHistory.from_frame(newer, week_key(FIRST))


def test_from_frame_ignores_the_order_of_rows() -> None:
    columns = {"user_idx": [5, 9, 5], "event_idx": [1, 1, 4], "event_order": [7, 7, 3], "week_no": [2, 1, 1]}
    rows = pd.DataFrame({**columns, "count": [1, 2, 3]})
    assert same(
        InteractionHistory.from_frame(rows, week_key(3)), InteractionHistory.from_frame(rows[::-1], week_key(3))
    )
    assert InteractionHistory.from_frame(rows, week_key(3)).event_order.tolist() == [1, 0]


def test_keys_of_pairs_are_not_cut_to_the_bits_of_a_row() -> None:
    size = 70_000  # users times events is more than 32 bits hold
    each = np.arange(size)
    rows = pd.DataFrame({"user_idx": each, "event_idx": each, "event_order": each, "week_no": 2800, "count": 1})
    known = InteractionHistory.from_frame(rows, week_key(2800))
    assert known.user.dtype == known.event.dtype == np.int32
    assert repeat_pairs(known).tolist() == (each * (size + 1)).tolist()
    last = PairTables(known.of_users(each[-2:]), known.catalogue, CandidateConfig())
    assert last.key.tolist() == [size - 2, 2 * size - 1] and last.event.tolist() == each[-2:].tolist()
    truth = truth_after(known, known.as_of(2799))
    assert truth.user.dtype == truth.event.dtype == np.int64


names = st.sampled_from(["ann", "bob", "cat", "dan"]), st.sampled_from(["ale", "jam", "tea", "zen"])


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(*names, st.integers(0, 3)), min_size=1, max_size=10), st.integers(-1, 3), st.booleans())
def test_as_of_equals_the_warehouse_at_the_close(rows: list[Row], week: int, late: bool) -> None:
    order = ["dan", "cat", "bob", "ann", "zen", "tea", "jam", "ale"] if late else None
    assert same(history(rows, 3, order).as_of(FIRST + week), history(rows, week, order))


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(*names, st.integers(0, 3)), min_size=1, max_size=10), st.integers(0, 3))
def test_later_rows_leave_no_trace(rows: list[Row], week: int) -> None:
    assert same(history(rows, week), history([row for row in rows if row[2] <= week], week))
