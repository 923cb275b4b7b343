"""Dagster's instance in a home, whose history of runs is in SQLite files, and what can be wrong with these."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tgn_assets.ml.safe_text import first_line, of_the_system
from tgn_assets.state.warehouse import StateError

if TYPE_CHECKING:
    from dagster import DagsterInstance

CHECKS = "dagster_shared.check"
"""The module of what Dagster raises where a file is not of the kind that it expects, such as a list."""
HISTORY_REMEDY = "move it away; only Dagster's history of runs goes with it, weeks and lists do not"
"""What to do about a damaged file of Dagster's history."""


@contextmanager
def open_instance(dagster_home: Path, lock: AbstractContextManager[Any]) -> "Iterator[DagsterInstance]":
    """The Dagster instance in `dagster_home`, opened under `lock`: only one process may create the SQLite files.

    StateError if its configuration or its files cannot be used.
    """
    from dagster import DagsterInstance

    try:
        with _configured(dagster_home), lock:
            instance = DagsterInstance.from_config(str(dagster_home))
        with instance:
            yield instance
    except Exception as error:
        if type(error).__module__ == "sqlalchemy.exc":
            raise StateError(_trouble(dagster_home, error)) from error
        raise


def damaged_history(dagster_home: Path) -> list[Path]:
    """The SQLite files of Dagster's history that are damaged."""
    return [path for path in sorted(dagster_home.rglob("*.db")) if not _is_sound(path)]


@contextmanager
def _configured(dagster_home: Path) -> Iterator[None]:
    """Turns what is wrong with dagster.yaml, or a file that may not be used, into a StateError."""
    from dagster import DagsterError

    try:
        yield
    except OSError as error:
        raise StateError(of_the_system(error)) from error
    except Exception as error:
        wrong = isinstance(error, DagsterError | ImportError | AttributeError | UnicodeDecodeError)
        if not wrong and not type(error).__module__.startswith(("yaml.", CHECKS)):
            raise
        text = " ".join(str(error).split()).partition(" Expected: ")[0]
        raise StateError(
            f"{dagster_home / 'dagster.yaml'} cannot be used ({text}): mend it, or move it away, and it is written anew"
        ) from error


def _trouble(dagster_home: Path, error: Exception) -> str:
    """What is wrong with the SQLite files of the history, one of which raised `error`, and what to do."""
    text = first_line(error)
    if "disk is full" in text or not shutil.disk_usage(dagster_home).free:
        return f"the disk of {dagster_home} is full: make room, and run it again"
    if "is locked" in text:
        return f"{dagster_home} is locked by another process ({text}): end what holds it, and run it again"
    if "readonly" in text or "unable to open" in text:
        return f"{dagster_home} cannot be written to ({text}): give this user the right to"
    damaged = damaged_history(dagster_home)
    if not damaged and "disk I/O error" in text:
        return f"{dagster_home} cannot be written to ({text}): is the disk sound, and `ulimit -f` large enough?"
    if not damaged:
        return f"Dagster's history in {dagster_home} cannot be used: {text}"
    return f"{damaged[0]} is damaged: {HISTORY_REMEDY}"


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as con:
            return con.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.OperationalError:  # locked, or not ours to read
        return True
    except sqlite3.DatabaseError:
        return False
