"""The process that serves an application: uvicorn with limits of time, and an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE_SECONDS = 75
"""How long a connection may idle: longer than proxies keep theirs (nginx: 60 s), so that it is they who close it."""
HEADER_SECONDS = 10.0
"""How long a client may take from connecting, or from the first byte of a request, to the end of its headers."""
SHUTDOWN_SECONDS = 10
"""How long requests in progress may go on after SIGTERM."""


class Protocol(HttpToolsProtocol):
    """uvicorn's, which by itself waits for the headers of a request for ever."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first request."""
        super().connection_made(transport)
        self._expect_headers()

    def on_message_begin(self) -> None:
        """Waits for the rest of the headers."""
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server that listens at `host`; OSError if it is no address."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def serve(app: ASGIApp, *, host: str, port: int, access_log: bool = False) -> None:
    """Serves `app` until SIGTERM, which raises SystemExit(0), or SIGINT; requests in progress are finished."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn, once it has finished, raises the signal again
    uvicorn.Server(_config(app, host=host, port=port, access_log=access_log, lifespan="on")).run()


def serve_at(app: ASGIApp, listener: socket.socket) -> None:
    """Serves `app`, which needs no start of its own, at the open socket `listener` until SIGTERM or SIGINT."""
    uvicorn.Server(_config(app, log_level="warning", access_log=False, lifespan="off")).run([listener])


def _config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Protocol,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        server_header=False,
        ws="none",
        log_config=None,
        **options,
    )
