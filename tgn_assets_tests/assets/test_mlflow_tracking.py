"""Weeks in MLflow: in a store of files, and in a tracking server on this machine."""

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.servers import running
from tgn_assets.assets.mlflow_tracking import log_model, log_scores, untracked

if TYPE_CHECKING:  # it takes a second to import
    from mlflow import MlflowClient

HOME, WEEK = Path("/home/of"), "2024-01-08"
GNN: dict[str, Any] = {
    "warm_from": "2024-01-01",
    "config": {"dim": 8, "fan_out": [15, 10]},
    "curve": [
        {"cutoff": "2024-01-01", "loss": 9.0, "validation_loss": 9.0},
        {"cutoff": WEEK, "loss": 0.5, "validation_loss": 0.6},
        {"cutoff": WEEK, "loss": 0.4, "validation_loss": None},
    ],
}
RANKER: dict[str, Any] = {
    "config": {"epochs": 2, "lambdarank": {"rounds": 100}},
    "curve": [{"epoch": 0, "loss": 1.5, "validation_ndcg": 0.2}],
    "fallback": {"source": {"active": "tgn_assets", "lapsed": "repeat"}},
    "validation": {"ndcg_tgn_assets": 0.2, "ndcg_repeat": 0.1, "ndcg_popular": float("nan")},
}
PARAMS = {
    "trained_gnn.dim": "8",
    "trained_gnn.fan_out": "[15, 10]",
    "trained_ranker.epochs": "2",
    "trained_ranker.lambdarank.rounds": "100",
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow server`."""
    store = (tmp_path / "served").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1", "--port"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = os.environ | quiet | {"MLFLOW_ALLOW_FILE_STORE": "true"}
    with running(command, tmp_path / "server.log", cwd=tmp_path, env=environment) as (_, port):
        yield f"http://127.0.0.1:{port}"


def ask(server: str, path: str, **question: Any) -> Any:
    """The answer of the REST API of `server`."""
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}", headers={"Content-Type": "application/json"})
    data = json.dumps(question).encode() if question else None
    with urllib.request.urlopen(request, data) as answer:
        return json.load(answer)


def never(message: str) -> None:
    raise AssertionError(message)


def runs(client: "MlflowClient") -> list[Any]:
    found = client.get_experiment_by_name("tgn_assets")
    return client.search_runs([found.experiment_id]) if found else []


def test_a_week_is_a_run_with_parameters_and_curves(store: "MlflowClient") -> None:
    assert log_model(HOME, WEEK, GNN, RANKER, never) == "logged"
    (run,) = runs(store)
    assert (run.info.run_name, run.info.status) == (WEEK, "FINISHED")
    assert run.data.tags["warm_from"] == "2024-01-01" and run.data.tags["lists_of_lapsed_users"] == "repeat"
    assert run.data.params == PARAMS
    assert run.data.metrics == {
        "trained_gnn.loss": 0.4,
        "trained_gnn.validation_loss": 0.6,
        "trained_ranker.loss": 1.5,
        "trained_ranker.validation_ndcg": 0.2,
        "validation.ndcg_tgn_assets": 0.2,
        "validation.ndcg_repeat": 0.1,
    }
    losses = store.get_metric_history(run.info.run_id, "trained_gnn.loss")
    assert [(point.step, point.value) for point in losses] == [(0, 0.5), (1, 0.4)]


def test_a_week_trained_again_replaces_its_own_run_only(store: "MlflowClient") -> None:
    for home, week in ((HOME, "2024-01-01"), (Path("/other"), WEEK), (HOME, WEEK)):
        log_model(home, week, GNN, RANKER, never)
    log_model(HOME, WEEK, GNN, RANKER | {"config": {"epochs": 7}}, never)
    found = {(run.data.tags["tgn.home"], run.data.tags["tgn.week"]): run for run in runs(store)}
    assert set(found) == {(str(HOME), "2024-01-01"), ("/other", WEEK), (str(HOME), WEEK)} and len(runs(store)) == 3
    assert found[str(HOME), WEEK].data.params["trained_ranker.epochs"] == "7"


def test_scores_join_the_run_whose_lists_they_are_of(store: "MlflowClient") -> None:
    assert log_scores(HOME, WEEK, {"ndcg/all/tgn_assets": 0.3}, never) == "logged" and runs(store) == []
    log_model(HOME, WEEK, GNN, RANKER, never)
    assert log_scores(HOME, WEEK, {"ndcg/all/tgn_assets": 0.3, "map/new": float("nan")}, never) == "logged"
    metrics = runs(store)[0].data.metrics
    assert metrics["next_week.ndcg.all.tgn_assets"] == 0.3 and "next_week.map.new" not in metrics


@pytest.mark.e2e
def test_a_tracking_server_has_the_week_and_its_scores(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert log_model(HOME, WEEK, GNN, RANKER | {"config": {"epochs": 7}}, never) == "logged"
    assert log_model(HOME, WEEK, GNN, RANKER, never) == "logged"
    assert log_scores(HOME, WEEK, {"ndcg/all/tgn_assets": 0.3}, never) == "logged"
    experiment = ask(server, "experiments/get-by-name?experiment_name=tgn_assets")["experiment"]["experiment_id"]
    (run,) = ask(server, "runs/search", experiment_ids=[experiment])["runs"]
    assert (run["info"]["run_name"], run["info"]["status"]) == (WEEK, "FINISHED")
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params == PARAMS
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert (metrics["validation.ndcg_repeat"], metrics["next_week.ndcg.all.tgn_assets"]) == (0.1, 0.3)
    losses = ask(server, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=trained_gnn.loss")["metrics"]
    assert [(point["step"], point["value"]) for point in losses] == [(0, 0.5), (1, 0.4)]


def test_what_is_made_as_a_proof_is_not_logged(store: "MlflowClient") -> None:
    with untracked():
        assert log_model(HOME, WEEK, GNN, RANKER, never) == "off"
    with pytest.raises(KeyError), untracked():
        raise KeyError
    assert runs(store) == []
    assert log_model(HOME, WEEK, GNN, RANKER, never) == "logged"


def test_a_server_that_is_away_is_told_and_does_not_stop_the_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    assert log_model(HOME, WEEK, GNN, RANKER, said.append) == "not logged"
    assert "could not be logged to MLflow" in said[0]


def test_a_missing_package_is_told_with_the_remedy(store: "MlflowClient", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    said: list[str] = []
    assert log_scores(HOME, WEEK, {}, said.append) == "not logged"
    assert "pip install 'tgn_assets[mlflow]'" in said[0]
