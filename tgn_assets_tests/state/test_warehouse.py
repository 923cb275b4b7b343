"""What the warehouse holds, replaces and says of missing or damaged parts."""

from dataclasses import fields
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.schema import TABLES, VIEWS
from tgn_assets.reporting.terminal import weeks_with_lists
from tgn_assets.state import published_copy
from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.warehouse import Warehouse, WarehouseError
from tgn_assets_tests.state.tables import NEXT, WEEK, predictions, users


def test_a_writer_makes_the_file_and_all_tables_and_views(warehouse: Warehouse) -> None:
    with warehouse.reader() as con:
        assert {name for (name,) in con.execute("SHOW TABLES").fetchall()} == {*TABLES, *VIEWS}
        assert con.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_a_reader_of_what_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    missing = Warehouse(tmp_path / "warehouse.duckdb")
    for make in (lambda: None, lambda: duckdb.connect(missing.path).close()):
        make()
        with pytest.raises(WarehouseError, match="tgn refresh"), missing.reader():
            pass


def test_a_reader_cannot_write(warehouse: Warehouse) -> None:
    with warehouse.reader() as con, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        con.execute("DELETE FROM users")


def test_a_file_that_is_no_warehouse_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_text("not a database" * 1000)
    broken = Warehouse(tmp_path / "warehouse.duckdb")
    with pytest.raises(WarehouseError, match=r"duckdb cannot be opened or read: .*not a valid DuckDB"), broken.writer():
        pass


def test_a_week_is_replaced_and_the_others_stay(warehouse: Warehouse) -> None:
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a", "b")})
    warehouse.replace_week_tables(NEXT, {PREDICTIONS: predictions("x", week=NEXT)})
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("c")})
    assert (users(warehouse), users(warehouse, NEXT)) == (["c"], ["x"])
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: pd.DataFrame()})
    assert (users(warehouse), users(warehouse, NEXT)) == ([], ["x"])


def test_current_top5_holds_the_newest_published_week(warehouse: Warehouse) -> None:
    def current() -> list[tuple]:
        with warehouse.reader() as con:
            return con.execute("SELECT week::VARCHAR, user_id FROM current_top5 ORDER BY ALL").fetchall()

    assert current() == []
    warehouse.replace_week_tables(NEXT, {PREDICTIONS: predictions("x", "y", week=NEXT)})
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a")})  # an older week, published later
    assert current() == [(NEXT, "x"), (NEXT, "y")]
    warehouse.replace_week_tables(NEXT, {PREDICTIONS: pd.DataFrame()})
    assert current() == [(WEEK, "a")]


def test_a_newer_week_that_left_all_users_out_has_no_older_lists(warehouse: Warehouse) -> None:
    new_users = predictions("x", week=NEXT).drop(columns="user_id")
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a")})
    warehouse.replace_week_tables(NEXT, {PREDICTIONS: pd.DataFrame(), "new_user_top5_predictions": new_users})
    for opened in (warehouse.reader, warehouse.newest_lists):
        with opened() as con:
            assert con.execute("SELECT user_id FROM current_top5").fetchall() == []
            assert con.execute("SELECT max(week)::VARCHAR FROM new_user_top5_predictions").fetchall() == [(NEXT,)]
    assert published_copy.newest_week(warehouse.path.with_name(published_copy.NAME)) == NEXT


def test_a_week_without_any_list_is_the_newest_one(warehouse: Warehouse) -> None:
    """As after `tgn forget` of all users: an older week still has the list for new users."""
    record = {"week": NEXT, "target_week": NEXT, "model_week": NEXT, "k": 5, "users": 0, "distinct_events": 0}
    new_users = predictions("x").drop(columns="user_id")
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: pd.DataFrame(), "new_user_top5_predictions": new_users})
    published = pd.DataFrame([record | {"policy": "{}"}])
    warehouse.replace_week_tables(NEXT, {PREDICTIONS: pd.DataFrame(), "published_weeks": published})
    assert published_copy.newest_week(warehouse.path.with_name(published_copy.NAME)) == NEXT
    with warehouse.newest_lists() as con:
        assert weeks_with_lists(con) == [NEXT]
        assert con.execute("FROM new_user_top5_predictions").fetchall() == []
    with warehouse.reader() as con:
        assert weeks_with_lists(con) == [WEEK, NEXT]


def test_missing_views_are_created_and_rows_kept(warehouse: Warehouse) -> None:
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a")})
    with duckdb.connect(warehouse.path) as con:
        con.execute("DROP VIEW current_top5")
    with Warehouse(warehouse.path).writer() as con:
        assert con.execute("SELECT user_id FROM current_top5").fetchall() == [("a",)]


