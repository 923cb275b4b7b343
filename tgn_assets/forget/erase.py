"""Forgets users or events: first their hashes are listed, so that nothing comes back, then each place is cleaned.

Each step leaves its place as it was or clean, and finds by itself what is left to do. So one that was killed is
finished by running it again with the same ids.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tgn_assets.forget import artifacts, exported, history, tables
from tgn_assets.forget.spelling import Ids
from tgn_assets.ml.connectors.duckdb_session import transaction
from tgn_assets.ml.connectors.text_file import replace_text, sync
from tgn_assets.ml.forgotten import ForgottenIds
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.sources.spec import SourceError
from tgn_assets.ml.weeks import is_week, shift
from tgn_assets.settings import SettingsError
from tgn_assets.state import published_copy
from tgn_assets.state.artifact_store import ArtifactStore
from tgn_assets.state.home import ALERTS, FORGOTTEN, OBSERVATION, SUMMARIES, Home
from tgn_assets.state.lineage import REPORT, carry_over, digest_of, digest_of_files, location_digest, read_lineage
from tgn_assets.state.run_lock import hold
from tgn_assets.state.warehouse import StateError

if TYPE_CHECKING:
    import duckdb


def forget(home: Home, kind: str, names: Sequence[str], log: LogFn) -> None:
    """Takes the ids `names` of users or events (`kind`) out of `home` and its exports, and keeps them out for ever.

    Waits for a run in progress. Says to `log` what was done. StateError, or CleanError of an export, if a place cannot
    be cleaned: it is to be run again then, as after a kill.
    """
    ids, store = Ids(names), home.artifact_store()
    with hold(home.run_lock, f"tgn forget of process {os.getpid()}", log):
        store.sweep()
        listed = ForgottenIds.load(home.root / FORGOTTEN).adding(kind, names)
        _write_list(home, listed)
        if home.warehouse_path.exists():
            _clean_warehouse(home, store, kind, ids, log)
        for name in (OBSERVATION, SUMMARIES):  # their digests are of rows that no longer count
            (home.root / name).unlink(missing_ok=True)
        if (alerts := home.root / ALERTS).exists():
            history.clean_text(alerts, ids)
        for name, location in home.settings.export_locations().items():
            log(f"exports    {exported.clean_export(name, location, kind, ids):,} rows and texts removed from {name}")
        if home.dagster_home.exists():
            changed = history.clean_history(home.dagster_home, ids)
            log(f"dagster    {changed:,} texts of the history no longer name them")
        _remove_leftovers(home)
        _write_list(home, ForgottenIds.load(home.root / FORGOTTEN).finishing(kind, names))


def _write_list(home: Home, listed: ForgottenIds) -> None:
    """Writes the list of forgotten ids, and waits until it is on the disk."""
    home.store(FORGOTTEN, listed.to_json())
    sync(home.root / FORGOTTEN, home.root)


def _clean_warehouse(home: Home, store: ArtifactStore, kind: str, ids: Ids, log: LogFn) -> None:
    """Cleans the tables, what lies beside them under the same indices, and the pages; writes the file anew."""
    warehouse, locations = home.warehouse(), set(map(location_digest, home.settings.export_locations().values()))
    with warehouse.writer() as con:
        rows, listed = tables.remove_ids(con, kind, ids, locations)
        indices = tables.tombstones(con)
    log(f"warehouse  {rows:,} rows of the log and {listed:,} of published lists removed")
    if store.training_sets.exists():  # they are made again, without the rows that are gone
        shutil.rmtree(store.training_sets)
    unread: list[str] = []
    cleaned = artifacts.zero_indices(store, indices, unread)
    for text in unread:
        log(f"not read   {text}")
    with warehouse.writer() as con:
        _record(con, store, cleaned, locations)
    log(f"artifacts  rows of forgotten indices are zero in {len(cleaned):,}")
    log(f"reports    {_clean_reports(home, ids)}")
    with tables.rewritten(warehouse), warehouse.writer() as con:
        if (home.root / published_copy.NAME).exists():
            published_copy.write_copy(con, home.root)


def _record(
    con: duckdb.DuckDBPyConnection, store: ArtifactStore, cleaned: Iterable[tuple[str, str]], locations: Collection[str]
) -> None:
    """Records what the artifacts hold now: it is no reason to make anything from them again."""
    with transaction(con):
        before = read_lineage(con)
        for asset, week in cleaned:
            digest = digest_of_files(store.directory(asset, week))
            con.execute("UPDATE made_weeks SET digest = ? WHERE asset = ? AND week = ?", [digest, asset, week])
        carry_over(con, before, locations)


def _clean_reports(home: Home, ids: Ids) -> str:
    """Renders each page anew that names one of the `ids`, or removes it where that is not possible; what was done."""
    named = [
        path
        for path in sorted(home.reports.glob("*.html*"))
        if ids.count(path.read_text(errors="replace"), surely=False)
    ]
    removed = 0
    for path in named:
        if path.suffix != ".html" or not is_week(path.stem):
            history.clean_text(path, ids)
        elif (page := _rendered(home, path.stem)) is None:
            path.unlink()  # the example of a user says who it is about even without the id
            removed += 1
        else:
            replace_text(path, ids.without(page))
            digest = digest_of(path.read_bytes())
            with home.warehouse().writer() as con:
                con.execute(
                    "UPDATE made_weeks SET digest = ? WHERE asset = ? AND week = ?", [digest, REPORT, path.stem]
                )
    done = f"{len(named) - removed:,} pages written anew"
    return f"{done}, {removed:,} removed: `tgn report --week` writes one again" if removed else done


def _rendered(home: Home, week: str) -> str | None:
    """The page about `week` as the warehouse has it now; None if it no longer has that week, or if the settings do not
    name the log of this home: nobody must mend them first to have someone forgotten.
    """
    from tgn_assets.reporting.weekly_page.page import report_page
    from tgn_assets.reporting.weekly_page.run_times import run_times

    with home.instance() as instance:
        now, before = (run_times(instance, of) for of in (week, shift(week, -1)))
    try:
        return report_page(home.warehouse(), week, now, before, source=home.source_spec(), made=datetime.now(UTC))
    except (StateError, SettingsError, SourceError):
        return None


def _remove_leftovers(home: Home) -> None:
    """Removes what processes left that were killed: nobody else writes while the run lock is held."""
    left = [path for pattern in ("*.duckdb.new*", "*.duckdb.tmp", "*.json*.new") for path in home.root.glob(pattern)]
    for path in (*left, *home.reports.glob("*.new"), *home.dagster_home.rglob("*.new")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
