"""What importing and using the package does to a process that has done nothing else: in three, as imports take long."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tgn_assets.state.process import ENVIRONMENT
from tgn_assets_tests.test_architecture import ML, MODULES

pytestmark = pytest.mark.e2e

IMPORTS = f"""
import importlib, json, os, sys, warnings

def import_all():
    for name in {sorted(MODULES)!r}:
        importlib.import_module("tgn_assets." + name if name != "__init__" else "tgn_assets")

environment, filters = dict(os.environ), list(warnings.filters)
sys.modules["dagster"] = None
for name in {ML!r}:
    importlib.import_module("tgn_assets." + name)
of_dagster = [name for name in sys.modules if name.startswith("dagster.")]
del sys.modules["dagster"]
import_all()  # loads other packages as well, which set what they like
for name in [name for name in sys.modules if name.split(".")[0] == "tgn_assets"]:
    del sys.modules[name]
os.environ.clear()
os.environ.update(environment)
warnings.filters[:] = filters
import_all()
changed = sorted(set(os.environ.items()) ^ set(environment.items()))
print(json.dumps([of_dagster, changed, str([one for one in warnings.filters if one not in filters])]))
"""

USE = """
import json, sys, warnings
from pathlib import Path
from tgn_assets.state.process import prepare_process
prepare_process()
import tgn_assets.definitions
heavy = sorted({"torch", "torch_geometric", "altair", "vl_convert"} & set(sys.modules))
from tgn_assets.settings import Settings
settings = Settings(home=Path(sys.argv[1]), future_blind=True)
tgn_assets.definitions.build_definitions(settings).resolve_job_def("weekly_refresh")
from tgn_assets.assets.mlflow_tracking import log_model
tracking = log_model(Path("."), "2024-01-01", {}, {}, print), "mlflow" in sys.modules
import scipy.sparse, torch, torch_geometric.nn
warnings.simplefilter("error")
from tgn_assets.ml.encoder.gnn import WeightedMeanSAGEConv
from tgn_assets.ml.linalg.csr import with_transpose
from tgn_assets.ml.linalg.pair_dot import pair_dot
WeightedMeanSAGEConv(4), WeightedMeanSAGEConv(4)
one, zero = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
with_transpose(zero, zero, one[0], (1, 1))
pair_dot(one, one, zero, zero)
warnings.simplefilter("ignore")  # of a log that is young
import pandas as pd
from tgn_assets import Recommender
from tgn_assets.ml.config import GNNConfig, RankerConfig
from tgn_assets_tests.support.worlds import START, habits
log = pd.DataFrame(habits(30, 20, 5), columns=["user", "event", "week", "times"])
log["time"] = pd.Timestamp(START) + pd.to_timedelta(log.week * 7 + 6, unit="D")
Recommender(progress=False, gnn=GNNConfig(epochs=1), ranker=RankerConfig(epochs=1, networks=1)).fit(log)
print(json.dumps([heavy, tracking, [name in sys.modules for name in ("torch._dynamo.config", "sympy")]]))
"""

COMPILE = """
from tgn_assets.state.process import prepare_process
prepare_process()
import torch, torch_geometric
print(torch.compile(lambda number: number + 1, backend="eager")(torch.ones(1)).item())
"""


def run(code: str, *arguments: str, **environment: str) -> tuple[Any, str]:
    """What a process, which inherits nothing of `prepare_process`, prints to stdout, as JSON, and to stderr."""
    inherited = {name: value for name, value in os.environ.items() if name not in (*ENVIRONMENT, "MLFLOW_TRACKING_URI")}
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr


@pytest.fixture(scope="module")
def imported() -> Mapping[str, Any]:
    found, _ = run(IMPORTS)
    return dict(zip(("of dagster", "environment", "filters"), found, strict=True))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    home, temporary = (tmp_path_factory.mktemp(name) for name in ("home", "temporary"))
    (heavy, tracking, compilers), stderr = run(USE, str(home), TMPDIR=str(temporary))
    left = [path.name for path in temporary.glob("*.py")]
    return {"heavy": heavy, "tracking": tracking, "compilers": compilers, "stderr": stderr, "left": left}


def test_ml_works_where_dagster_is_not_installed(imported: Mapping[str, Any]) -> None:
    assert imported["of dagster"] == []


def test_an_import_changes_neither_environment_nor_warnings(imported: Mapping[str, Any]) -> None:
    assert (imported["environment"], imported["filters"]) == ([], "[]")


def test_the_definitions_load_without_torch(used: Mapping[str, Any]) -> None:
    """A code server starts in the time that importing Dagster takes; torch is loaded by the run that needs it."""
    assert used["heavy"] == []


def test_a_week_loads_neither_the_compiler_of_torch_nor_sympy(used: Mapping[str, Any]) -> None:
    """The compiler takes as long to load as torch itself, SymPy a third of that."""
    assert used["compilers"] == [False, False]


def test_who_compiles_gets_the_compiler_of_torch() -> None:
    assert run(COMPILE)[0] == 2.0


def test_without_the_variable_mlflow_is_not_even_imported(used: Mapping[str, Any]) -> None:
    assert used["tracking"] == ["off", False]


def test_an_encoder_leaves_no_temporary_file(used: Mapping[str, Any]) -> None:
    """PyG writes a module for each kind of layer, once in a process."""
    assert used["left"] == []


def test_a_process_that_used_it_all_ends_without_a_word(used: Mapping[str, Any]) -> None:
    """No warning of Dagster or of sparse tensors. DuckDB reports what is still held of it when a process ends, if only
    a class in an annotation of a function."""
    assert used["stderr"] == ""