def test_replace_week_matches_columns_by_name(warehouse: Warehouse) -> None:
    frame = predictions("a")
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: frame[frame.columns[::-1]]})
    for wrong in (frame.drop(columns="source"), frame.assign(surplus=1)):
        with pytest.raises(duckdb.Error, match=r"source|surplus"):
            warehouse.replace_week_tables(WEEK, {PREDICTIONS: wrong})
    assert users(warehouse) == ["a"]


def test_replace_week_refuses_other_weeks_and_weekless_tables(warehouse: Warehouse) -> None:
    with pytest.raises(ValueError, match=WEEK):
        warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a", week=NEXT)})
    for table in ("users", "no_table; DROP TABLE users"):
        with pytest.raises(ValueError, match="no table with weeks"):
            warehouse.replace_week_tables(WEEK, {table: predictions("a")})


def test_several_tables_are_replaced_together_or_not_at_all(warehouse: Warehouse) -> None:
    new_users = predictions("a").drop(columns="user_id")
    tables = {"weekly_top5_predictions": predictions("a"), "new_user_top5_predictions": new_users}
    warehouse.replace_week_tables(WEEK, tables)
    tables = {"weekly_top5_predictions": predictions("b"), "new_user_top5_predictions": new_users.drop(columns="score")}
    with pytest.raises(duckdb.ConstraintException):
        warehouse.replace_week_tables(WEEK, tables)
    assert users(warehouse) == ["a"]


def test_the_history_is_what_is_known_at_the_close_of_the_week(warehouse: Warehouse) -> None:
    with warehouse.writer() as con:
        con.execute(f"INSERT INTO users VALUES ('u', 0, '{WEEK}'), ('v', 1, '{NEXT}')")
        con.execute(f"INSERT INTO events VALUES ('e', 0, '{WEEK}')")
        con.execute(
            f"INSERT INTO raw_interactions VALUES ('u', 'e', '{WEEK}', '{WEEK}'), ('v', 'e', '{NEXT}', '{NEXT}')"
        )
    assert warehouse.history(WEEK).user_idx.tolist() == [0]
    assert warehouse.history(NEXT).user_idx.tolist() == [0, 1]


