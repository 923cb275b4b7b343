"""The benchmarks themselves: their imports, generated logs, pages and profile, checked in seconds and without peers."""

import ast
import pkgutil
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pytest

from benchmarks.common import Step
from benchmarks.logs.generated import START, write_log
from benchmarks.profiling.profile import BETWEEN, PARTS, by_asset
from benchmarks.quality import summary as quality_summary
from benchmarks.table import DOCS, RESULTS, replaced
from tgn_assets.ml.weeks import shift

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = sorted((BENCHMARKS / "peers").glob("*.py"))


def repository_imports(path: Path) -> list[str]:
    """The names that `path` imports from this repository, as `module:name`."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}:{alias.name}" for node in nodes for alias in node.names]
    return [name for name in names if name.startswith(("tgn_assets.", "benchmarks."))]


def test_imports_of_benchmarks_resolve() -> None:
    for path in set(BENCHMARKS.rglob("*.py")) - set(PEERS):
        for name in repository_imports(path):
            try:
                pkgutil.resolve_name(name)
            except AttributeError:
                pkgutil.resolve_name(name.replace(":", "."))  # a module of a package


def test_peers_import_nothing_of_this_repository() -> None:
    assert {path.name: names for path in PEERS if (names := repository_imports(path))} == {}


def test_generated_log_is_deterministic_and_even_over_weeks(tmp_path: Path) -> None:
    made = [
        duckdb.execute(
            "FROM read_parquet($path)", {"path": write_log(tmp_path / name, 1000, users=50, events=20, weeks=4)}
        ).df()
        for name in ("one", "other")
    ]
    assert made[0].equals(made[1])
    week = (made[0].ts - np.datetime64(START, "s").astype(int)) // (7 * 86400)
    assert week.value_counts().to_dict() == {0: 250, 1: 250, 2: 250, 3: 250}
    assert made[0].ts.max() < np.datetime64(shift(START, 4), "s").astype(int)
    assert set(made[0]["item"]) <= {f"e{event}" for event in range(20)}


def test_shorter_generated_log_is_prefix_of_longer_one(tmp_path: Path) -> None:
    long, short = (write_log(tmp_path / str(weeks), 100 * weeks, users=50, events=20, weeks=weeks) for weeks in (6, 2))
    assert (Path(long).parent / "001.parquet").read_bytes() == (Path(short).parent / "001.parquet").read_bytes()


@pytest.mark.parametrize("path", [RESULTS, DOCS], ids=lambda path: path.name)
@pytest.mark.parametrize("section", ["side by side", "profile", "profile of a large log", "growth", "serving"])
def test_publish_replaces_only_its_section(path: Path, section: str) -> None:
    page = path.read_text()
    once = replaced(page, section, "new figures")
    assert replaced(once, section, "newer figures").replace("newer figures", "new figures") == once
    assert once.count("new figures") == 1
    assert once.split("<!--")[0] == page.split("<!--")[0]


def test_profile_sums_seconds_over_threads() -> None:
    steps = {"trained_ranker": Step(start=10.0, seconds=4.0, peak=0, unmapped=0)}
    lightgbm, epoch = PARTS["LightGBM training"][0], PARTS["ranker epochs"][0]
    stacks = [
        ["threading:Thread.run", lightgbm, "lightgbm.engine:train"],
        ["tgn_assets.ml.ranker.train:train_ranker", epoch, "torch:forward"],
        [epoch, "importlib._bootstrap:_find_and_load"],
        ["unknown:function"],
    ]
    samples = [(9.75, 0.5, [2]), (10.25, 0.5, [0, 1]), (11.25, 1.0, [1]), (14.25, 3.0, [3])]
    found = by_asset(steps, stacks, samples)
    assert found["trained_ranker"] == {"LightGBM training": 0.75, "ranker epochs": 0.75 + 2.0}
    assert found[BETWEEN] == {"imports": 0.5, "other": 1.5}


def test_functions_of_the_profile_exist() -> None:
    for name in chain(*PARTS.values()):
        pkgutil.resolve_name(name)


def test_publish_rejects_page_without_section_marks() -> None:
    with pytest.raises(ValueError, match="side by side"):
        replaced("nothing", "side by side", "figures")


def test_summary_of_all_logs_is_that_of_their_tables() -> None:
    page = quality_summary.PAGE.read_text()
    table = quality_summary.summary(page)
    assert len(table.splitlines()) == 2 + page.count(quality_summary.OURS)
    assert f"<!-- summary: begin -->\n\n{table}\n\n<!-- summary: end -->" in page


@pytest.mark.parametrize("users", ["10 active users in 4 weeks", "7 users, 10 times active in 4 weeks"])
def test_summary_puts_a_lead_that_may_be_chance_in_brackets(users: str) -> None:
    page = f"""### tea

{users}.

| lists | NDCG@5 | 95% interval | against ours | 95% interval |
|---|---|---|---|---|
| {quality_summary.OURS} | 0.3300 | 0.3000 to 0.3600 | | |
| {quality_summary.PEER} | 0.3000 | 0.2900 to 0.3100 | -9.1% | -0.0600 to +0.0100 |
| *popular* | 0.1000 | 0.0900 to 0.1100 | -69.7% | -0.3000 to -0.1500 |
| *repeat* | 0.2200 | 0.2100 to 0.2300 | -33.3% | -0.2000 to -0.0500 |
"""
    row = "| tea | 10 | 0.330 | 0.300 | (+10.0%) | repeat 0.220 | +50.0% |"
    assert quality_summary.summary(page).splitlines()[2:] == [row]
