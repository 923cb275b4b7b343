"""Tests see no setting of the person who runs them, and the slow ones come first."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tgn_assets.cli.main import OBJECTS_PER_COLLECTION
from tgn_assets.state.process import prepare_process
from tgn_assets_tests.support.postgres import Postgres, postgres_server
from tgn_assets_tests.support.preloaded import preloaded_tgn

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from tgn_assets_tests.support.deployment import Deployment

REQUIRE_ALL = "TGN_TESTS_REQUIRE_ALL"
"""With this variable set, as `.ci/run` sets it, a skipped test fails: a browser or a server is missing."""

for setting in [name for name in os.environ if name.startswith("TGN_") and name != REQUIRE_ALL]:
    del os.environ[setting]

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads on top would stall each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

prepare_process()
# A job in the background ignores it, and so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(OBJECTS_PER_COLLECTION)  # as in `tgn`: what imports make is no garbage

SLOW = (
    "test_dagster_dev",
    "test_docs",
    "test_forget",
    "test_flow",
    "test_flow_again",
    "test_chaos",
    "test_policy_flow",
    "test_main",
    "test_operations",
    "test_notebook",
    "test_same_as_tgn",
    "test_time",
    "test_component",
    "test_service",
    "test_setup",
    "test_recommender",
    "test_files",
    "test_fresh_process",
    "test_sensors",
    "test_train",
    "test_monitoring",
    "test_warehouse",
    "test_security",
    "test_postgres",
)
"""Files of more than ten seconds, the longest first: one that starts last would leave the other workers idle."""
TESTS = "tgn_assets_tests"
SHARING = {f"{TESTS}/assets/{name}.py": "flow" for name in ("test_flow", "test_flow_again")} | {
    f"{TESTS}/forget/{name}.py": "forget" for name in ("test_forget", "test_command", "test_exports")
}
"""Files whose tests one worker runs, since they share a session's fixture that is slow: `finished`, `world`."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, in the order of `SLOW`; what takes a PostgreSQL server is a test of whole programs."""
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: the tests of servers and daemons wait for most of their time."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One file, or those that share something, one worker."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return SHARING.get(file := super()._split_scope(nodeid), file)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every test's report, once it has run."""
    return failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Every test file's report, once it has been read: a file may skip itself as a whole."""
    return failed_if_skipped((yield))


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def failed_if_skipped(report: Report) -> Report:
    """A skip as a failure with its reason, if `REQUIRE_ALL` is set; an expected failure stays one."""
    if report.skipped and os.environ.get(REQUIRE_ALL) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which {REQUIRE_ALL} forbids: {report.longrepr}"
    return report


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, in an empty folder without `.env`."""
    for name in [name for name in os.environ if name.startswith("TGN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def instance() -> "Iterator[DagsterInstance]":
    """A Dagster instance in memory."""
    from dagster import DagsterInstance

    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The p value of the best of several rankers from a tenth of the draws: enough for a rate over many worlds."""
    monkeypatch.setattr("tgn_assets.ml.evaluation.intervals.DRAWS", 2000)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, one for each worker that has a test for it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def tgn() -> Iterator[Path]:
    """A program as `tgn`, with its imports done: `support.preloaded`."""
    with preloaded_tgn() as program:
        yield program


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[Path, Deployment]]":
    """The folder of `deployment.walked` and what is in it; not to be changed."""
    from tgn_assets_tests.support.deployment import walked

    folder = tmp_path_factory.mktemp("world")
    with walked(folder) as deployment:
        yield folder, deployment


@pytest.fixture
def done(finished: "tuple[Path, Deployment]") -> "Deployment":
    return finished[1]


@pytest.fixture
def copy(finished: "tuple[Path, Deployment]", tmp_path: Path, instance: "DagsterInstance") -> "Deployment":
    """A copy of the finished deployment, to be damaged."""
    from tgn_assets_tests.support.deployment import Deployment, copied_home, home_at

    folder, _ = finished
    copied_home(folder, tmp_path, exported="home-export")
    return Deployment(home_at(tmp_path / "home", folder / "log.csv"), instance)
