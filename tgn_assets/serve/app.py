"""The service as an ASGI application: its routes and what they answer. docs/serving.md describes them for users."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tgn_assets.serve.guard import guarded
from tgn_assets.serve.lists import WeekLists
from tgn_assets.serve.metrics import CONTENT_TYPE, Metrics
from tgn_assets.serve.openapi import FALLBACKS, MAX_BYTES, MAX_USERS, docs_page, openapi
from tgn_assets.serve.problems import Problem
from tgn_assets.serve.reports import report_routes
from tgn_assets.serve.served_copy import ServedCopy

BODY_SECONDS = 10.0
"""How long a client may take to send the body of a request."""
USERS_PER_TURN = 50
"""Users of a batch after which other requests have their turn."""
USERS_PATH = b"/v1/users/"
KINDS = {"own": b"own", "new-user": b"new-user"}
_encoded = json.JSONEncoder(ensure_ascii=False).encode
CSP = "default-src 'none'; style-src 'unsafe-inline'"


class AnyId(PathConvertor):
    """What follows in the path, line breaks included; `_user_id` reads the path as it was sent."""

    regex = "(?s:.*)"


register_url_convertor("any_id", AnyId())


def build_app(served: ServedCopy, *, reports: Path, token: str | None, host: str) -> Starlette:
    """The application that serves `served` and the pages in `reports`, to whoever knows `token`, at `host`."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(served.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    metrics = Metrics()
    routes = [
        Route("/v1/users/{user_id:any_id}", user),
        Route("/v1/users:batch", batch, methods=["POST"]),
        Route("/v1/new-user", new_user),
        Route("/healthz", healthz),
        Route("/metrics", metrics_text),
        Route("/openapi.json", openapi_document),
        Route("/docs", docs),
        *report_routes(reports),
        Route("/", start),
    ]
    app = guarded(routes, metrics=metrics, token=token, host=host, lifespan=lifespan)
    app.state.served, app.state.metrics = served, metrics
    return app


async def user(request: Request) -> Response:
    """GET /v1/users/{id}."""
    lists, user_id = _lists(request), _user_id(request)
    fallback = request.query_params.get("fallback", FALLBACKS[0]) if request.scope["query_string"] else FALLBACKS[0]
    if fallback not in FALLBACKS:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "bad_fallback", f"fallback is one of {', '.join(FALLBACKS)}.")
    answer = _list_of(request, lists, user_id, fallback)
    if answer is None:
        raise Problem(HTTPStatus.NOT_FOUND, "unknown_user", "This user has no list of their own.")
    return _of_week(request, lists, b'"user_id":%b,%b' % (_json(user_id), answer))


async def new_user(request: Request) -> Response:
    """GET /v1/new-user."""
    lists = _lists(request)
    request.app.state.metrics.lists["new-user"] += 1
    return _of_week(request, lists, b'"list":"new-user","items":%b' % lists.new_user_items)


async def batch(request: Request) -> Response:
    """POST /v1/users:batch. All lists are of one week, whatever is swapped in meanwhile."""
    user_ids, fallback = _batch_of(await _body(request))
    lists, parts = _lists(request), list[bytes]()
    for at, user_id in enumerate(user_ids, 1):
        answer = _list_of(request, lists, user_id, fallback) or b'"list":"none","items":[]'
        parts.append(b'{"user_id":%b,%b}' % (_json(user_id), answer))
        if at % USERS_PER_TURN == 0:
            await asyncio.sleep(0)
    return _of_week(request, lists, b'"users":[%b]' % b",".join(parts))


async def healthz(request: Request) -> Response:
    """GET /healthz."""
    health = request.app.state.served.health(datetime.now(UTC))
    status = HTTPStatus.SERVICE_UNAVAILABLE if health["status"] == "unavailable" else HTTPStatus.OK
    return JSONResponse(health, status, {"Cache-Control": "no-store"})


