"""The component in a project of another team: two logs beside each other, in one code location."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml  # type: ignore[import-untyped]
from dagster._cli.asset import asset_materialize_command
from dagster.components import build_defs_for_component
from dagster.components.core.package_entry import discover_entry_point_package_objects

from tgn_assets import WeeklyTopK
from tgn_assets.automation.runs import RANGE_END, RANGE_START
from tgn_assets.settings import Settings, SettingsError
from tgn_assets.state.lineage import RAW, UPSTREAM
from tgn_assets.state.run_lock import hold
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.deployment import QUIET, TINY, without_pictures
from tgn_assets_tests.team_project import COLUMNS, TYPE, WEEKS, TeamProject, two_logs

SHOP, EU = ("shop",), ("eu", "shop")
MONDAY = datetime(2024, 1, 15, 6, tzinfo=UTC)
"""The tick of the schedule after the second of the three weeks."""


def name_of(prefix: tuple[str, ...], name: str) -> str:
    return "__".join([*prefix, name])


@dataclass
class Team:
    """The project, its loaded definitions and its instance."""

    project: TeamProject
    defs: dg.Definitions
    instance: dg.DagsterInstance

    def home(self, prefix: tuple[str, ...]) -> Path:
        return self.project.folder / ".tgn" / ("shop" if prefix == SHOP else "eu_shop")

    def run(self, prefix: tuple[str, ...], job: str, **how: Any) -> dg.ExecuteInProcessResult:
        config: dict[str, Any] = {"loggers": QUIET}
        if "partition_key" in how:
            config["ops"] = {name_of(prefix, op): given for op, given in TINY.items()}
        resolved = self.defs.resolve_job_def(name_of(prefix, job))
        return resolved.execute_in_process(run_config=config, instance=self.instance, **how)

    def two_weeks(self, prefix: tuple[str, ...]) -> dg.ExecuteInProcessResult:
        """The first week ingested, and the second one refreshed."""
        keys = [dg.AssetKey([*prefix, name]) for name in ("raw_interactions", "weekly_snapshots")]
        weeks = {RANGE_START: WEEKS[0], RANGE_END: WEEKS[0]}
        self.run(prefix, "weekly_refresh", asset_selection=keys, tags=weeks)
        return self.run(prefix, "weekly_refresh", partition_key=WEEKS[1])

    def rows(self, prefix: tuple[str, ...], query: str) -> list[tuple]:
        with Warehouse(self.home(prefix) / "warehouse.duckdb").reader() as con:
            return con.execute(query).fetchall()

    def tick(self, prefix: tuple[str, ...]) -> dg.SensorResult | dg.SkipReason:
        """The sensor's answer, once it has seen an observation."""
        sensor = self.defs.resolve_sensor_def(name_of(prefix, "missing_or_changed_weeks"))
        answer = sensor(dg.build_sensor_context(self.instance))
        assert isinstance(answer, dg.SensorResult | dg.SkipReason)
        return answer


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Team]:
    """Loaded before the log of `shop` exists, with settings of another deployment in the environment."""
    without_pictures(patch)
    project = two_logs(tmp_path_factory.mktemp("team"))
    patch.setenv("TGN_HOME", str(project.folder / "not-this"))
    patch.setenv("TGN_K", "9")
    patch.setenv("TGN_SOURCE", "nowhere.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Team(project, project.load(patch), instance)


@pytest.fixture(scope="module")
def team(loaded: Team) -> Team:
    """With two weeks of each log, and the log of `shop` written by the team's asset."""
    loaded.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=loaded.instance, asset_selection=[dg.AssetKey("shop_log")], run_config={"loggers": QUIET}
    )
    for prefix in (SHOP, EU):
        assert loaded.two_weeks(prefix).success
    return loaded


def test_importing_the_package_does_not_import_dagster() -> None:
    code = "import sys, tgn_assets; assert 'dagster' not in sys.modules; from tgn_assets import WeeklyTopK; "
    code += "assert 'WeeklyTopK' in dir(tgn_assets); [getattr(tgn_assets, name) for name in dir(tgn_assets)]; "
    code += "assert not {'torch', 'altair', 'duckdb', 'tgn_assets.definitions'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_public_is_no_attribute() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'tgn_assets'"):
        from tgn_assets import Nothing  # noqa: F401


