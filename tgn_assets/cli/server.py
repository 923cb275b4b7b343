"""The address of the Dagster UI that `tgn dev` starts: whether it is free, and what to type into a browser."""

import socket
from contextlib import ExitStack

import click

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


def browser_url(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    host = EVERY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
