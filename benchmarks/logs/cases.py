"""The logs to measure on, and homes refreshed up to the week before the measured one."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from benchmarks.common import ROOT, WORK, Log, refresh, work_folder
from benchmarks.logs.generated import START, write_log
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift, weeks_between

DATA = Path(os.environ.get("DATA", ROOT / ".." / "shared" / "data"))
WORLD, WORLD_WEEKS = World(users=3000, events=2000), 40

ROWS_SQL = """
    SELECT "user", item, ts, strftime(date_trunc('week', to_timestamp(ts) AT TIME ZONE 'UTC'), '%Y-%m-%d') AS week
    FROM read_parquet($path)
"""


@dataclass(frozen=True)
class Case:
    """A log, and the week whose refresh is measured; its lists are for the week after."""

    name: str
    log: Log
    week: str

    def rows(self) -> pd.DataFrame:
        """user, item (text), ts (unix seconds), week (its Monday) of the whole log."""
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            return con.execute(ROWS_SQL, {"path": self.log.source}).df()

    @contextmanager
    def home(self) -> Iterator[Path]:
        """A copy of a home refreshed up to the week before, which is made first unless this version of the code has."""
        kept, code = WORK / "homes" / self.name, _code_digest()
        ready = kept / "ready"
        if not ready.exists() or ready.read_text() != code:
            shutil.rmtree(kept, ignore_errors=True)
            refresh(self.log, kept / "home", shift(self.week, -1))
            ready.write_text(code)
        with work_folder() as folder:
            yield Path(shutil.copytree(kept / "home", folder / "home"))


def retail() -> Case:
    """online_retail in the folder DATA, or a synthetic world if it is not there."""
    path = (DATA / "online_retail.parquet").resolve()
    if path.exists():
        return Case("online_retail", Log(str(path), "2011-11-28"), "2011-11-21")
    path, last = WORK / "world.parquet", shift(START, WORLD_WEEKS - 1)
    write_world(path, WORLD, START, last)
    return Case("synthetic world", Log(str(path), last), shift(last, -1))


def write_world(path: Path, world: World, first: str, last: str) -> None:
    """Writes the weeks `first` to `last` of `world` to a Parquet file (user, item, ts), unless it is there."""
    if not path.exists():
        weeks = pd.concat([generate_week(week, world) for week in weeks_between(first, last)])
        rows = weeks.assign(ts=weeks.ts.astype("int64") // 1_000_000)  # noqa: F841 (DuckDB reads it)
        path.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(f"COPY (SELECT user_id AS user, event_id AS item, ts FROM rows) TO '{path}' (FORMAT parquet)")


def constant(weeks: int, *, weekly: int = 5_000, users: int = 2_000, events: int = 500) -> Case:
    """The first `weeks` weeks of a log with the same number of interactions, the same users and events each week."""
    folder = WORK / "constant" / str(weeks)
    source = write_log(folder, weekly * weeks, users=users, events=events, weeks=weeks)
    last = shift(START, weeks - 1)
    return Case(f"constant-{weeks}", Log(source, last), last)


def _code_digest() -> str:
    """A digest of the package: another version may keep other files in a home."""
    files = sorted((ROOT / "tgn_assets").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