def test_dg_finds_the_component_by_the_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metadata = tmp_path / "installed-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[dagster_dg_cli.registry_modules]\ntgn_assets = tgn_assets\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {(key.namespace, key.name): value for key, value in discover_entry_point_package_objects().items()}
    assert found["tgn_assets", "WeeklyTopK"] is WeeklyTopK


def test_every_setting_is_an_attribute_with_its_description() -> None:
    schema = WeeklyTopK.get_model_cls().model_json_schema()  # type: ignore[union-attr]
    properties, settings = schema["properties"], Settings.model_fields
    assert {name: properties[name]["description"] for name in settings} == {
        name: field.description for name, field in settings.items()
    }
    assert {name: properties[name]["default"] for name in settings if name != "home"} == {
        name: field.default for name, field in settings.items() if name != "home"
    }
    assert set(properties) - set(settings) == {"key_prefix", "deps"} and schema["required"] == ["home", "key_prefix"]


def test_a_new_instance_is_named_after_its_folder(tmp_path: Path) -> None:
    file = TeamProject(tmp_path).scaffold("web-clicks")
    assert yaml.safe_load(file.read_text()) == {
        "type": TYPE,
        "attributes": {
            "key_prefix": "web_clicks",
            "home": "{{ context.project_root }}/.tgn/web_clicks",
            "source": "synthetic",
        },
    }


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"souce": "log.csv"}, "souce\n.*Extra inputs are not permitted"),
        ({"k": "many"}, "k\n.*valid integer"),
        ({"k": 0}, "k: Input should be greater than or equal to 1"),
        ({"repeats": "never"}, "repeats: Input should be 'learned' or 'exclude'|repeats\n"),
        ({"start_week": "2024-01-03"}, "start_week: 2024-01-03 is a Wednesday"),
        ({"source": "s3://id:word@bucket/log.csv"}, "source: it holds a password"),
        ({"key_prefix": "web-shop"}, "key_prefix: 'web-shop' is no name"),
        ({"key_prefix": []}, "key_prefix: it is empty"),
        ({"home": None}, "home"),
    ],
)
def test_an_attribute_that_cannot_be_used_is_named(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        WeeklyTopK.from_attributes_dict(attributes={"key_prefix": "shop", "home": "home"} | attributes)
    assert "word" not in str(raised.value).replace("password", "")


def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ALERTS", "https://chat/hook")
    given = {"key_prefix": "shop", "home": "home", "alert_url": "{{ env.SHOP_ALERTS }}"}
    component = WeeklyTopK.from_attributes_dict(attributes=given)
    assert component.settings.alert_url == "https://chat/hook"
    assert "hook" not in repr(component)


def test_two_instances_cannot_have_one_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = TeamProject(tmp_path)
    for name in ("one", "two"):
        project.scaffold(name, home=str(tmp_path / "home"))
    with pytest.raises(Exception, match="Error while") as raised:
        project.load(monkeypatch)
    assert isinstance(raised.value.__cause__, SettingsError)
    assert f"home: {tmp_path / 'home'} is that of" in str(raised.value.__cause__)


def test_a_log_that_is_not_there_yet_needs_a_start_week(tmp_path: Path) -> None:
    given: dict[str, Any] = {"key_prefix": "shop", "home": str(tmp_path / "home"), "source": str(tmp_path / "log.csv")}
    shop = WeeklyTopK(**given)
    with pytest.raises(SettingsError, match="set start_week to its Monday"):
        build_defs_for_component(shop)
    defs = build_defs_for_component(shop.model_copy(update={"start_week": WEEKS[0]}))
    assert defs.resolve_job_def("shop__weekly_refresh").partitions_def


def test_names_are_different_for_each_log(loaded: Team) -> None:
    defs = loaded.defs
    dg.Definitions.validate_loadable(defs)
    keys = {key.to_user_string() for key in defs.resolve_all_asset_keys()}
    both = {f"{'/'.join(prefix)}/{name}" for prefix in (SHOP, EU) for name in ("interaction_log", RAW, *UPSTREAM)}
    assert keys == both | {"shop_log", "eu/shop/parquet_export"}
    checks = [key.asset_key.path[:-1] for key in defs.resolve_asset_graph().asset_check_keys]
    assert checks.count(["eu", "shop"]) == checks.count(["shop"]) + 1 == 12  # future_blind is on for one of them
    jobs = {job.name for job in defs.resolve_all_job_defs() if job.name != "__ASSET_JOB"}
    assert jobs == {name_of(prefix, job) for prefix in (SHOP, EU) for job in ("weekly_refresh", "observe_source")}
    refresh = defs.resolve_job_def("shop__weekly_refresh")
    assert all(node.name.startswith("shop__") for node in refresh.nodes)
    assert {node.definition.pool for node in refresh.nodes} == {"shop__home"}  # type: ignore[attr-defined]


def test_the_lineage_begins_with_the_asset_of_the_team(loaded: Team) -> None:
    graph = loaded.defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["shop", "interaction_log"])).parent_keys == {dg.AssetKey("shop_log")}
    assert graph.get(dg.AssetKey(["shop", "raw_interactions"])).parent_keys == {
        dg.AssetKey(["shop", "interaction_log"])
    }
    assert graph.get(dg.AssetKey(["eu", "shop", "interaction_log"])).parent_keys == set()
    assert graph.get(dg.AssetKey(["eu", "shop", "eval_metrics"])).owners == ["team:eu"]


