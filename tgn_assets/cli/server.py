"""The servers that `tgn` starts: the Dagster UI (`tgn dev`) and the published lists over HTTP (`tgn serve`)."""

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from tgn_assets.cli.base import open_home, verbose_option

AUTOMATION_STARTS = (
    "Nothing is published here yet: the sensor missing_or_changed_weeks ingests the log and trains as soon as the UI "
    "runs, and the schedule weekly_refresh_schedule every Monday. Switch them off under Automation in the UI."
)
SUPERSEDED = "Function `dev_command` is superseded"
"""How the warning of Dagster begins that tells whoever starts `dagster dev` to type another command."""
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""An address that stands for all of this machine -> the one of them that a browser on it takes."""


def refuse_taken_port(host: str, port: int) -> None:
    """ClickException if no server can be started at `host` and `port`, which says what to do."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise click.ClickException(f"--host {host} is no address: {error.strerror}") from error
    with ExitStack() as stack:
        for family, kind, protocol, _, address in addresses:
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            # As the server does: a port is free even if connections of an earlier server have not quite ended.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind(address)
                listener.listen()
            except OSError as error:
                raise click.ClickException(
                    f"port {port} of {host} cannot be used: {error.strerror}; choose another one with --port"
                ) from error


def refuse_unreachable_home(root: Path) -> None:
    """ClickException if no lists will ever be found in TGN_HOME: it may be made later, but not within a file."""
    there = next(path for path in (root, *root.parents) if os.path.exists(path))
    if not there.is_dir():
        raise click.ClickException(f"TGN_HOME={root} cannot be used: {there} is no folder")
    if not os.access(there, os.R_OK | os.X_OK):
        raise click.ClickException(f"TGN_HOME={root} cannot be used: this user may not read {there}")


def browser_url(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    host = EVERY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@click.command(short_help="Open the Dagster UI on the same state.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to serve the UI at; 0.0.0.0 lets other machines in, without a login.",
)
@verbose_option
def dev(port: int, host: str) -> None:
    """Start the Dagster UI, with its schedule and sensor, on the same state as `tgn`.

    It is `dagster dev` with DAGSTER_HOME set to the folder dagster/ of TGN_HOME. Ctrl-C ends it. The weekly pages, to
    which the asset weekly_report links, are served at the next port, or another one if that is taken, unless
    TGN_REPORTS_URL says where they are. That server is for this machine alone, and ends with the UI.
    """
    from tgn_assets.serve.reports import reports_server
    from tgn_assets.serve.server import is_local

    refuse_taken_port(host, port)
    home = open_home()
    home.start_week()  # raises here, and not in the UI, if the source cannot be read
    with home.instance() as instance:
        os.environ["DAGSTER_HOME"] = instance.root_directory
    workspace = Path(__file__).parents[1] / "workspace.yaml"
    quiet = ["-W", f"ignore:{SUPERSEDED}:FutureWarning"]
    command = [sys.executable, *quiet, "-m", "dagster", "dev", "-p", str(port), "-h", host, "-w", str(workspace)]
    click.echo(f"{browser_url(host, port)} shows {home.root}", err=True)
    if not home.warehouse().lineage().published:
        click.echo(AUTOMATION_STARTS, err=True)
    with ExitStack() as stack:  # left if `dagster dev` cannot be started: this process becomes it
        if home.settings.reports_url is None and is_local(host):
            reports_port = stack.enter_context(reports_server(home.reports, host, port + 1))
            url = os.environ["TGN_REPORTS_URL"] = f"{browser_url(host, reports_port)}/reports"
            click.echo(f"{url}/ has the weekly pages", err=True)
        elif home.settings.reports_url is None:
            click.echo("the UI has no links to the weekly pages: set TGN_REPORTS_URL (docs/serving.md)", err=True)
        # Dagster treats SIGTERM as SIGINT, which a shell that starts `tgn dev &` in a script has had ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(sys.executable, command)


@click.command(short_help="Serve the published lists over HTTP.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port of the service.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; any that other machines can reach needs TGN_SERVE_TOKEN.",
)
@click.option("--access-log", is_flag=True, help="Log a line for each request; it has the user's id in it.")
@verbose_option
def serve(port: int, host: str, access_log: bool) -> None:
    """Serve the newest published lists over HTTP, read-only, until Ctrl-C or SIGTERM.

    GET /v1/users/ID, GET /v1/new-user and POST /v1/users:batch answer lists as JSON; /healthz, /metrics and /docs are
    there as well, and the weekly pages under /reports/. It reads current.duckdb and the folder reports of TGN_HOME and
    nothing else, and swaps a new week in when that file is replaced. docs/serving.md says more.
    """
    from tgn_assets.serve.app import build_app
    from tgn_assets.serve.reports import REPORTS
    from tgn_assets.serve.served_copy import ServedCopy
    from tgn_assets.serve.server import is_local
    from tgn_assets.serve.server import serve as run
    from tgn_assets.settings import read_settings
    from tgn_assets.state.published_copy import NAME

    settings = read_settings()
    refuse_taken_port(host, port)
    token = settings.serve_token.get_secret_value() if settings.serve_token else None
    if not token and not is_local(host):
        raise click.UsageError(f"--host {host} lets other machines in: set TGN_SERVE_TOKEN, which they must then send")
    refuse_unreachable_home(settings.home)
    path = settings.home / NAME
    click.echo(f"{browser_url(host, port)} serves {path}", err=True)
    app = build_app(ServedCopy(path), reports=settings.home / REPORTS, token=token, host=host)
    run(app, host=host, port=port, access_log=access_log)