def test_reader_creates_missing_tables(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    with warehouse.writer() as con:
        con.execute("INSERT INTO raw_interactions VALUES ('u', 'e', TIMESTAMP '2024-01-01', DATE '2024-01-01')")
        con.execute("DROP TABLE published_weeks")
    with warehouse.reader() as con:
        assert con.execute("SELECT count(*) FROM published_weeks").fetchall() == [(0,)]
        assert con.execute("SELECT count(*) FROM raw_interactions").fetchall() == [(1,)]


def test_history_is_read_again_only_if_rows_changed(warehouse: Warehouse) -> None:
    with warehouse.writer() as con:
        con.execute(f"INSERT INTO users VALUES ('u', 0, '{WEEK}')")
        con.execute(f"INSERT INTO events VALUES ('e', 0, '{WEEK}'), ('f', 1, '{NEXT}')")
        con.execute(
            f"INSERT INTO raw_interactions VALUES ('u', 'e', '{WEEK}', '{WEEK}'), ('u', 'f', '{NEXT}', '{NEXT}')"
        )
        con.execute(f"INSERT INTO ingested_weeks VALUES ('{WEEK}', 1, 'one'), ('{NEXT}', 1, 'one')")
    newest = warehouse.history(NEXT)
    assert warehouse.history(NEXT) is newest
    earlier, fresh = warehouse.history(WEEK), Warehouse(warehouse.path).history(WEEK)
    for field in fields(InteractionHistory):
        np.testing.assert_array_equal(getattr(earlier, field.name), getattr(fresh, field.name))
    with warehouse.writer() as con:  # as many rows as before, and another content
        con.execute(f"UPDATE raw_interactions SET event_id = 'f' WHERE week = '{WEEK}'")
        con.execute("UPDATE events SET first_week = '2024-01-01' WHERE event_id = 'f'")
        con.execute(f"UPDATE ingested_weeks SET digest = 'two' WHERE week = '{WEEK}'")
    assert warehouse.history(NEXT).count.tolist() == [1, 1] and warehouse.history(WEEK).event_idx.tolist() == [1]
    with warehouse.writer() as con:
        con.execute(f"INSERT INTO raw_interactions VALUES ('u', 'e', '{NEXT}', '{NEXT}')")
    assert warehouse.history(NEXT).event_idx.tolist() == [0, 1]
    with warehouse.writer() as con:  # a week that has no rows any more
        con.execute(f"DELETE FROM raw_interactions WHERE week = '{NEXT}'")
    assert len(warehouse.history(NEXT).count) == 1


def test_tables_of_an_older_release_get_reasons_that_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    old = Warehouse(path)
    old.replace_week_tables(WEEK, {PREDICTIONS: predictions("a")})
    with duckdb.connect(path) as con:
        for table in ("weekly_top5_predictions", "new_user_top5_predictions"):
            for column in ("reason_kind", "reason", "reason_parameters"):
                con.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        con.execute("CREATE OR REPLACE VIEW current_top5 AS SELECT user_id FROM weekly_top5_predictions")
    with Warehouse(path).reader() as con:
        assert con.execute("SELECT user_id, reason_kind, reason FROM current_top5").fetchall() == [("a", None, None)]
    Warehouse(path).replace_week_tables(NEXT, {PREDICTIONS: predictions("b", week=NEXT).assign(reason="so")})
    with Warehouse(path).newest_lists() as con:
        assert con.execute("SELECT user_id, reason FROM current_top5").fetchall() == [("b", "so")]


def test_the_copy_is_written_when_a_week_is_finished(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a")})
    (tmp_path / "current.duckdb").unlink()
    warehouse.record_made("weekly_report", {WEEK: "a page"})
    with warehouse.newest_lists() as con:
        assert con.execute("SELECT count(*) FROM current_top5").fetchall() == [(1,)]


def test_a_report_stays_pending_until_the_copy_is_written(warehouse: Warehouse) -> None:
    warehouse.path.with_name("current.duckdb").mkdir()
    with pytest.raises(IsADirectoryError):
        warehouse.record_made("weekly_report", {WEEK: "a page"})
    assert not warehouse.lineage().made


def _recorded(tmp_path: Path) -> Warehouse:
    """A warehouse of two ingested weeks with lists and scores, by its records."""
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    with warehouse.writer() as con:
        con.execute("INSERT INTO ingested_weeks VALUES ('2024-01-01', 1, 'a'), ('2024-01-08', 1, 'b')")
    for asset in ("weekly_top5_predictions", "eval_metrics"):
        warehouse.record_made(asset, {"2024-01-08": "digest"})
    return warehouse


@pytest.mark.parametrize(
    ("table", "ingested", "made"),
    [
        ("eval_metrics", 2, {"weekly_top5_predictions"}),
        ("published_weeks", 2, {"eval_metrics"}),
        ("raw_interactions", 0, {"weekly_top5_predictions", "eval_metrics"}),
        ("made_weeks", 2, set()),
    ],
)
def test_weeks_of_a_lost_table_are_pending(tmp_path: Path, table: str, ingested: int, made: set[str]) -> None:
    warehouse = _recorded(tmp_path)
    with duckdb.connect(warehouse.path) as con:
        con.execute(f"DROP TABLE {table}")
    lineage = Warehouse(warehouse.path).lineage()
    assert len(lineage.ingested) == ingested
    assert {asset for asset, _ in lineage.made} == made


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("DROP TABLE users", r"lacks the table users, .*put a backup in its place"),
        ("ALTER TABLE eval_metrics DROP COLUMN value", r"duckdb: the table eval_metrics lacks the column value"),
    ],
)
def test_what_cannot_be_made_again_is_named(tmp_path: Path, loss: str, said: str) -> None:
    warehouse = _recorded(tmp_path)
    with duckdb.connect(warehouse.path) as con:
        con.execute(loss)
    for use in (Warehouse(warehouse.path).reader, Warehouse(warehouse.path).writer):
        with pytest.raises(WarehouseError, match=said), use():
            pass


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            duckdb.IOException('IO Error: Cannot open file "w.duckdb": Permission denied'),
            "permission denied; give this",
        ),
        (
            duckdb.IOException('IO Error: Could not write file "w.duckdb": No space left on device'),
            "disk of .* is full",
        ),
        (duckdb.IOException('IO Error: Could not read from file "w.duckdb"'), "If it is damaged"),
        (duckdb.FatalException("FATAL Error: Corrupt database file"), "If it is damaged"),
        (duckdb.BinderException("Binder Error: no column"), None),
    ],
)
def test_a_fault_of_the_file_is_told_apart(tmp_path: Path, error: duckdb.Error, says: str | None) -> None:
    warehouse = _recorded(tmp_path)
    message = str(error).replace("w.duckdb", "warehouse.duckdb")
    with (
        pytest.raises(WarehouseError if says else type(error), match=says or "no column") as raised,
        warehouse.reader(),
    ):
        raise type(error)(message)
    assert says is None or "damaged" in says or "damaged" not in str(raised.value)


def test_a_damaged_copy_is_read_around(tmp_path: Path) -> None:
    warehouse = _recorded(tmp_path)
    (tmp_path / "current.duckdb").write_text("no database" * 1000)
    with warehouse.newest_lists() as con:
        assert con.execute("SELECT count(*) FROM ingested_weeks").fetchall() == [(2,)]
