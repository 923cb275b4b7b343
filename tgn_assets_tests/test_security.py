"""What must not happen, whatever the addresses and ids: secrets that are shown, ids that are obeyed, files that run."""

import ast
import io
import json
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pandas as pd
import pytest
from dagster import serialize_value

from tgn_assets.assets.catalog import for_deployment
from tgn_assets.assets.exports import export_asset
from tgn_assets.assets.ingest import raw_interactions
from tgn_assets.assets.mlflow_tracking import log_model
from tgn_assets.assets.partitions import weekly_partitions
from tgn_assets.automation.alerts import Alerts
from tgn_assets.automation.sensors import missing_or_changed_weeks_sensor
from tgn_assets.cli import check, status
from tgn_assets.cli.console import answer, print_results
from tgn_assets.ml.data.attribute_files import AttributeTableError, read_attribute_tables
from tgn_assets.ml.data.policy_files import PolicyError, read_ids
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.reporting.terminal import sample_table, top5
from tgn_assets.reporting.weekly_page.page import report_page
from tgn_assets.settings import Settings, SettingsError, read_settings
from tgn_assets.state.home import Home
from tgn_assets.state.resources import build_resources
from tgn_assets_tests.support.event_logs import JOBS, ROWS, WEEKS, home_on_log, publish, run_observation
from tgn_assets_tests.test_architecture import trees

