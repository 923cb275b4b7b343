"""Ray instead of threads: the same bytes, and what happens when workers, nodes, tasks and drivers fail."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import ray
from ray.cluster_utils import Cluster

from tgn_assets.ml.evaluation.baselines import all_baselines
from tgn_assets.ml.parallel import THREADS, Workers, WorkersError
from tgn_assets.ml.ranker import training_set
from tgn_assets.ml.ranker.checkpoint import temporal_embeddings
from tgn_assets.ml.ranker.train import train_ranker
from tgn_assets.ml.recommend import top_k
from tgn_assets.ml.recommend.top_k import diagnose, recommend
from tgn_assets.ray_tasks import LOCAL, RayTasks
from tgn_assets.state.resources import WorkersSetting
from tgn_assets_tests.ml.ranker.test_train import CONFIG, LAST, PAST, embedding_history

__all__ = ["embedding_history"]


@pytest.fixture(scope="module")
def local() -> Iterator[None]:
    """A cluster of two workers on this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


def tasks(shards: int = 1, log: list[str] | None = None) -> RayTasks:
    said = [] if log is None else log
    return RayTasks(LOCAL, shards_per_task=shards, log=said.append)


def plus(shared: int, shard: int) -> int:
    return shared + shard


def killed_once(marker: Path, shard: int) -> int:
    """Kills its process in the third shard, unless it has done so before."""
    if shard == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


