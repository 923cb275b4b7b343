"""`tgn dev`: its port, its address, what it says before it starts, and the code location that it loads.

e2e/test_dagster_dev.py starts it for real, and looks at the address that it prints.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from click import ClickException
from click.testing import CliRunner, Result
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.workspace.load_target import PyProjectFileTarget, WorkspaceFileTarget, WorkspaceLoadTarget

from benchmarks.servers import free_port
from tgn_assets.cli.main import cli
from tgn_assets.cli.server import browser_url, refuse_taken_port
from tgn_assets.state.home import Home
from tgn_assets_tests.support.event_logs import WEEKS, home_on_log, publish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on a port of its own."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def _port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def _dev(folder: Path, home: Home, *options: str, reports_url: str = "https://shop.example") -> Result:
    """`tgn dev` without DAGSTER_HOME; the process that it would become is not started."""
    environment = {"TGN_HOME": str(folder / "home"), "TGN_SOURCE": home.settings.source}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", "")
        patch.setenv("TGN_REPORTS_URL", reports_url)
        patch.setattr(os, "execv", lambda program, command: print("starts", *command))
        return CliRunner(env=environment).invoke(cli, ["dev", *options])


def test_weekly_pages_are_served_unless_a_setting_names_them(tmp_path: Path) -> None:
    home, port = home_on_log(tmp_path), ("--port", str(free_port()))
    served = _dev(tmp_path, home, *port, reports_url="").stderr
    assert re.search(r"^http://127.0.0.1:\d+/reports/ has the weekly pages$", served, re.MULTILINE)
    assert "weekly pages" not in _dev(tmp_path, home, *port, reports_url="https://shop.example/weeks").stderr
    refused = _dev(tmp_path, home, *port, reports_url="https://ann:secret@shop.example/weeks").stderr
    assert "TGN_REPORTS_URL: the UI shows it" in refused and "secret" not in refused


def test_sigterm_ends_what_a_script_has_started_in_the_background(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert _dev(tmp_path, home_on_log(tmp_path), "--port", str(free_port())).exit_code == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["file", "file/home"])
def test_a_home_that_can_never_be_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = CliRunner(env={"TGN_HOME": str(tmp_path / name)}).invoke(cli, ["serve", "--port", str(free_port())])
    assert refused.exit_code == 1
    assert f"{tmp_path / 'file'} is no folder" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_taken_port_is_refused_before_anything_starts(host: str, tmp_path: Path, listener: socket.socket) -> None:
    home = home_on_log(tmp_path)
    refused = _dev(tmp_path, home, "--port", str(_port(listener)), "--host", host)
    assert refused.exit_code == 1
    assert refused.output == (
        f"Error: port {_port(listener)} of {host} cannot be used: Address already in use; choose another one with "
        "--port\n"
    )
    assert not (home.dagster_home / "storage").exists()


def test_a_port_is_free_although_a_connection_to_it_has_just_ended(listener: socket.socket) -> None:
    port = _port(listener)
    with socket.create_connection(listener.getsockname()):
        listener.accept()[0].close()  # this side ends first, and keeps the port in TIME_WAIT
    listener.close()
    refuse_taken_port("127.0.0.1", port)


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(ClickException, match="--host no such host is no address"):
        refuse_taken_port("no such host", 3000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:3000"),
        ("0.0.0.0", "http://127.0.0.1:3000"),
        ("localhost", "http://localhost:3000"),
        ("::1", "http://[::1]:3000"),
        ("::", "http://[::1]:3000"),
    ],
)
def test_the_printed_address_can_be_typed_into_a_browser(host: str, url: str) -> None:
    assert browser_url(host, 3000) == url


def test_a_new_home_is_told_that_it_will_train(tmp_path: Path) -> None:
    home, port = home_on_log(tmp_path), str(free_port())
    new = _dev(tmp_path, home, "--port", port)
    assert new.exit_code == 0, new.output
    assert f"http://127.0.0.1:{port} shows {home.root}\n" in new.stderr
    assert "trains as soon as the UI runs" in new.stderr and "under Automation in the UI" in new.stderr
    publish(home, *WEEKS)
    assert "trains" not in _dev(tmp_path, home, "--port", port).stderr


def test_the_ui_starts_without_advice_to_type_another_command(tmp_path: Path) -> None:
    started = _dev(tmp_path, home_on_log(tmp_path), "--port", str(free_port())).stdout
    assert started.startswith("starts ")
    option = re.search(r"-W (ignore:.*:FutureWarning) -m dagster dev ", started)
    (tmp_path / "nothing.yaml").touch()  # at which it ends, once it has warned
    command = [sys.executable, *(["-W", option[1]] if option else []), "-m", "dagster", "dev", "-w", "nothing.yaml"]
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "nothing.yaml" in ended.stderr and "superseded" not in ended.stderr


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.output) == (0, f"tgn {version('tgn_assets')}\n")


def test_dagster_dev_and_tgn_dev_load_the_same_location_under_one_name() -> None:
    """What was switched on or off in the UI is kept by the name of the location."""
    by_project = _location(PyProjectFileTarget(str(ROOT / "pyproject.toml")))
    by_package, by_workspace = (
        _location(WorkspaceFileTarget(paths=[str(folder / "workspace.yaml")])) for folder in (ROOT / "tgn_assets", ROOT)
    )
    assert by_project == by_package == by_workspace == ("tgn_assets", "tgn_assets.definitions")


def _location(target: WorkspaceLoadTarget) -> tuple[str, str | None]:
    (origin,) = target.create_origins()
    assert isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin)
    return origin.location_name, origin.loadable_target_origin.module_name
