"""`tgn doctor`: what is wrong in a home, what can be made again, and how. It reads all of it and changes nothing."""

import json
import os
import shutil
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import duckdb

from tgn_assets.cli.console import Shown
from tgn_assets.ml.artifact_io import ArtifactError, UnreadableArtifactError, as_artifact_error, remedy
from tgn_assets.ml.forgotten import KINDS, ForgottenIds, ForgottenListError
from tgn_assets.ml.safe_text import first_line, of_the_system
from tgn_assets.ml.schema import TABLES
from tgn_assets.state import published_copy
from tgn_assets.state.artifact_store import MODELS, TYPES
from tgn_assets.state.dagster_history import HISTORY_REMEDY, damaged_history
from tgn_assets.state.home import ALERTS, FORGOTTEN, LOG, Home, read_log
from tgn_assets.state.lineage import REPORT, Lineage, digest_of_files, read_lineage
from tgn_assets.state.run_lock import held_by
from tgn_assets.state.warehouse import RESTORE, StateError, columns, missing_columns

ROOM = 3
"""How many times the warehouse must fit into what is free: a week replaces its rows, artifacts and the copy."""
LEAST_ROOM = 200_000_000
"""Bytes that must be free at least."""

LISTS_SQL = """
    SELECT strftime(week, '%Y-%m-%d'), users, coalesce(n, 0) FROM published_weeks
    LEFT JOIN (SELECT week, count(DISTINCT user_id) AS n FROM weekly_top5_predictions GROUP BY ALL) USING (week)
    WHERE users != coalesce(n, 0) ORDER BY week
"""
ROWS_SQL = """
    SELECT strftime(week, '%Y-%m-%d') FROM ingested_weeks
    ANTI JOIN (SELECT week FROM raw_interactions UNION SELECT week FROM rejected_interactions) USING (week)
    WHERE rows > 0 ORDER BY week
"""


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be: which file, what is wrong, and what to do."""

    text: str
    to_do: bool = True
    """Whether someone must do something."""

    def __str__(self) -> str:
        return f"{'wrong' if self.to_do else 'note':10} {self.text}"


T = TypeVar("T")
Faults = Generator[Fault, None, None]


def findings(home: Home) -> Faults:
    """All that is wrong in `home`."""
    if missing := home.missing():
        yield Fault(missing)
        return
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        yield Fault(f"{home.root} may not be read and written; give this user the right to")
    try:
        if misplaced := home.misplaced():
            yield from map(Fault, misplaced)
            return
    except OSError as error:
        yield Fault(of_the_system(error))
        return
    for section in (_room, _dagster, _json_files, _forgotten):
        yield from _readable(section(home))
    lineage = (yield from _readable(_warehouse(home))) or Lineage()
    for of_week in (_copy, _artifacts, _reports):
        yield from _readable(of_week(home, lineage))
    yield from _readable(_leftovers(home))


def _readable(section: Generator[Fault, None, T]) -> Generator[Fault, None, T | None]:
    """`section`, up to a file that may not be read; returns what that does."""
    try:
        return (yield from section)
    except OSError as error:
        yield Fault(of_the_system(error))
    return None


def _room(home: Home) -> Faults:
    free = shutil.disk_usage(home.root).free
    size = home.warehouse_path.stat().st_size if home.warehouse_path.exists() else 0
    if free < (needed := max(LEAST_ROOM, ROOM * size)):
        yield Fault(f"{home.root}: {free / 1e6:,.0f} MB are free, and a week may take {needed / 1e6:,.0f}; make room")


def _dagster(home: Home) -> Faults:
    damaged = damaged_history(home.dagster_home)
    yield from (Fault(f"{path} is damaged: {HISTORY_REMEDY}") for path in damaged)
    if not damaged and (home.dagster_home / "dagster.yaml").exists():
        try:
            with home.instance():
                pass
        except StateError as error:
            yield Fault(str(error))
    if holder := held_by(home.run_lock):
        yield Fault(f"{home.run_lock} is held by {holder}, which is at work", to_do=False)


def _json_files(home: Home) -> Faults:
    for read in (lambda: read_log(home.root / LOG), home.artifact_store().pinned, lambda: _read_alerts(home)):
        try:
            read()
        except (StateError, ArtifactError) as error:
            yield Fault(str(error))
        except OSError as error:
            yield Fault(of_the_system(error))


def _read_alerts(home: Home) -> None:
    """StateError if the record of what was told is damaged."""
    path = home.root / ALERTS
    with suppress(FileNotFoundError, ValueError):
        if isinstance(json.loads(path.read_text("utf-8")), dict):
            return
    if path.exists():
        raise StateError(f"{path} is damaged; remove it: what was told is told again")


def _forgotten(home: Home) -> Faults:
    try:
        listed = ForgottenIds.load(home.root / FORGOTTEN)
    except ForgottenListError as error:
        yield Fault(str(error))
        return
    if count := len(listed.unfinished):
        yield Fault(f"`tgn forget` did not finish with {count:,} ids: run it again with the same ids")


def _warehouse(home: Home) -> Generator[Fault, None, Lineage]:
    """Findings; returns what the warehouse records, as far as it can be read."""
    path = home.warehouse_path
    if not path.exists():
        if lost := home.lost_warehouse():
            yield Fault(lost)
        return Lineage()
    try:
        with home.warehouse().unchecked() as con:
            lineage = yield from _tables(con, path)
            yield from _came_back(con, home)
            return lineage
    except StateError as error:
        yield Fault(str(error))
    except (duckdb.Error, ValueError) as error:
        yield Fault(f"{path} cannot be read: {first_line(error)}; {RESTORE}")
    return Lineage()


def _tables(con: duckdb.DuckDBPyConnection, path: Path) -> Generator[Fault, None, Lineage]:
    there = columns(con)
    lost = [
        f"it lacks the table {table}: `tgn status` says what is pending then" for table in TABLES if table not in there
    ]
    lost += [f"{lacking}; {RESTORE}" for lacking in missing_columns(there)]
    yield from (Fault(f"{path}: {what}") for what in lost)
    for table in TABLES.keys() & there.keys():  # reads every block, and with it the checksums
        con.execute(f"SELECT sum(hash(t)::HUGEINT) FROM {table} AS t").fetchall()
    if lost:
        return Lineage()
    for week, users, found in con.execute(LISTS_SQL).fetchall():
        what = f"week {week} has lists of {found:,} users and was published to {users:,}"
        yield Fault(f"{path}: {what}; `tgn refresh --week {week}` makes them again")
    for (week,) in con.execute(ROWS_SQL).fetchall():
        yield Fault(f"{path}: the rows of week {week} are gone; `tgn refresh --week {week}` reads them again")
    return read_lineage(con)


def _came_back(con: duckdb.DuckDBPyConnection, home: Home) -> Faults:
    """Ids that were forgotten and are in the tables, as in a warehouse of a backup that is older than that."""
    try:
        listed = ForgottenIds.load(home.root / FORGOTTEN)
    except ForgottenListError:
        return  # `_forgotten` says so
    listed.write_table(con)
    there = columns(con)
    for kind in KINDS if not listed.unfinished else ():  # `_forgotten` has those, with the same remedy
        if f"{kind}s" in there:
            sql = f"SELECT count(*) FROM {kind}s WHERE {listed.sql(f'{kind}_id', kind)}"
            if count := con.execute(sql).fetchall()[0][0]:
                what = f"it has {count:,} ids of {kind}s that were forgotten, as a backup from before that has"
                yield Fault(f"{home.warehouse_path}: {what}; run `tgn forget` again with the same ids")


def _copy(home: Home, lineage: Lineage) -> Faults:
    """Looks whether the copy for readers is there and has the newest lists."""
    copy = home.root / published_copy.NAME
    if not lineage.published:
        return
    try:
        there = published_copy.newest_week(copy) if copy.exists() else None
    except duckdb.Error as error:
        if not os.access(copy, os.R_OK):
            yield Fault(f"{copy} may not be read; give this user the right to")
            return
        yield Fault(f"{copy} is damaged ({first_line(error)}): remove it; the next week writes it again")
        return
    newest = max(lineage.published)
    if there is None:
        yield Fault(f"{copy} is missing; the next week writes it again", to_do=False)
    elif there != newest:  # of a backup that was put back in part
        yield Fault(f"{copy} has the lists of {there}, not those of {newest}; `tgn refresh` writes it again")


def _artifacts(home: Home, lineage: Lineage) -> Faults:
    """Reads every artifact, and compares its digest with the recorded one."""
    store = home.artifact_store()
    for asset in TYPES:
        unread = list[str]()
        for week in store.weeks(asset):
            directory, made = store.directory(asset, week), lineage.made.get((asset, week))
            try:
                store.load(asset, week)
                with as_artifact_error(directory):
                    digest = digest_of_files(directory)
            except UnreadableArtifactError as error:
                unread.append(str(error))
            except ArtifactError as error:
                yield Fault(str(error))
            else:
                if made and made.digest != digest:
                    yield Fault(f"{directory} is not what was made then; {remedy(directory)} makes it again")
        if unread:  # mostly all of them
            others = f" (and so for {len(unread) - 1:,} more in {store.root / asset})" if len(unread) > 1 else ""
            yield Fault(unread[0] + others)
    oldest = store.oldest_kept(home.settings.keep_weeks) or ""
    for asset, week in sorted(lineage.made):
        if asset in TYPES and week not in store.weeks(asset) and (asset not in MODELS or week >= oldest):
            directory = store.directory(asset, week)
            command = remedy(directory).removeprefix("remove it, and ")
            yield Fault(f"{directory} is missing; {command} makes it again")


def _reports(home: Home, lineage: Lineage) -> Faults:
    for page in sorted(home.reports.glob("*.html")):
        if page.is_dir():
            yield Fault(f"{page} is a folder and should be a file: move it away")
    for asset, week in sorted(lineage.made):
        page = home.reports / f"{week}.html"
        if asset == REPORT and not page.exists():
            yield Fault(f"{page} is missing; `tgn report --week {week}` writes it again", to_do=False)


def _leftovers(home: Home) -> Faults:
    """What killed processes left; nobody need do anything about it."""
    if held_by(home.run_lock):
        return
    folders = home.root, home.reports, home.dagster_home, home.artifacts
    fresh = sorted(path for folder in folders for path in folder.glob("*.new"))
    for path in (*fresh, *sorted(home.artifacts.glob("*/.*"))):
        yield Fault(f"{path} was left by a process that was killed; a later run removes it", to_do=False)


SHOWN: Shown = {
    "home": lambda root: [f"checked    {root}"],
    "findings": lambda found: map(str, found),
    "to_do": lambda number: [f"to do      {number} of these" if number else "to do      nothing"],
}
