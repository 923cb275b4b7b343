"""What every request passes: who may ask, and the measuring of the answer."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tgn_assets.serve.metrics import Metrics
from tgn_assets.serve.problems import Problem, on_error, on_problem, problem_response

WITHOUT_TOKEN = ("/healthz", "/docs", "/openapi.json", "/")
"""Paths that say nothing of a user: for load balancers, and for people who read the documentation."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
    """With a `token`, whoever asks must have it. Without one, only requests to a name of this machine are answered.

    The latter is against web pages whose host name is pointed at 127.0.0.1 so that a browser here lets them read lists.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, token: str | None, host: str) -> None:
        self.app, self.metrics = app, metrics
        self.token = None if token is None else token.encode()
        self.names = {*LOCAL_NAMES, host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.metrics.in_progress += 1
        try:
            refusal = self._refusal(scope)
            await (problem_response(refusal) if refusal else self.app)(scope, receive, answer)
        finally:
            self.metrics.in_progress -= 1
            endpoint = scope.get("endpoint")
            self.metrics.observe(getattr(endpoint, "__name__", "none"), status, perf_counter() - began)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = dict(scope["headers"])
        if self.token is None:
            host = headers.get(b"host")
            if host is None or _host_name(host.decode("latin-1")) in self.names:
                return None
            detail = (
                "Without TGN_SERVE_TOKEN, only requests to a name of this machine, such as 127.0.0.1, are answered."
            )
            return Problem(HTTPStatus.MISDIRECTED_REQUEST, "foreign_host", detail)
        if scope["path"] in WITHOUT_TOKEN:
            return None
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token):
            return None
        detail = "Send the header Authorization: Bearer <TGN_SERVE_TOKEN>."
        return Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def guarded(
    routes: Sequence[BaseRoute], *, metrics: Metrics, token: str | None, host: str, lifespan: Any = None
) -> Starlette:
    """An application with these `routes`, behind a `Guard`, that answers errors as problems."""
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, metrics=metrics, token=token, host=host)],
        exception_handlers={HTTPException: on_problem, Exception: on_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


@lru_cache(maxsize=256)
def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None if it has none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
