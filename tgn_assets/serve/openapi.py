"""The OpenAPI description of the service, and the same as a page for people."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tgn_assets.ml.schema import TABLES, USER_LISTS, Column
from tgn_assets.serve.columns import list_columns
from tgn_assets.serve.problems import MEDIA_TYPE

MAX_USERS = 1000
"""Users of a batch."""
MAX_BYTES = 2**20
"""Bytes of the body of a batch."""
FALLBACKS = ("new-user", "none")
"""What a user without a list of their own gets: the list for new users, or nothing. The first is the default."""

Schema = dict[str, Any]

TYPES = {"VARCHAR": "string", "DOUBLE": "number", "INTEGER": "integer", "BIGINT": "integer", "BOOLEAN": "boolean"}
IN_EVERY_VERSION = ("rank", "event_id", "score", "source")
DESCRIPTION = (
    "Every user's likeliest events of the next week, read-only. All of an answer is of one week; `week` is the Monday "
    "of the week at whose close the lists were made, `target_week` the Monday of the week that they are for."
)


@cache
def openapi() -> Schema:
    """The description, as OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "tgn serve", "version": version("tgn_assets"), "description": DESCRIPTION},
        "servers": [{"url": "."}],
        "security": [{"token": []}, {}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "TGN_SERVE_TOKEN, if it is set."}
            },
            "schemas": _schemas(),
            "responses": {
                "Problem": {
                    "description": "What is wrong: `code` for programs, `detail` for people.",
                    "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
                }
            },
        },
    }


@cache
def docs_page() -> str:
    """A page that shows `openapi()` and loads nothing."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["prose"] = lambda text: Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))
    return environment.get_template("docs.html").render(api=openapi(), json=lambda value: json.dumps(value, indent=2))


def _paths() -> Schema:
    fallback = {"name": "fallback", "in": "query", "description": _FALLBACK, "schema": _fallback()}
    user_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The id as the log writes it, percent-encoded; a slash may stand as it is.",
        "schema": {"type": "string", "minLength": 1},
        "example": "17850",
    }
    body = {"required": True, "content": {"application/json": {"schema": _ref("Batch")}}}
    metrics = {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    no_week = {"503": _json_answer("No week is served.", "Health")}
    return {
        "/v1/users/{id}": _operation(
            "getUser",
            "One user's list",
            _answers("UserList", 304, 400, 401, 404, 421, 422, 503),
            description="A user without a list of their own gets the list for new users, marked as such.",
            parameters=[user_id, fallback],
        ),
        "/v1/users:batch": _operation(
            "getUsers",
            "The lists of many users, in the order of the request",
            _answers("BatchList", 401, 408, 413, 421, 422, 503),
            method="post",
            requestBody=body,
        ),
        "/v1/new-user": _operation(
            "getNewUser", "The list for users without a history", _answers("NewUserList", 304, 401, 421, 503)
        ),
        "/healthz": _operation(
            "getHealth",
            "Whether a week is served, which one, and how old it is",
            _answers("Health", 421) | no_week,
            security=[{}],
        ),
        "/metrics": _operation(
            "getMetrics", "Metrics in Prometheus's text format", {"200": metrics, **_problems(401, 421)}
        ),
    }


def _operation(name: str, summary: str, responses: Schema, *, method: str = "get", **more: Any) -> Schema:
    return {method: {"operationId": name, "summary": summary, **more, "responses": responses}}


_FALLBACK = (
    "What a user without a list of their own gets: the list for new users, or nothing (404; in a batch, no items)."
)
_PROBLEMS = {
    304: "The client has this answer: its If-None-Match is the ETag of the week.",
    400: "The id is not percent-encoded UTF-8.",
    401: "The token is missing or wrong.",
    404: "With `fallback=none`: the user has no list of their own.",
    408: "The body takes too long.",
    413: f"The body has more than {MAX_BYTES:,} bytes.",
    421: "No token is set, and the request is for another host than this machine.",
    422: "The request cannot be understood.",
    503: "No week is served.",
}


def _answers(schema: str, *problems: int) -> Schema:
    """The response 200 with a body of `schema`, and the others."""
    return {"200": _json_answer("The answer.", schema), **_problems(*problems)}


def _json_answer(description: str, schema: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _problems(*statuses: int) -> Schema:
    bodies = {status: {"content": {MEDIA_TYPE: {"schema": _ref("Problem")}}} for status in statuses if status >= 400}
    return {str(status): {"description": _PROBLEMS[status], **bodies.get(status, {})} for status in statuses}


def _schemas() -> Schema:
    week = {"type": "string", "format": "date", "description": "A Monday."}
    weeks = {"week": week, "target_week": week}
    text, kind = {"type": "string"}, {"type": "string", "enum": ["own", "new-user"]}
    items = {"items": {"type": "array", "items": _ref("Item")}}
    of_user = {"user_id": text, "list": kind, **items}
    of_batch = {**of_user, "list": {**kind, "enum": [*kind["enum"], "none"]}}
    return {
        "Item": _item(),
        "UserList": _object(weeks | of_user),
        "NewUserList": _object(weeks | {"list": {"type": "string", "const": "new-user"}} | items),
        "BatchList": _object(weeks | {"users": {"type": "array", "items": _object(of_batch)}}),
        "Batch": _object(
            {"user_ids": {"type": "array", "items": text, "maxItems": MAX_USERS}, "fallback": _fallback()},
            required=["user_ids"],
            additionalProperties=False,
        ),
        "Health": _health(week),
        "Problem": _object({"type": text, "title": text, "status": {"type": "integer"}, "code": text, "detail": text}),
    }


def _item() -> Schema:
    (rank,) = [column for column in TABLES[USER_LISTS].columns if column.name == "rank"]
    columns = [rank, *list_columns(USER_LISTS)]
    return _object({column.name: _of_column(column) for column in columns}, required=list(IN_EVERY_VERSION))


def _of_column(column: Column) -> Schema:
    kind: Any = TYPES.get(column.type)
    if kind is None:
        return {"description": column.meaning}
    return {"type": [kind, "null"] if column.nullable else kind, "description": column.meaning}


def _health(week: Schema) -> Schema:
    number = {"type": "integer", "minimum": 0}
    fields = {
        "status": {
            "enum": ["ok", "degraded", "unavailable"],
            "description": "`degraded`: a week is served, and current.duckdb holds something that cannot be.",
        },
        "problem": {"type": ["string", "null"], "description": "Why it is not `ok`."},
        "week": week,
        "target_week": week,
        "weeks_behind": {**number, "description": "Weeks since `target_week`; 0 while it lasts, or has not begun."},
        "published_at": {"type": "string", "format": "date-time"},
        "age_seconds": {**number, "description": "Seconds since `published_at`."},
        "users": {**number, "description": "Users with a list of their own."},
    }
    return _object(fields, required=["status", "problem"])


def _fallback() -> Schema:
    return {"type": "string", "enum": list(FALLBACKS), "default": FALLBACKS[0]}


def _object(properties: Schema, *, required: list[str] | None = None, **more: Any) -> Schema:
    """An object that has all of `properties`, unless `required` names some."""
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, **more}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