def always_killed(_: None, shard: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return shard


def failing(folder: Path, shard: int) -> int:
    (folder / f"begun {shard}").touch()
    if shard == 0:
        raise KeyError("shard without users")
    time.sleep(60)
    (folder / f"done {shard}").touch()
    return shard


def second_takes_a_minute(mark: Path, shard: int) -> int:
    """The first of two shards ends when the second is at work."""
    if shard:
        mark.touch()
        time.sleep(60)
    while not mark.exists():
        time.sleep(0.05)
    return shard


def wait_for_free_processors() -> None:
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def slow(_: None, shard: int) -> int:
    time.sleep(0.5)
    return shard


def slow_elsewhere(shared: tuple[str, Path], shard: int) -> int:
    """Leaves a mark and takes a minute on any node but the one that `shared` names."""
    here, mark = shared
    if ray.get_runtime_context().get_node_id() != here:
        mark.touch()
        time.sleep(60)
    return shard


def changes_what_is_shared(shared: np.ndarray, shard: int) -> float:
    shared[0] = shard
    return float(shared[0])


@pytest.mark.usefixtures("local")
def test_results_come_in_the_order_of_the_shards() -> None:
    for shards in (1, 3):
        assert list(tasks(shards).map(plus, 10, iter(range(20)))) == list(range(10, 30))


@pytest.mark.usefixtures("local")
def test_ranker_lists_and_scores_are_the_bytes_of_threads(
    embedding_history: training_set.EmbeddingHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(workers: Workers = THREADS) -> list[Any]:
        ranker = train_ranker(PAST, embedding_history, LAST, config=CONFIG, workers=workers)
        embeddings = temporal_embeddings(ranker, PAST, embedding_history, workers=workers)
        lists = recommend(PAST, ranker, embedding_history, embeddings, workers=workers)
        shown = diagnose(PAST, ranker, embedding_history, embeddings, workers=workers)
        everyone = np.arange(PAST.num_users)
        found = shown.found(everyone, everyone, everyone % PAST.num_events)
        weights = [weight.numpy().tobytes() for weight in ranker.state.values()]
        baselines = [lists.tobytes() for lists in all_baselines(PAST, everyone, workers=workers).values()]
        arrays = embeddings.users.numpy(), lists.events, lists.scores, lists.reason, found, shown.lists(everyone)
        return [ranker.meta(), lists.reasons, *weights, *baselines, *(array.tobytes() for array in arrays)]

    monkeypatch.setattr(training_set, "TRAINING_SHARD", 8)
    monkeypatch.setattr(top_k, "RANKING_SHARD", 8)
    assert made(workers=tasks(shards=3)) == made()


@pytest.mark.usefixtures("local")
def test_a_shard_whose_worker_is_killed_is_done_again_and_the_log_says_so(tmp_path: Path) -> None:
    log = list[str]()
    assert list(tasks(2, log).map(killed_once, tmp_path / "killed", range(8))) == list(range(8))
    assert [line.partition(":")[0] for line in log] == ["a task of Ray was lost and is begun again (1 of 3)"]


@pytest.mark.usefixtures("local")
def test_a_shard_that_always_dies_ends_the_run() -> None:
    log = list[str]()
    with pytest.raises(WorkersError, match="a task of Ray was lost 4 times"):
        list(tasks(1, log).map(always_killed, None, [1]))
    assert len(log) == 3


@pytest.mark.usefixtures("local")
def test_an_error_of_a_task_ends_the_run_at_once_with_its_own_message(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="shard without users") as raised:
        list(tasks().map(failing, tmp_path, range(4)))
    assert type(raised.value) is KeyError
    wait_for_free_processors()
    assert not list(tmp_path.glob("done *"))


@pytest.mark.usefixtures("local")
def test_a_task_that_has_failed_is_not_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray may abort this process if it is."""
    cancelled = list[object]()
    monkeypatch.setattr(ray, "cancel", lambda result, *, force: cancelled.append(result))
    with pytest.raises(KeyError):
        list(tasks().map(failing, tmp_path, [0]))
    assert cancelled == []


@pytest.mark.usefixtures("local")
def test_tasks_of_a_reader_who_stops_are_cancelled(tmp_path: Path) -> None:
    for shard in tasks().map(second_takes_a_minute, tmp_path / "second at work", range(2)):
        assert shard == 0
        break
    wait_for_free_processors()


@pytest.mark.usefixtures("local")
def test_a_cancellation_that_ray_loses_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, lost = ray.cancel, set[Any]()

    def cancel_second_time(result: Any, *, force: bool) -> None:
        if result in lost:
            cancel(result, force=force)
        lost.add(result)

    monkeypatch.setattr(ray, "cancel", cancel_second_time)
    for _ in tasks().map(second_takes_a_minute, tmp_path / "second at work", range(2)):
        break
    assert lost
    wait_for_free_processors()


@pytest.mark.usefixtures("local")
def test_work_cannot_change_what_is_shared() -> None:
    with pytest.raises(ValueError, match="read-only"):
        list(tasks().map(changes_what_is_shared, np.zeros(100_000), [1]))


@pytest.mark.usefixtures("local")
def test_a_node_with_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tasks()
    monkeypatch.setattr(engine, "own", engine.own._replace(version="0.0.1"))
    with pytest.raises(WorkersError, match=r"a node of Ray has tgn_assets .*, the run 0\.0\.1: install the same"):
        list(engine.map(plus, 1, [1]))


@pytest.mark.usefixtures("local")
def test_a_node_with_another_processor_is_said_once() -> None:
    log = list[str]()
    engine = tasks(1, log)
    here, engine.own = engine.own.processor, engine.own._replace(processor="ANCIENT")
    assert list(engine.map(plus, 1, [1, 2, 3])) == [2, 3, 4]
    engine._compare("ANCIENT")
    engine._compare(here)
    assert len(log) == 1 and "this one with ANCIENT: last digits of scores may differ" in log[0]


def test_tasks_of_a_removed_node_run_elsewhere(tmp_path: Path) -> None:
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        log, mark = list[str](), tmp_path / "second node at work"

        def remove() -> None:
            while not mark.exists():
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)

        engine = RayTasks(cluster.address, shards_per_task=1, log=log.append)
        removing = threading.Thread(target=remove)
        removing.start()
        here = ray.get_runtime_context().get_node_id()
        assert list(engine.map(slow_elsewhere, (here, mark), range(6))) == list(range(6))
        removing.join()
        assert log and "a task of Ray was lost and is begun again (1 of 3)" in log[0]
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_out_of_memory_names_the_setting() -> None:
    ray.shutdown()
    limits = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 50}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config=limits)
    try:
        with pytest.raises(WorkersError, match="ran out of memory over 2 shards of users: set TGN_TASK_SHARDS to less"):
            list(tasks(2).map(slow, None, range(2)))
    finally:
        ray.shutdown()


def test_a_killed_driver_leaves_no_process_and_no_shared_memory() -> None:
    code = """
import time, ray
from tgn_assets.ray_tasks import RayTasks
from tgn_assets_tests.ray.test_ray_tasks import slow
for _ in RayTasks("ray", shards_per_task=1, log=print).map(slow, None, range(1000)):
    print("working", flush=True)
"""
    segments = set(os.listdir("/dev/shm"))
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "working\n"
    family = psutil.Process(driver.pid).children(recursive=True)
    agents = {process.name() for process in family if "Agent" in process.name()}
    assert {"raylet", "gcs_server"} <= {process.name() for process in family}
    driver.kill()
    driver.wait()
    # Two agents that serve the dashboard notice a minute later.
    _, alive = psutil.wait_procs([process for process in family if process.name() not in agents], timeout=30)
    assert alive == []
    assert set(os.listdir("/dev/shm")) <= segments


@pytest.mark.usefixtures("local")
def test_the_run_can_be_terminated_as_without_ray() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ray.shutdown()
    tasks()
    assert signal.getsignal(signal.SIGTERM) is before
    ray.shutdown()


def test_the_cluster_may_be_started_by_another_thread() -> None:
    ray.shutdown()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: list(tasks().map(plus, 1, [1, 2]))).result() == [2, 3]
    ray.shutdown()


def test_an_address_without_a_cluster_is_named() -> None:
    ray.shutdown()
    with pytest.raises(WorkersError, match=r"TGN_WORKERS=127\.0\.0\.1:1: no cluster .*RAY_AUTH_MODE=token$"):
        RayTasks("127.0.0.1:1", shards_per_task=1, log=print)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tgn_assets.ray_tasks")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkersError, match=r"TGN_WORKERS needs ray: .*\[ray\]"):
        WorkersSetting(address="ray", task_shards=1).start("cpu", print)


def test_a_gpu_and_ray_do_not_go_together() -> None:
    with pytest.raises(WorkersError, match="set TGN_DEVICE=cpu"):
        WorkersSetting(address="ray", task_shards=1).start("cuda", print)


def test_without_the_setting_ray_is_never_imported() -> None:
    code = """
import sys
import tgn_assets.definitions
from tgn_assets.state.resources import WorkersSetting
WorkersSetting(task_shards=1).start("cpu", print)
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