def test_each_log_has_its_weeks_in_its_own_home(team: Team) -> None:
    published = "SELECT count(DISTINCT user_id), max(rank) FROM weekly_top5_predictions WHERE week = '2024-01-08'"
    assert [team.rows(prefix, published)[0][1] for prefix in (SHOP, EU)] == [3, 5]
    rows = [team.rows(prefix, "SELECT count(*), min(user_id) FROM raw_interactions")[0] for prefix in (SHOP, EU)]
    assert rows[0] != rows[1] and min(row[0] for row in rows) > 0
    assert [(team.home(prefix) / "reports" / f"{WEEKS[1]}.html").exists() for prefix in (SHOP, EU)] == [True, True]
    assert (team.project.folder / "data" / "eu-lists").is_dir()
    assert not (team.project.folder / "not-this").exists()


def test_metadata_and_checks_are_those_of_the_log(team: Team) -> None:
    for prefix in (SHOP, EU):
        key = dg.AssetKey([*prefix, "weekly_top5_predictions"])
        event = team.instance.get_latest_materialization_event(key)
        assert event and event.asset_materialization
        metadata = event.asset_materialization.metadata
        assert metadata["k"].value == (3 if prefix == SHOP else 5)
        lineage = metadata["dagster/column_lineage"].value
        assert isinstance(lineage, dg.TableColumnLineage)
        assert {dep.asset_key for deps in lineage.deps_by_column.values() for dep in deps} == {
            dg.AssetKey([*prefix, "raw_interactions"])
        }
        check = dg.AssetCheckKey(key, "ranks_are_consecutive")
        record = team.instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
        assert record.evaluation and record.evaluation.passed


def test_the_report_has_the_run_times_of_its_own_log(team: Team) -> None:
    for prefix, other in ((SHOP, "eu__shop__"), (EU, "shop__trained")):
        page = (team.home(prefix) / "reports" / f"{WEEKS[1]}.html").read_text().replace("<wbr>", "")
        assert "trained_gnn" in page and other not in page


def test_the_past_is_computed_again_for_the_check_future_blind(team: Team) -> None:
    result = team.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=team.instance,
        partition_key=WEEKS[1],
        asset_selection=[dg.AssetKey(["eu", "shop", "weekly_top5_predictions"])],
        run_config={"loggers": QUIET},
    )
    (blind,) = [found for found in result.get_asset_check_evaluations() if found.check_name == "future_blind"]
    assert blind.passed, blind.description


