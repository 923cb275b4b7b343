"""The weekly pages over HTTP: which files are served, to whom, and for how long the server beside the UI lives."""

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import free_port
from tgn_assets.serve.reports import reports_server
from tgn_assets_tests.serve.service import ROOT, ask

WEEK = "2024-01-22"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pages, and files that nobody is to see."""
    home = tmp_path_factory.mktemp("reports")
    folder = home / "reports"
    folder.mkdir()
    (folder / f"{WEEK}.html").write_text("<p>the week</p>")
    (folder / "index.html").write_text("<p>all weeks</p>")
    for hidden in (folder / f"{WEEK}.html.new", folder / "notes.html", home / "2024-01-01.html"):
        hidden.write_text("hidden")
    (folder / "2024-01-08.html").symlink_to(home / "2024-01-01.html")
    (folder / "2024-01-15.html").mkdir()
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with reports_server(folder, "127.0.0.1", free_port()) as port:
        yield port


def test_pages_are_served_and_the_start_leads_to_them(port: int) -> None:
    page = ask(port, f"/reports/{WEEK}.html")
    assert (page.status, page.body, page.headers["content-type"]) == (
        200,
        b"<p>the week</p>",
        "text/html; charset=utf-8",
    )
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert ask(port, "/reports/").body == ask(port, "/reports/index.html").body == b"<p>all weeks</p>"
    assert [ask(port, path).headers["location"] for path in ("/", "/reports")] == ["reports/", "reports/"]


def test_a_page_that_did_not_change_is_not_sent_again(port: int) -> None:
    page = ask(port, f"/reports/{WEEK}.html")
    for name, value in (("If-None-Match", page.headers["etag"]), ("If-Modified-Since", page.headers["last-modified"])):
        again = ask(port, f"/reports/{WEEK}.html", headers={name: value})
        assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        f"{WEEK}.html.new",
        "notes.html",
        "../2024-01-01.html",
        "..%2F2024-01-01.html",
        "%2e%2e/2024-01-01.html",
        "2024-01-08.html",  # a link that leads out of the folder
        "2024-01-15.html",  # a folder
        "2024-01-01.html",
        f"{WEEK}.html%00",
        "//etc/passwd",
        "%D9%A2%D9%A0%D9%A2%D9%A4-01-22.html",  # digits, but not those of a week
        "A" * 5000,
    ],
)
def test_nothing_but_pages_of_the_folder_is_served(port: int, path: str) -> None:
    answer = ask(port, f"/reports/{path}")
    assert (answer.status, answer.json["code"]) == (404, "no_report")


def test_pages_cannot_be_written_and_foreign_hosts_are_refused(port: int) -> None:
    assert [ask(port, "/reports/", method).status for method in ("POST", "PUT", "DELETE")] == [405, 405, 405]
    assert ask(port, "/reports/", headers={"Host": "attacker.example"}).status == 421


EXECS = """
import os, sys
from pathlib import Path
from tgn_assets.serve.reports import reports_server
with reports_server(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2])) as port:
    print(port, flush=True)
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
"""


def test_the_server_ends_with_the_program_that_its_parent_becomes(folder: Path, port: int) -> None:
    command = [sys.executable, "-c", EXECS, str(folder), str(port)]  # a port that is taken
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        other = int(parent.stdout.readline())
        assert other != port
        assert ask(other, "/reports/").status == 200
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            ask(other, "/reports/")
        except (ConnectionError, http.client.HTTPException):
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")
