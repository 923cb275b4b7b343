"""The compact form holds what the tables hold: every user's list, whatever the ids."""

import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgn_assets.ml.connectors.duckdb_session import connect
from tgn_assets.ml.schema import NEW_USER_LISTS, TABLES, USER_LISTS, Column, Table
from tgn_assets.serve.compact import DamagedCopy, NothingPublished, compact, write_compact
from tgn_assets.serve.lists import STRIDE, WeekLists
from tgn_assets_tests.serve.service import WEEK, Item, fill, publish_lists

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
scores = st.floats(0, 1)
lists = st.lists(st.tuples(ids, scores, st.sampled_from(["tgn_assets", "popular"])), min_size=1, max_size=4)


def read(path: Path) -> WeekLists:
    """What the service has in memory of the file `path`."""
    with connect(path, read_only=True) as con:
        return lists_in(con)


def lists_in(con: duckdb.DuckDBPyConnection) -> WeekLists:
    file = io.BytesIO()
    write_compact(*compact(con), file)
    return WeekLists(memoryview(file.getvalue()))


NAMES = ["rank", "event_id", "score", "source", "reason_kind", "reason", "reason_parameters"]
NO_REASON = (None, None, None)


def items_of(items: list[Item]) -> list[dict[str, Any]]:
    """What is answered of them: as the lists of an older release, they have no reasons."""
    return [dict(zip(NAMES, (rank, *item, *NO_REASON), strict=True)) for rank, item in enumerate(items, 1)]


def parsed(items: bytes | None) -> Any:
    return None if items is None else json.loads(items)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(published=st.dictionaries(ids, lists, max_size=70), new_users=lists, others=st.lists(ids, max_size=5))
def test_every_list_equals_the_table(
    published: dict[str, list[Item]], new_users: list[Item], others: list[str]
) -> None:
    with duckdb.connect() as con:
        fill(con, published, new_users, WEEK)
        week = lists_in(con)
    assert {user: parsed(week.items(user)) for user in published} == {
        user: items_of(items) for user, items in published.items()
    }
    assert {user for user in others if week.items(user) is not None} == published.keys() & set(others)
    assert parsed(week.new_user_items) == items_of(new_users)
    assert (week.week, week.target_week, week.users) == (WEEK, "2026-01-12", len(published))


@pytest.mark.parametrize("users", [1, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE])
def test_search_finds_ids_at_the_edges_of_its_blocks(users: int, tmp_path: Path) -> None:
    published: dict[str, list[Item]] = {f"user {at:03d}": [(f"event {at}", 0.5, "popular")] for at in range(users)}
    week = read(publish_lists(tmp_path, published))
    assert [parsed(week.items(user)) for user in published] == [items_of(items) for items in published.values()]
    assert [week.items(user) for user in ("", "user", "user 0000", "user 999")] == [None] * 4


def test_columns_come_from_the_schema_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = (
        Column("remark", "VARCHAR", "A text.", nullable=True),
        Column("weight", "DOUBLE", "A number.", nullable=True),
        Column("since", "DATE", "A day.", nullable=True),
    )
    table = TABLES[USER_LISTS]
    monkeypatch.setitem(TABLES, USER_LISTS, Table(table.meaning, table.columns + extra))
    more = [("often", 0.1, "2026-01-02"), (None, None, None)]
    rows = [("tea", 0.5, "popular", *NO_REASON, *more[0]), ("salt", 0.25, "popular", *NO_REASON, *more[1])]
    path = publish_lists(tmp_path, {"ann": rows}, [("tea", 0.5, "popular")])
    items = parsed(read(path).items("ann"))
    assert items == [
        dict(zip(items[0], (1, *rows[0]), strict=True)),
        dict(zip(items[0], (2, *rows[1]), strict=True)),
    ]
    assert list(items[0]) == [*NAMES, "remark", "weight", "since"]
    assert parsed(read(path).new_user_items) == items_of([("tea", 0.5, "popular")])


def test_copy_of_a_version_without_a_column_is_served_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish_lists(tmp_path, {"ann": [("tea", 0.5, "popular")]}, [("tea", 0.5, "popular")])
    for name in (USER_LISTS, NEW_USER_LISTS):
        table = TABLES[name]
        later = (*table.columns, Column("remark", "VARCHAR", "A text.", nullable=True))
        monkeypatch.setitem(TABLES, name, Table(table.meaning, later))
    week = read(path)
    assert parsed(week.items("ann")) == parsed(week.new_user_items) == items_of([("tea", 0.5, "popular")])


def test_digest_changes_with_any_list_and_only_then(tmp_path: Path) -> None:
    one, same, other, removed, new_user = (
        read(publish_lists(tmp_path, published, new_users)).tag
        for published, new_users in (
            ({"ann": [("tea", 0.5, "popular")], "bob": [("tea", 0.5, "popular")]}, []),
            ({"bob": [("tea", 0.5, "popular")], "ann": [("tea", 0.5, "popular")]}, []),
            ({"ann": [("tea", 0.5, "popular")], "bob": [("tea", 0.51, "popular")]}, []),
            ({"ann": [("tea", 0.5, "popular")]}, []),
            ({"ann": [("tea", 0.5, "popular")], "bob": [("tea", 0.5, "popular")]}, [("tea", 0.5, "popular")]),
        )
    )
    assert one == same
    assert len({one, other, removed, new_user}) == 4


def test_forgotten_users_leave_a_week_without_lists(tmp_path: Path) -> None:
    path = publish_lists(tmp_path, {"ann": [("tea", 0.5, "popular")]}, [("tea", 0.5, "popular")])
    with duckdb.connect(path) as con:
        con.execute(f"DELETE FROM {USER_LISTS}")
    week = read(path)
    assert (week.users, week.items("ann"), parsed(week.new_user_items)[0]["event_id"]) == (0, None, "tea")


DAMAGE = {
    "a rank twice": f"UPDATE {USER_LISTS} SET rank = 1",
    "a rank missing": f"DELETE FROM {USER_LISTS} WHERE rank = 1",
    "another week": f"UPDATE {USER_LISTS} SET week = DATE '2025-12-29' WHERE rank = 2",
    "no score": f"ALTER TABLE {USER_LISTS} DROP score",
}


@pytest.mark.parametrize("sql", DAMAGE.values(), ids=DAMAGE.keys())
def test_lists_that_no_week_publishes_are_damage(sql: str, tmp_path: Path) -> None:
    path = publish_lists(tmp_path, {"ann": [("tea", 0.5, "popular"), ("salt", 0.25, "popular")]})
    with duckdb.connect(path) as con:
        con.execute(f"DROP VIEW current_top5; {sql}")
        with pytest.raises(DamagedCopy):
            compact(con)


def test_file_without_a_published_week_says_so(tmp_path: Path) -> None:
    path = publish_lists(tmp_path, {})
    with duckdb.connect(path) as con:
        con.execute("DELETE FROM published_weeks")
        with pytest.raises(NothingPublished):
            compact(con)
