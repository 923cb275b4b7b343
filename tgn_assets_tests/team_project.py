"""A Dagster project of another team, as `create-dagster` lays it out, with the component on two logs."""

import importlib
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml  # type: ignore[import-untyped]
from dagster.components.component_scaffolding import scaffold_object

from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift

WEEKS = [shift("2024-01-01", later) for later in range(3)]
TYPE = "tgn_assets.WeeklyTopK"
CONFIG = """\
[project]
name = "team"
version = "1"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "team"
"""
DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
ASSETS = """\
import shutil
from pathlib import Path

import dagster as dg

DATA = Path(__file__).parents[3] / "data"


@dg.asset
def shop_log() -> None:
    shutil.copy(DATA / "shop.export", DATA / "shop.csv")


defs = dg.Definitions(
    assets=[shop_log],
    resources={"io_manager": dg.FilesystemIOManager(base_dir=str(DATA)), "warehouse": "the team's"},
)
"""


class TeamProject:
    """The project in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.defs = folder, folder / "src" / "team" / "defs"
        self.defs.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(CONFIG)
        for name, text in {
            "__init__": "",
            "definitions": DEFINITIONS,
            "defs/__init__": "",
            "defs/logs": ASSETS,
        }.items():
            (folder / "src" / "team" / f"{name}.py").write_text(text)
        (folder / "data").mkdir()

    def scaffold(self, name: str, **attributes: Any) -> Path:
        """What `dg scaffold defs tgn_assets.WeeklyTopK <name>` does, then changed `attributes`; the defs.yaml."""
        scaffold_object(self.defs / name, TYPE, None, "yaml", self.folder)
        file = self.defs / name / "defs.yaml"
        given = yaml.safe_load(file.read_text())
        given["attributes"] |= attributes
        file.write_text(yaml.safe_dump(given))
        return file

    def write_log(self, name: str, weeks: list[str], seed: int) -> None:
        """A log of 30 users in `weeks`, at data/<name>."""
        world = World(users=30, events=20, communities=3, seed=seed)
        log = pd.concat([generate_week(week, world) for week in weeks])
        log.columns = ["user", "item", "at"]
        log.to_csv(self.folder / "data" / name, index=False)

    def load(self, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
        """The definitions, as Dagster loads them: the project as it is now, in a fresh import."""
        monkeypatch.syspath_prepend(str(self.folder / "src"))
        for module in [name for name in sys.modules if name.split(".")[0] == "team"]:
            monkeypatch.delitem(sys.modules, module)
        loaded = importlib.import_module("team.definitions").defs()
        assert isinstance(loaded, dg.Definitions)
        return loaded


COLUMNS = {"user_column": "user", "event_column": "item", "timestamp_column": "at", "start_week": WEEKS[0]}


def two_logs(folder: Path) -> TeamProject:
    """A project with `shop`, whose log an asset of the team writes and is not there yet, and `eu/shop`."""
    project = TeamProject(folder)
    project.write_log("shop.export", WEEKS, seed=1)
    project.write_log("eu.csv", WEEKS[:2], seed=2)
    data = "{{ context.project_root }}/data"
    project.scaffold("shop", source=f"{data}/shop.csv", deps=["shop_log"], k=3, **COLUMNS)
    export = {"export_parquet": f"{data}/eu-lists", "future_blind": True}
    project.scaffold("eu_shop", key_prefix="eu/shop", source=f"{data}/eu.csv", owner="team:eu", **COLUMNS, **export)
    return project
