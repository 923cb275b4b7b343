"""Logs every week's model to MLflow, if `MLFLOW_TRACKING_URI` names a server or store: one MLflow run per week.

Nothing depends on it: if the model cannot be logged, the Dagster run logs a warning that says why.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgn_assets.ml.config import flatten
from tgn_assets.ml.progress import LogFn
from tgn_assets.ml.safe_text import first_line, safe_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "tgn_assets"
WEEK, HOME = "tgn.week", "tgn.home"
BATCH = 500
"""Metrics in a request; a server takes a thousand."""


def log_model(home: Path, week: str, gnn: Mapping[str, Any], ranker: Mapping[str, Any], warn: LogFn) -> str:
    """Logs the models of `week`, given their `meta`, as an MLflow run, in place of that of an earlier training.

    Returns "logged", "not logged", or "off" without `MLFLOW_TRACKING_URI`.
    """

    def log(client: "MlflowClient", experiment: str) -> None:
        for earlier in _runs(client, experiment, home, week):
            client.delete_run(earlier)
        tags = {WEEK: week, HOME: str(home), "warm_from": gnn["warm_from"] or "cold start"}
        tags |= {f"lists_of_{segment}_users": source for segment, source in ranker["fallback"]["source"].items()}
        run = client.create_run(experiment, run_name=week, tags=tags).info.run_id
        for asset, meta in (("trained_gnn", gnn), ("trained_ranker", ranker)):
            for name, value in flatten(meta["config"]).items():
                client.log_param(run, f"{asset}.{name}", value)
        epochs = [entry for entry in gnn["curve"] if entry["cutoff"] == week]
        curves = {"trained_gnn": (epochs, "validation_loss"), "trained_ranker": (ranker["curve"], "validation_ndcg")}
        values = [
            (f"{asset}.{name}", entry[name], step)
            for asset, (curve, validation) in curves.items()
            for name in ("loss", validation)
            for step, entry in enumerate(curve)
            if entry.get(name) is not None
        ]
        values += [(f"validation.{name}", value, 0) for name, value in ranker["validation"].items()]
        _log_metrics(client, run, values)
        client.set_terminated(run)

    return _logged(log, warn)


def log_scores(home: Path, week: str, scores: Mapping[str, float], warn: LogFn) -> str:
    """Adds the score of the lists of `week` to its MLflow run, if there is one; returns what `log_model` returns."""

    def log(client: "MlflowClient", experiment: str) -> None:
        for run in _runs(client, experiment, home, week):
            _log_metrics(client, run, [(f"next_week.{name.replace('/', '.')}", v, 0) for name, v in scores.items()])

    return _logged(log, warn)


@contextmanager
def untracked() -> Iterator[None]:
    """Within, nothing is logged: for models that only check a week's model."""
    uri = os.environ.pop(URI, None)
    try:
        yield
    finally:
        if uri is not None:
            os.environ[URI] = uri


def _logged(log: Callable[["MlflowClient", str], None], warn: LogFn) -> str:
    if not (uri := os.environ.get(URI)):
        return "off"
    # By default, MLflow retries for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    # stdout is for the results of `tgn`.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        from mlflow import MlflowClient
    except ImportError:
        warn(f"{URI} is set, but MLflow is not installed: pip install 'tgn_assets[mlflow]', or unset it")
        return "not logged"
    try:
        client = MlflowClient(tracking_uri=uri)
        name = os.environ.get(EXPERIMENT) or DEFAULT_EXPERIMENT
        there = client.get_experiment_by_name(name)
        log(client, there.experiment_id if there else client.create_experiment(name))
    except Exception as error:  # noqa: BLE001 (each kind of store has errors of its own)
        warn(f"the week could not be logged to MLflow ({safe_text(first_line(error))}); its lists do not depend on it")
        return "not logged"
    return "logged"


def _runs(client: "MlflowClient", experiment: str, home: Path, week: str) -> list[str]:
    query = f"tags.`{WEEK}` = '{week}' and tags.`{HOME}` = '{home}'"
    return [run.info.run_id for run in client.search_runs([experiment], query)]


def _log_metrics(client: "MlflowClient", run: str, values: list[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, step) for name, value, step in values if isfinite(value)]
    for low in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics[low : low + BATCH])
