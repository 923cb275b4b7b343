"""`tgn serve`: the published lists over HTTP."""

import click

from tgn_assets.cli.base import verbose_option


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
    there as well. It reads current.duckdb of TGN_HOME and nothing else, and swaps a new week in when that file is
    replaced. docs/serving.md says more.
    """
    from tgn_assets.cli.server import browser_url, refuse_taken_port
    from tgn_assets.serve.app import build_app
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
    path = settings.home / NAME
    click.echo(f"{browser_url(host, port)} serves {path}", err=True)
    run(build_app(ServedCopy(path), token=token, host=host), host=host, port=port, access_log=access_log)
