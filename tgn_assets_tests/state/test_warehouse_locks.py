"""Processes that share the warehouse: who waits for whom, and what a killed one leaves."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from tgn_assets.state.lineage import PREDICTIONS
from tgn_assets.state.warehouse import Warehouse, WarehouseError
from tgn_assets_tests.state.tables import NEXT, WEEK, predictions, users


@contextmanager
def other_process(warehouse: Warehouse, body: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `body` within a writer, once it holds the file."""
    code = f"""
import sys
from pathlib import Path
from tgn_assets.state.warehouse import Warehouse
with Warehouse(Path({str(warehouse.path)!r})).writer() as con:
    {body}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == "holding\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


HOLD = "print('holding', flush=True); sys.stdin.readline()"


INSERT = f"con.execute(\"INSERT INTO eval_metrics VALUES ('{WEEK}', 'm', 'all', 'x', 1, 0, 2, 3)\")"


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("mode", ["reader", "writer"])
def test_who_comes_second_waits_says_so_and_goes_on(
    warehouse: Warehouse, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    with other_process(warehouse, f"{HOLD}; {INSERT}") as process:
        threading.Timer(0.5, release, [process]).start()
        with getattr(warehouse, mode)() as con:
            assert con.execute("SELECT count(*) FROM eval_metrics").fetchall() == [(1,)]
    assert f"PID {process.pid}" in caplog.text


def test_readers_do_not_wait_for_each_other(warehouse: Warehouse) -> None:
    with warehouse.reader(), Warehouse(warehouse.path, lock_timeout=0).reader() as con:
        assert con.execute("SELECT count(*) FROM users").fetchall() == [(0,)]


def test_who_waits_too_long_is_told_who_holds_the_file(warehouse: Warehouse) -> None:
    with other_process(warehouse, HOLD) as process:
        hasty = Warehouse(warehouse.path, lock_timeout=0.3)
        for use in (hasty.reader, hasty.writer):
            with pytest.raises(WarehouseError, match=rf"PID {process.pid}.*try again"), use():
                pass


def test_a_reader_waits_for_a_writer_of_the_same_process(warehouse: Warehouse) -> None:
    held, counts = threading.Event(), []

    def read() -> None:
        with warehouse.reader() as con:
            counts.append(con.execute("SELECT count(*) FROM users").fetchall()[0][0])

    with warehouse.writer() as con:
        reader = threading.Thread(target=read)
        reader.start()
        held.wait(0.3)
        assert counts == []
        con.execute("INSERT INTO users VALUES ('u', 0, NULL)")
    reader.join(30)
    assert counts == [1]


@pytest.mark.parametrize("mode", ["reader", "writer"])
def test_a_process_killed_amid_a_replacement_leaves_the_old_week(warehouse: Warehouse, mode: str) -> None:
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a", "b")})
    body = f"con.begin(); con.execute('DELETE FROM weekly_top5_predictions'); {INSERT}; {HOLD}"
    with other_process(warehouse, body) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with getattr(warehouse, mode)() as con:
            assert con.execute("SELECT count(*) FROM eval_metrics").fetchall() == [(0,)]
    assert users(warehouse) == ["a", "b"]
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("c")})
    assert users(warehouse) == ["c"]


def test_the_file_is_free_again_after_an_error(warehouse: Warehouse) -> None:
    for mode in ("reader", "writer"):
        with pytest.raises(ZeroDivisionError), getattr(warehouse, mode)():
            raise ZeroDivisionError
        with other_process(warehouse, HOLD):
            pass


def test_readers_of_the_copy_neither_wait_nor_make_wait(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "it's a home" / "warehouse.duckdb", lock_timeout=0)
    warehouse.replace_week_tables(WEEK, {PREDICTIONS: predictions("a")})
    copy = tmp_path / "it's a home" / "current.duckdb"
    query = "SELECT user_id FROM current_top5"
    with duckdb.connect(copy, read_only=True) as notebook:
        warehouse.replace_week_tables(NEXT, {PREDICTIONS: predictions("b", week=NEXT)})
        assert notebook.execute(query).fetchall() == [("a",)]
    with warehouse.writer(), warehouse.newest_lists() as con:
        assert con.execute(query).fetchall() == [("b",)]
    assert sorted(path.name for path in copy.parent.iterdir()) == ["current.duckdb", "warehouse.duckdb"]