async def metrics_text(request: Request) -> Response:
    """GET /metrics."""
    state = request.app.state
    return Response(state.metrics.text(state.served), headers={"Content-Type": CONTENT_TYPE})


async def openapi_document(_: Request) -> Response:
    """GET /openapi.json."""
    return JSONResponse(openapi())


async def docs(_: Request) -> Response:
    """GET /docs: the same for people, on a page that asks for nothing else."""
    return HTMLResponse(docs_page(), headers={"Content-Security-Policy": CSP})


async def start(_: Request) -> Response:
    """GET /."""
    return RedirectResponse("docs")


def _lists(request: Request) -> WeekLists:
    served: ServedCopy = request.app.state.served
    if served.lists is None:
        detail = f"There are no lists: {served.problem}."
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "nothing_published", detail, {"Retry-After": "30"})
    return served.lists


def _user_id(request: Request) -> str:
    """The id, from the path as it was sent: `scope["path"]` replaces what is not UTF-8."""
    sent: bytes = request.scope["raw_path"].removeprefix(USERS_PATH)
    try:
        user_id = unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "bad_user_id", "The id in the path is not percent-encoded UTF-8."
        ) from None
    if not user_id:
        raise Problem(HTTPStatus.NOT_FOUND, "no_user_id", "The path ends without an id.")
    return user_id


def _list_of(request: Request, lists: WeekLists, user_id: str, fallback: str) -> bytes | None:
    """`"list":...,"items":...` of the user; None for one without a list if nothing is to take its place."""
    items, kind = lists.items(user_id), "own"
    if items is None:
        items, kind = (lists.new_user_items, "new-user") if fallback == FALLBACKS[0] else (None, "none")
    request.app.state.metrics.lists[kind] += 1
    return None if items is None else b'"list":"%b","items":%b' % (KINDS[kind], items)


def _of_week(request: Request, lists: WeekLists, fields: bytes) -> Response:
    """An answer of that week; 304 if the client has it."""
    headers = {"ETag": lists.tag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if request.method != "POST" and lists.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(b"{%b,%b}" % (lists.weeks, fields), headers=headers, media_type="application/json")


async def _body(request: Request) -> bytes:
    """The body; Problem 413 if it is too long, 408 if it takes too long."""
    body, declared = bytearray(), request.headers.get("content-length", "")
    too_long = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_long", f"At most {MAX_BYTES:,} bytes are read.")
    if declared.isdigit() and int(declared) > MAX_BYTES:
        raise too_long
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise too_long
    except TimeoutError:
        detail = f"The body did not arrive within {BODY_SECONDS:.0f} s."
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "body_too_slow", detail, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "disconnected", "The body ended too early.") from None
    return bytes(body)


def _batch_of(body: bytes) -> tuple[list[str], str]:
    """The user ids and the fallback of a batch; Problem 422 says what is wrong with it."""

    def wrong(code: str, detail: str) -> Problem:
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail)

    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise wrong("bad_json", "The body is no JSON document.") from None
    if not isinstance(asked, dict) or not {"user_ids"} <= asked.keys() <= {"user_ids", "fallback"}:
        raise wrong("bad_batch", 'The body is an object with "user_ids" and perhaps "fallback".')
    user_ids, fallback = asked["user_ids"], asked.get("fallback", FALLBACKS[0])
    if fallback not in FALLBACKS:
        raise wrong("bad_fallback", f"fallback is one of {', '.join(FALLBACKS)}.")
    if not isinstance(user_ids, list) or not all(isinstance(user_id, str) for user_id in user_ids):
        raise wrong("bad_user_ids", "user_ids is an array of strings.")
    if len(user_ids) > MAX_USERS:
        raise wrong("too_many_users", f"A batch has at most {MAX_USERS:,} users.")
    try:
        "".join(user_ids).encode()
    except UnicodeEncodeError:
        raise wrong("bad_user_ids", "A user id has half of a surrogate pair in it.") from None
    return user_ids, fallback


def _json(text: str) -> bytes:
    return _encoded(text).encode()
