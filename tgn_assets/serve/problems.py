"""Answers that say what is wrong, for programs: RFC 9457, `application/problem+json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """A request that gets no list: `code` for programs, `detail` for people."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


def problem_response(problem: HTTPException) -> Response:
    """The answer to a request that raised `problem`; those of Starlette itself are 404 and 405."""
    status = HTTPStatus(problem.status_code)
    code = problem.code if isinstance(problem, Problem) else status.phrase.lower().replace(" ", "_")
    body = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": problem.detail}
    return Response(json.dumps(body, separators=(",", ":")), status, problem.headers, MEDIA_TYPE)


async def on_problem(_: Request, error: Exception) -> Response:
    """Starlette's handler of an HTTPException."""
    assert isinstance(error, HTTPException)
    return problem_response(error)


async def on_error(_: Request, __: Exception) -> Response:
    """Starlette's handler of any other exception, which the server logs."""
    return problem_response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The log says what happened."))
