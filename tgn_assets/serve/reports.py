"""The weekly pages over HTTP, read-only: a part of `tgn serve`, and beside the UI of `tgn dev` a server of their own.

    python -m tgn_assets.serve.reports FOLDER HOST LISTENER ALIVE

serves those in FOLDER at the open socket LISTENER, and ends when the other end of the pipe ALIVE does: with the process
that started it, however that ends.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from subprocess import DEVNULL, Popen
from threading import Thread

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from tgn_assets.serve.guard import guarded
from tgn_assets.serve.metrics import Metrics
from tgn_assets.serve.problems import Problem

REPORTS, INDEX = "reports", "index.html"
"""The folder of the pages in TGN_HOME, and the page that lists the others."""
PAGE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.html|index\.html")
HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def report_routes(folder: Path) -> list[Route]:
    """`/reports/`, the same with index.html, and `/reports/<week>.html`: files of `folder` so called, no others."""
    files = StaticFiles(directory=folder, check_dir=False)

    async def report(request: Request) -> Response:
        name = request.path_params["page"] or INDEX
        if not PAGE.fullmatch(name):
            raise Problem(HTTPStatus.NOT_FOUND, "no_report", "There are /reports/ and /reports/<week>.html.")
        try:
            response = await files.get_response(name, request.scope)
        except HTTPException as error:
            if error.status_code != HTTPStatus.NOT_FOUND:
                raise
            raise Problem(HTTPStatus.NOT_FOUND, "no_report", "This page is not there: no run has made it.") from None
        response.headers.update(HEADERS)
        return response

    return [Route("/reports/{page:path}", report), Route("/reports", to_reports)]


async def to_reports(_: Request) -> Response:
    """To `/reports/`, from beside it."""
    return RedirectResponse("reports/")


def reports_app(folder: Path, host: str) -> Starlette:
    """The pages in `folder` and nothing else, for browsers on this machine that ask for it or for `host`."""
    return guarded([*report_routes(folder), Route("/", to_reports)], metrics=Metrics(), token=None, host=host)


@contextmanager
def reports_server(folder: Path, host: str, port: int) -> Iterator[int]:
    """A server of the pages in `folder` at `port`, or if that is taken, at another one, which this yields.

    It ends with this process, also if that becomes another program, or with the context.
    """
    alive, held = os.pipe()
    os.set_inheritable(held, True)  # by the program that this process may become; children get what they are given
    with _listener(host, port) as listener:
        at, inherited = int(listener.getsockname()[1]), (listener.fileno(), alive)
        command = [sys.executable, "-P", "-m", "tgn_assets.serve.reports", str(folder), host, *map(str, inherited)]
        process = Popen(command, pass_fds=inherited, stdin=DEVNULL, start_new_session=True)
    os.close(alive)
    try:
        yield at
    finally:
        os.close(held)
        process.wait()


def _listener(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    create = partial(socket.create_server, family=family, dualstack_ipv6=family == socket.AF_INET6)
    try:
        return create(address)
    except (OSError, OverflowError):  # 65535 has no next port
        return create((address[0], 0, *address[2:]))


def main() -> None:
    """The process that serves; the module's docstring has its arguments."""
    from tgn_assets.serve.server import serve_at

    folder, host, listener, alive = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

    def end_with_parent() -> None:
        os.read(alive, 1)  # nothing is ever written to it
        os._exit(0)

    Thread(target=end_with_parent, daemon=True).start()
    serve_at(reports_app(folder, host), socket.socket(fileno=listener))


if __name__ == "__main__":
    main()