SECRET = "s3cr3tW0rd"
LOG = "\n".join(["ip_address,event_id,timestamp", *ROWS]).encode()
ANSWERS = {
    "/log.csv": (200, LOG),
    "/columns.csv": (200, b"who,what,when\nu,e,2024-01-01\n"),
    "/none.csv": (200, b"ip_address,event_id,timestamp\nu,e,soon\n"),
    "/damaged.parquet": (200, b"PAR1 nothing"),
    "/denied.csv": (403, f"<Error><Signature>{SECRET}</Signature></Error>".encode()),
    "/broken.csv": (500, b""),
}
TOKENS = [
    f"?X-Amz-Credential={SECRET}%2F20240101&X-Amz-Signature={SECRET}",
    f"?sv=2022-11-02&sig={SECRET}%3D",
    f"?GoogleAccessId=a@b&Signature={SECRET}",
    f"?tok%65n={SECRET}#{SECRET}",
]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS.get(self.path.split("?")[0], (404, b""))
        self.send_response(status, "no" if status > 200 else "yes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def ingest_in_dagster(home: Home) -> str:
    """Runs raw_interactions of the first week; all that Dagster records and prints of it."""
    assets = for_deployment([raw_interactions], weekly_partitions(WEEKS[0], WEEKS[-1]), owner="team:a")
    printed = io.StringIO()
    with dg.DagsterInstance.ephemeral() as instance, redirect_stdout(printed), redirect_stderr(printed):
        done = dg.materialize(
            assets,
            partition_key=WEEKS[0],
            resources=build_resources(home, home.fresh_source_spec()),
            instance=instance,
            raise_on_error=False,
        )
        events = instance.all_logs(done.run_id)
    assert any(event.dagster_event for event in events)
    return printed.getvalue() + "".join(map(serialize_value, events))


def shown_of(home: Home) -> str:
    """What `tgn status`, `tgn check`, the sensor, observations and the files of `home` say."""
    said = list[str]()
    printed = io.StringIO()
    for sections, shown in (
        (lambda: status.status_sections(home), status.SHOWN),
        (lambda: check.check_sections(home), check.SHOWN),
    ):
        try:
            with redirect_stdout(printed):
                answer(sections(), shown)
        except SourceError as error:
            said += traceback.format_exception(error)
    said.append(printed.getvalue())
    sensor = missing_or_changed_weeks_sensor(home, JOBS)
    with dg.DagsterInstance.ephemeral() as instance, redirect_stderr(printed):
        for _ in range(2):
            said.append(repr(sensor(dg.build_sensor_context(instance))))
            observed = run_observation(home, instance)
            said += map(serialize_value, instance.all_logs(observed.run_id))
        said += [repr(sensor(dg.build_sensor_context(instance))), printed.getvalue()]
    said += [file.read_text() for file in home.root.glob("*.json")]
    return "\n".join([*said, repr(home.settings), repr(home.settings.model_dump(exclude={"source", "alert_url"}))])


@pytest.mark.parametrize(
    ("path", "token"),
    [*((path, TOKENS[0]) for path in (*ANSWERS, "/nowhere.csv")), *(("/denied.csv", token) for token in TOKENS[1:])],
)
def test_no_token_of_a_source_is_recorded(
    path: str, token: str, web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = home_on_log(tmp_path, source=f"http://{web}{path}{token}", start_week=WEEKS[0])
    with caplog.at_level(logging.INFO):
        try:
            said = ingest_in_dagster(home)
        except SourceError as error:
            said = "".join(traceback.format_exception(error))
        said += shown_of(home)
    assert path in said and "***" in said
    assert SECRET not in said + caplog.text


def test_signature_may_change_and_the_log_stays_the_same(web: str, tmp_path: Path) -> None:
    for signature in ("one", "another"):
        home = home_on_log(tmp_path, source=f"http://{web}/log.csv?X-Amz-Signature={signature}")
        assert home.start_week() == WEEKS[0]
        publish(home, WEEKS[0])
    assert json.loads((home.root / "log.json").read_text())["source"].endswith("X-Amz-Signature=***")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TGN_SOURCE", f"postgresql://u@host/db?pass%77ord={SECRET}"),
        ("TGN_SOURCE", f"host=db password={SECRET}"),
        ("TGN_SOURCE", f"https://u:{SECRET}@host/log.csv"),
        ("TGN_EXPORT_POSTGRES", f"postgresql://u:{SECRET}@host/db"),
        ("TGN_EXPORT_POSTGRES", f"host=db password={SECRET}"),
        ("TGN_EXPORT_PARQUET", f"https://host/out?sig={SECRET}"),
        ("TGN_ALERT_URL", f"ftp://host/{SECRET}"),
    ],
)
def test_setting_that_is_refused_is_not_repeated(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("TGN_SOURCE_QUERY", "clicks")
    with pytest.raises(SettingsError, match=name) as raised:
        read_settings()
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:9/{SECRET}",
        f"http://127.0.0.1:{SECRET}/",
        f"http://127.0.0.1/{SECRET} and blanks",
        f"http://u:{SECRET}@127.0.0.1:9/",
        f"http://[{SECRET}/",
        "http://{web}/hooks/" + SECRET,
    ],
)
def test_alert_that_fails_says_nothing_of_its_url(
    url: str, web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = home_on_log(tmp_path, alert_url=url.replace("{web}", web))
    Alerts(home).send("run", "failed")
    assert "did not take an alert" in caplog.text
    assert SECRET not in caplog.text + repr(home.settings)


@pytest.mark.parametrize(
    "uri", [f"http://u:{SECRET}@127.0.0.1:9", f"postgresql://u:{SECRET}@127.0.0.1:9/db", f"nope://{SECRET}:{SECRET}@h"]
)
def test_mlflow_that_is_away_costs_a_word_without_a_secret(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    assert log_model(tmp_path, WEEKS[0], {}, {}, said.append) == "not logged"
    assert len(said) == 1 and SECRET not in said[0] + "".join(capfd.readouterr())


def test_place_of_an_export_is_recorded_without_its_token(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    publish(home, WEEKS[0])
    place = f"nope://bucket/out?sig={SECRET}"
    assets = for_deployment([export_asset("parquet", place)], weekly_partitions(WEEKS[0]), owner="team:a")
    with dg.DagsterInstance.ephemeral() as instance:
        resources = build_resources(home, home.source_spec())
        run = dg.materialize(
            assets, partition_key=WEEKS[0], resources=resources, instance=instance, raise_on_error=False
        )
        said = "".join(map(serialize_value, instance.all_logs(run.run_id)))
    assert not run.success and "nope://bucket/out?sig=***" in said and SECRET not in said


HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "javascript:alert(1)",
    "![x](http://evil.example/p.png) [y](javascript:alert(1)) | a | b",
    "a\nb\r\nc",
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil.example\x1b\\",
    "\u202egpj.exe",
    "{{ 7 * 7 }}{% raw %}",
    "[bold red]markup[/bold red]",
    "=cmd|' /C calc'!A0",
    "x" * 1000,
    "\N{WOMAN}" * 999,
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose users and events have such names, with lists for the last two weeks."""
    home = home_on_log(tmp_path_factory.mktemp("hostile"))
    publish(home, *WEEKS)
    with home.warehouse().writer() as con:
        for week in WEEKS[-2:]:
            for user in HOSTILE:
                con.execute("INSERT INTO raw_interactions VALUES (?, ?, ?::DATE, ?)", [user, user, week, week])
    for week in WEEKS[-2:]:
        lists = pd.DataFrame(
            [(user, rank, event) for user in HOSTILE for rank, event in enumerate(HOSTILE[:5], 1)],
            columns=["user_id", "rank", "event_id"],
        ).assign(week=week, target_week=week, score=0.5, source="tgn_assets")
        first = lists.head(1).drop(columns="user_id")
        home.warehouse().replace_week_tables(
            week, {"weekly_top5_predictions": lists, "new_user_top5_predictions": first}
        )
    return home


def test_page_obeys_no_id(hostile: Home) -> None:
    page = report_page(
        hostile.warehouse(), WEEKS[-1], {}, {}, source=SourceSpec("log.csv"), made=datetime(2024, 1, 29, tzinfo=UTC)
    )
    assert "&lt;script&gt;" in page or "onmouseover=&#34;" in page
    own = r"(?!#|index\.html\"|[\d-]{10}\.html\")"
    assert not re.search(rf"<script|<img|<a [^>]*href=\"{own}|<[^>]*\son\w+\s*=|\x1b|\u202e", page)
    assert "49" not in re.findall(r"<bdi>(.*?)</bdi>", page)
    assert len(page) < 500_000


def test_terminal_obeys_no_id(hostile: Home) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        print_results([sample_table(hostile.warehouse(), WEEKS[-1])])
        for user in HOSTILE:
            answer(top5(hostile.warehouse(), user, WEEKS[-1]).items(), {"list": lambda table: [table]})
    said = out.getvalue()
    assert re.findall(r"[^\n -~\u2500-\u257f\N{WOMAN}…]", said) == []
    assert "[bold red]markup[/bold red]" in said


def test_names_of_files_and_columns_are_escaped_in_errors(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a\x1b[2J\u202e.csv").write_text("who\x1b[31m,what\n1,2\n")
    home = home_on_log(tmp_path, source=str(folder))
    with pytest.raises(SourceError, match="has no column") as raised:
        home.source_spec()
    text = "".join(traceback.format_exception(raised.value))
    assert r"a\x1b[2J\u202e.csv" in text and "\x1b" not in text and "\u202e" not in text


def test_list_of_columns_in_an_error_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "wide.csv"
    log.write_text(",".join(f"column{number}" for number in range(5000)) + "\n1\n")
    with pytest.raises(SourceError, match=r"'column0', .*and 4980 more") as raised:
        home_on_log(tmp_path, source=str(log)).source_spec()
    assert len(str(raised.value)) < 1000


def test_sizes_of_headers_and_of_files_are_limited(tmp_path: Path) -> None:
    log, large = tmp_path / "log.csv", tmp_path / "large.csv"
    log.write_text("ip_address,event_id,timestamp," + "c" * 100_000 + "\n")
    with pytest.raises(SourceError, match=r"the first line of .* has 100,030 characters"):
        Home(Settings(home=tmp_path / "home", source=str(log))).source_spec()
    with large.open("wb") as file:
        file.truncate(5 << 30)  # takes no room on the disk
    with pytest.raises(PolicyError, match=r"TGN_DENY_EVENTS=.* has more than 256 MB"):
        read_ids("TGN_DENY_EVENTS", str(large))
    with pytest.raises(AttributeTableError, match=r"TGN_EVENT_FEATURES=.* has more than 4 GB"):
        read_attribute_tables(str(large), None, pd.DataFrame(), pd.DataFrame(), WEEKS[0])


@pytest.mark.parametrize("name", ["a*.csv", "a[1].csv", "a?.csv"])
def test_attribute_file_is_the_one_that_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "a1.csv").write_text("event_id,price\nb,1\n")
    (tmp_path / name).write_text("event_id,price\na,2\n")
    nodes = pd.DataFrame({"idx": [0, 1], "id": ["a", "b"]})
    table = read_attribute_tables(str(tmp_path / name), None, nodes, nodes, WEEKS[0]).event
    assert (table.idx.tolist(), table.values.tolist()) == ([0], [[2.0]])


EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "runpy"}
CALLS = {"eval", "exec", "compile", "torch.load", "np.load", "pd.read_pickle", "os.system", "os.popen", "yaml.load"}


def executes(node: ast.AST, module: str) -> bool:
    """Whether `node` may run what a file says, or, outside of the module of plots, gives Dagster Markdown."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        return not EXECUTING.isdisjoint(name.split(".")[0] for name in names)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in CALLS or any(word.arg == "shell" for word in node.keywords)
    marked = isinstance(node, ast.Attribute) and node.attr == "md" and "MetadataValue" in ast.unparse(node)
    return marked and module != "reporting.asset_plots"


def test_nothing_is_executed_from_a_file() -> None:
    nodes = ((module, node) for module, tree in trees().items() for node in ast.walk(tree))
    assert [(module, ast.unparse(node)) for module, node in nodes if executes(node, module)] == []
    assert executes(ast.parse("import pickle").body[0], "") and executes(ast.parse("eval(x)", mode="eval").body, "")
