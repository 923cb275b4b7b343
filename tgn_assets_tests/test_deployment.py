"""The files of docs/deployment.md: units, and a company's own Dagster instance on a real PostgreSQL server."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner

from tgn_assets.automation.backlog import Backlog
from tgn_assets.cli.main import cli
from tgn_assets.definitions import build_definitions
from tgn_assets.run_launcher import WatchfulRunLauncher
from tgn_assets.state.home import DAGSTER_YAML, Home
from tgn_assets_tests.support.event_logs import WEEKS, home_on_log, observe, publish
from tgn_assets_tests.support.postgres import Postgres

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "deployment.md").read_text()
FILES = dict(re.findall(r"^```(?:yaml|ini)\n# ([^\n]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
"""The files that the page shows, by the path in their first line."""
INSTANCE = FILES["$DAGSTER_HOME/dagster.yaml"]


@pytest.fixture
def instance(tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of the page, in an empty database."""
    postgres.run("DROP DATABASE IF EXISTS company", "CREATE DATABASE company")
    url = postgres.url(database="company").replace("postgresql://", "postgresql+psycopg2://")  # as the page says
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    company = tmp_path / "company"
    company.mkdir()
    (company / "dagster.yaml").write_text(INSTANCE)
    with dg.DagsterInstance.from_config(str(company)) as instance:
        yield instance


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home all of whose weeks were made by `tgn`, under another instance."""
    home = home_on_log(tmp_path)
    publish(home, *WEEKS)
    observe(home)
    return home


def _tick(home: Home, instance: dg.DagsterInstance) -> dg.SensorResult:
    definitions = build_definitions(home.settings)
    sensor = definitions.get_repository_def().get_sensor_def("missing_or_changed_weeks")
    context = dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def test_the_sensor_tells_a_new_instance_of_weeks_made_elsewhere(home: Home, instance: dg.DagsterInstance) -> None:
    tick = _tick(home, instance)
    assert not tick.run_requests
    for event in tick.asset_events:
        instance.report_runless_asset_event(event)
    for asset in ("raw_interactions", "trained_gnn", "weekly_top5_predictions", "weekly_report"):
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(WEEKS)
    assert not _tick(home, instance).asset_events


def test_a_week_that_this_instance_runs_is_known_to_the_home(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = home_on_log(tmp_path)
    job = build_definitions(home.settings).resolve_job_def("weekly_refresh")
    selection = [dg.AssetKey("raw_interactions"), dg.AssetKey("weekly_snapshots")]
    run = job.execute_in_process(partition_key=WEEKS[0], instance=instance, asset_selection=selection)
    assert run.success
    assert list(home.warehouse().lineage().ingested) == [WEEKS[0]]
    assert instance.get_materialized_partitions(dg.AssetKey("weekly_snapshots")) == {WEEKS[0]}
    assert Backlog(home).unknown_to(instance) == []


def test_the_instance_has_what_a_home_of_its_own_has(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, WatchfulRunLauncher)
    assert instance.run_monitoring_enabled
    own, of_home = yaml.safe_load(INSTANCE), yaml.safe_load(DAGSTER_YAML.read_text())
    for part in ("concurrency", "run_launcher"):
        assert own[part] == of_home[part]


def test_the_limit_that_leaves_other_locations_alone_is_one_that_dagster_knows(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(FILES["dagster.yaml, in place of max_concurrent_runs: 1"])
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
    assert queue and queue.tag_concurrency_limits == [
        {"key": "dagster/code_location", "value": "tgn_assets", "limit": 1}
    ]


def test_the_workspace_file_of_the_page_is_that_of_the_package() -> None:
    package = Path(__file__).parents[1] / "tgn_assets" / "workspace.yaml"
    assert yaml.safe_load(FILES["workspace.yaml"]) == yaml.safe_load(package.read_text())


UNITS = [Path(path).name for path in FILES if path.startswith("/etc/systemd/")]


def test_the_units_are_units(tmp_path: Path) -> None:
    assert UNITS == ["tgn.service", "tgn-refresh.service", "tgn-refresh.timer"]
    program = shutil.which("true")
    for name in UNITS:
        text = FILES[f"/etc/systemd/system/{name}"].replace("/srv/tgn/.venv/bin/tgn", str(program))
        (tmp_path / name).write_text(text)
    if verify := shutil.which("systemd-analyze"):
        command = [verify, "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)]
        checked = subprocess.run(command, capture_output=True, text=True)
        assert not [line for line in checked.stderr.splitlines() if str(tmp_path) in line or "tgn" in line]


@pytest.mark.parametrize(("page", "units"), [("deployment.md", 2), ("serving.md", 1)])
def test_the_commands_of_units_have_options_that_exist(page: str, units: int) -> None:
    commands = re.findall(r"^ExecStart=\S+/tgn (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    assert [CliRunner().invoke(cli, [*of.split(), "--help"]).exit_code for of in commands] == [0] * units