def test_a_tick_requests_weeks_of_its_own_log_alone(team: Team) -> None:
    for prefix in (SHOP, EU):
        first = team.tick(prefix)
        assert isinstance(first, dg.SensorResult) and first.run_requests
        assert [request.job_name for request in first.run_requests] == [name_of(prefix, "observe_source")]
        assert team.run(prefix, "observe_source").success
    answer = team.tick(SHOP)
    assert isinstance(answer, dg.SensorResult) and answer.run_requests
    [request] = answer.run_requests
    assert (request.job_name, request.partition_key) == ("shop__weekly_refresh", WEEKS[2])
    rest = team.tick(EU)
    assert isinstance(rest, dg.SensorResult) and not rest.run_requests
    assert rest.skip_reason and f"all weeks up to {WEEKS[1]} are complete" in str(rest.skip_reason.skip_message)


def test_a_run_holds_up_its_own_log_alone(team: Team) -> None:
    job = team.defs.resolve_job_def("eu__shop__weekly_refresh")
    run = team.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    waits = team.tick(EU)
    assert isinstance(waits, dg.SkipReason) and f"run {run.run_id[:8]} is started" in str(waits.skip_message)
    assert isinstance(team.tick(SHOP), dg.SensorResult)
    team.instance.delete_run(run.run_id)


def test_the_schedule_requests_its_own_week(team: Team) -> None:
    for prefix in (SHOP, EU):
        team.run(prefix, "observe_source")
    context = dg.build_schedule_context(team.instance, scheduled_execution_time=MONDAY.replace(day=22))
    requests = team.defs.resolve_schedule_def("shop__weekly_refresh_schedule")(context)
    assert isinstance(requests, list)
    assert [(request.job_name, request.partition_key) for request in requests] == [("shop__weekly_refresh", WEEKS[2])]
    late = team.defs.resolve_schedule_def("eu__shop__weekly_refresh_schedule")(context)
    assert isinstance(late, dg.SkipReason) and f"ends with {WEEKS[1]}" in str(late.skip_message)


def test_weeks_that_are_overdue_fail_the_check_of_their_log(team: Team) -> None:
    context = dg.build_sensor_context(team.instance)
    answer = team.defs.resolve_sensor_def("shop__overdue_lists")(context)
    assert isinstance(answer, dg.SensorResult)
    (evaluation,) = answer.asset_events
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert evaluation.asset_key == dg.AssetKey(["shop", "weekly_top5_predictions"]) and not evaluation.passed


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore:Function .asset_materialize_command. is superseded")
def test_the_step_process_of_another_executor_has_the_settings_of_the_log(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`dagster asset materialize`, run in this process, runs each step in a process that loads the project anew."""
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("TGN_K", "0")
    monkeypatch.syspath_prepend(str(team.project.folder / "src"))
    command = ["-m", "team.definitions", "--partition", WEEKS[1], "--select", "key:shop/weekly_snapshots"]
    with hold(team.home(EU) / "run.lock", "a run of the other log", print):
        asset_materialize_command.main(command, standalone_mode=False)
    said = capfd.readouterr().err
    assert "Multiprocess executor" in said and "shop__weekly_snapshots" in said


def test_tgn_works_on_the_home_of_an_instance(team: Team, tgn: Path) -> None:
    """Lists need the home alone; what reads the source needs the other attributes, as variables."""
    ((user,),) = team.rows(EU, "SELECT min(user_id) FROM weekly_top5_predictions")
    values = {"source": team.project.folder / "data" / "eu.csv", **COLUMNS}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("TGN_")}
    home = outside | {"TGN_HOME": str(team.home(EU))}
    settings = home | {f"TGN_{name.upper()}": str(value) for name, value in values.items()}
    asked = (["top5", user], home, WEEKS[2]), (["models", "list"], home, WEEKS[1]), (["status"], settings, WEEKS[1])
    for command, environment, week in asked:
        shown = subprocess.run([tgn, *command], env=environment, capture_output=True, text=True)
        assert shown.returncode == 0 and week in shown.stdout, shown.stdout + shown.stderr
