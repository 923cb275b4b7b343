"""A small home with three weeks, lists, reports, exports and Dagster's history; two users and an event stand out."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tgn_assets.forget.spelling import Ids
from tgn_assets.forget.verify import Trace, traces
from tgn_assets.settings import Settings
from tgn_assets.state.home import Home
from tgn_assets_tests.support.deployment import Deployment, copied_home, without_pictures

WEEKS = ["2024-01-08", "2024-01-15", "2024-01-22"]
NEXT = "2024-01-29"
LONG, SHORT, EVENT = "user-zq81-Jürgen", "17", "event-zq82/x"
OTHERS = [f"user-0{number}" for number in range(4)]


def rows_of(week: str) -> list[str]:
    """Rows of a week: everybody takes two of five events, `LONG` and `SHORT` as well; one time cannot be read."""
    day, events = week[:8] + f"{int(week[8:]) + 2:02d}", [EVENT, *(f"event-{number}" for number in range(4))]
    taken = [(user, events[(at + step) % 5]) for at, user in enumerate([LONG, SHORT, *OTHERS]) for step in (0, 1)]
    rows = [f"{user},{event},{day} 0{at % 9}:00:00" for at, (user, event) in enumerate(taken)]
    return [*rows, f"{LONG},{EVENT},{week} soon", f"{OTHERS[0]},event-1,{week[:8]}{int(week[8:]) + 6:02d} 12:00:00"]


def write_log(path: Path, weeks: list[str], *more: str) -> None:
    rows = [row for week in weeks for row in rows_of(week) if week != NEXT]
    path.write_text("\n".join(["ip_address,event_id,timestamp", *rows, *more]) + "\n")


def settings_of(folder: Path, **changed: Any) -> Settings:
    given: dict[str, Any] = {"home": folder / "home", "source": str(folder / "log.csv"), "end_week": WEEKS[-1]}
    given["export_parquet"] = str(folder / "exported")
    return Settings(_env_file=None, **(given | changed))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture names an id, and whoever forgets one draws those of all weeks again."""
    without_pictures(monkeypatch)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the home, its log and its exports; to be copied."""
    folder = tmp_path_factory.mktemp("forgetting")
    write_log(folder / "log.csv", WEEKS)
    home = Home(settings_of(folder)).ensure()
    with pytest.MonkeyPatch.context() as patch, home.instance() as instance:
        without_pictures(patch)
        deployment = Deployment(home, instance)
        deployment.run(WEEKS[0], "raw_interactions", "weekly_snapshots")
        for week in WEEKS[1:]:
            deployment.run(week)
    return folder


@pytest.fixture
def folder(world: Path, tmp_path: Path) -> Path:
    """A copy of `world`."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns("home"))
    copied_home(world, tmp_path, exported="exported")
    log = tmp_path / "home" / "log.json"
    log.write_text(log.read_text().replace(str(world), str(tmp_path)))
    return tmp_path


@pytest.fixture
def home(folder: Path) -> Home:
    return Home(settings_of(folder))


def left(home: Home, kind: str, *names: str) -> list[Trace]:
    """Where the home and its exports surely name one of the ids."""
    return [trace for trace in traces(home, kind, Ids(names), Counter()) if trace.sure]


Grep = Callable[[str], list[str]]


@pytest.fixture
def grep(folder: Path) -> Grep:
    """Finds the files below the home and the exports that have a text in their bytes."""

    def search(text: str) -> list[str]:
        needle = text.encode()
        files = [path for name in ("home", "exported") for path in (folder / name).rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(folder)) for path in files if needle in path.read_bytes())

    return search
