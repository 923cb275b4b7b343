"""Dagster's history in SQLite files, written without a wait for the disk at each of its events.

For each event of a run, a hundred and more, Dagster opens a connection, commits and closes it. SQLite waits for the
disk at the commit, and again at the close: the last connection to a file carries the write-ahead log over.
"""

import atexit
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

KEPT_OPEN = 8
"""Files at most: each run has one of its own, and whoever reads old runs would open them all."""


@contextmanager
def eased(folder: Path) -> Iterator[None]:
    """Meanwhile this process waits for the disk only when it carries a log over: now and then, and at the end.

    It is about the SQLite files under `folder` that keep a write-ahead log. What was committed survives the end of the
    process, however it ends; a power cut may cost the newest events and damages no file
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    kept, one_at_a_time, root = OrderedDict[str, sqlite3.Connection](), threading.Lock(), folder.resolve()

    def connected(connection: Any, _: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        (_, _, path), (mode,) = (
            connection.execute(f"PRAGMA {of}").fetchone() for of in ("database_list", "journal_mode")
        )
        if mode != "wal" or root not in Path(path).resolve().parents:
            return
        connection.execute("PRAGMA synchronous = NORMAL")
        with one_at_a_time:
            if path not in kept:
                kept[path] = sqlite3.connect(path, check_same_thread=False)
            kept.move_to_end(path)
            # It has the log open once it has read: the connection that Dagster closes is then not the last.
            kept[path].execute("PRAGMA schema_version").fetchone()
            if len(kept) > KEPT_OPEN:
                kept.popitem(last=False)[1].close()

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
        for connection in kept.values():
            connection.close()


def ease_this_process(folder: Path) -> None:
    """`eased` until the process ends."""
    process = ExitStack()
    process.enter_context(eased(folder))
    atexit.register(process.close)
