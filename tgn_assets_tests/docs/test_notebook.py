"""The example notebook runs from its first cell to its last, and is kept without outputs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tgn_assets_tests.recommender.logs import FAST

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK = DOCS / "recommender.ipynb"
QUICK = f"""
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets.recommender.recommender import Recommender

Recommender.__init__.__kwdefaults__.update(gnn=GNNConfig(**{FAST["gnn"]}), ranker=RankerConfig(**{FAST["ranker"]}))
"""
"""Makes a fit take seconds, whose quality the notebook leaves open."""


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.e2e
def test_notebook_runs_in_order(cells: list[dict[str, Any]]) -> None:
    """A cell after the other in a fresh process, as a kernel does: without Jupyter, which nothing else needs."""
    code = "\n".join("".join(cell["source"]) for cell in cells)
    shown = {"from tgn_assets import Recommender": 1, ".fit(": 1, ".recommend(": 3, ".evaluate(": 1, ".load(": 1}
    assert {part: code.count(part) for part in shown} == shown
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(DOCS.parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", f"{QUICK}{code}\nprint(model, len(lists), len(scores))"],
        cwd=DOCS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "for the week of 2026-08-17" in done.stdout
    assert "leaked" not in done.stderr, "DuckDB tells of connections that are still open when a process ends"


def test_notebook_is_kept_without_outputs(cells: list[dict[str, Any]]) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    for cell in cells:
        ast.parse("".join(cell["source"]))
