"""The benchmarks are no tests, but must be there when somebody wants to measure: checked without peers, in seconds."""

import ast
import importlib
from pathlib import Path

import duckdb
import numpy as np
import pytest

from benchmarks.common import Step
from benchmarks.logs import START, write_log
from benchmarks.profile import BETWEEN, PARTS, by_asset
from benchmarks.table import DOCS, RESULTS, replaced
from tgn_assets.ml.weeks import shift

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IN_THE_REPOSITORY = ("tgn_assets", "benchmarks")


def imported(path: Path) -> list[str]:
    """The modules of this repository that `path` takes names from, as `module:name`."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [f"{node.module}:{alias.name}" for node in nodes for alias in node.names if node.module]


def ours(path: Path) -> list[str]:
    return [name for name in imported(path) if name.split(":")[0].split(".")[0] in IN_THE_REPOSITORY]


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_everything_that_a_benchmark_takes_from_the_repository_is_there(path: Path) -> None:
    import pkgutil

    for name in ours(path):
        module, attribute = name.split(":")
        try:
            pkgutil.resolve_name(name)
        except AttributeError:
            pkgutil.resolve_name(f"{module}.{attribute}")


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "peers").glob("*.py")), ids=lambda path: path.stem)
def test_a_peer_needs_nothing_of_this_project(path: Path) -> None:
    assert ours(path) == []


def test_a_generated_log_is_the_same_whenever_it_is_made_and_has_its_rows_in_every_week(tmp_path: Path) -> None:
    made = [
        duckdb.execute("FROM read_parquet($path)", {"path": write_log(tmp_path / name, 1000, 50, 20, weeks=4)}).df()
        for name in ("one", "other")
    ]
    assert made[0].equals(made[1])
    week = (made[0].ts - np.datetime64(START, "s").astype(int)) // (7 * 86400)
    assert week.value_counts().to_dict() == {0: 250, 1: 250, 2: 250, 3: 250}
    assert made[0].ts.max() < np.datetime64(shift(START, 4), "s").astype(int)
    assert set(made[0]["item"]) <= {f"e{event}" for event in range(20)}


def test_a_shorter_log_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    long, short = (write_log(tmp_path / str(weeks), 100 * weeks, 50, 20, weeks) for weeks in (6, 2))
    assert (Path(long).parent / "001.parquet").read_bytes() == (Path(short).parent / "001.parquet").read_bytes()


@pytest.mark.parametrize("path", [RESULTS, DOCS], ids=lambda path: path.name)
@pytest.mark.parametrize("section", ["side by side", "profile", "growth"])
def test_a_section_is_replaced_and_the_rest_of_the_page_stays(path: Path, section: str) -> None:
    page = path.read_text()
    once = replaced(page, section, "new figures")
    assert replaced(once, section, "newer figures").replace("newer figures", "new figures") == once
    assert once.count("new figures") == 1 and once.split("<!--")[0] == page.split("<!--")[0]


def test_the_profile_counts_each_thread_of_a_step_by_what_it_is_at() -> None:
    steps = {"trained_ranker": Step(start=10.0, seconds=4.0, peak=0)}
    grown = ["threading:Thread.run", "tgn_assets.ml.ranker.lambdarank:fit_lambdarank", "lightgbm.engine:train"]
    learnt = ["tgn_assets.ml.ranker.train:train_ranker", "tgn_assets.ml.ranker.listwise:_fit_epoch", "torch:forward"]
    loaded = ["tgn_assets.ml.ranker.listwise:_fit_epoch", "importlib._bootstrap:_find_and_load"]
    looks = [(9.75, 0.5, [2]), (10.25, 0.5, [0, 1]), (11.25, 1.0, [1]), (14.25, 3.0, [3])]
    found = by_asset(steps, [grown, learnt, loaded, ["nobody:knows"]], looks)
    assert found["trained_ranker"] == {"trees grown": 0.75, "passes of the network": 0.75 + 2.0}
    assert found[BETWEEN] == {"imports": 0.5, "other": 1.5}


@pytest.mark.parametrize("name", [name for names in PARTS.values() for name in names if name.startswith("tgn_assets.")])
def test_every_part_of_the_profile_is_a_function_or_module_that_there_is(name: str) -> None:
    module, function = name.split(":")
    found = importlib.import_module(module)
    for attribute in filter(None, function.split(".")):
        found = getattr(found, attribute)


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="side by side"):
        replaced("nothing", "side by side", "figures")
