"""A real `tgn serve` at a real port: what it answers, and to whom."""

import http.client
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import jsonschema
import pytest
from click.testing import CliRunner
from openapi_spec_validator import validate

from benchmarks.servers import free_port
from tgn_assets.cli.main import cli
from tgn_assets.ml.weeks import shift
from tgn_assets.serve.openapi import MAX_BYTES, MAX_USERS
from tgn_assets.serve.server import is_local
from tgn_assets_tests.serve.service import (
    IDS,
    LISTS,
    NEW_USERS,
    WEEK,
    Answer,
    Service,
    publish_lists,
    serving,
)

NO_REASON = dict.fromkeys(("reason_kind", "reason", "reason_parameters"))


TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("served") / "home"
    publish_lists(home, LISTS, NEW_USERS)
    with serving(home) as running:
        running.wait_for(status="ok")
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a token, for other machines too, which logs requests."""
    home = tmp_path_factory.mktemp("guarded") / "home"
    publish_lists(home, LISTS, NEW_USERS)
    with serving(home, "--host", "0.0.0.0", "--access-log", TGN_SERVE_TOKEN=TOKEN) as running:
        running.wait_for(status="ok")
        yield running


def events(answer: Answer) -> list[str]:
    return [item["event_id"] for item in answer.json["items"]]


@pytest.mark.parametrize("user", IDS, ids=ascii)
def test_user_with_any_id_gets_their_own_list(user: str, service: Service) -> None:
    answer = service.ask(f"/v1/users/{quote(user, safe='')}")
    assert (answer.status, answer.json["user_id"], answer.json["list"]) == (200, user, "own")
    assert answer.json["items"] == [
        {"rank": 1, "event_id": f"event {user}", "score": 0.5, "source": "tgn_assets", **NO_REASON},
        {"rank": 2, "event_id": "x/y", "score": 1 / 3, "source": "popular", **NO_REASON},
    ]
    assert (answer.json["week"], answer.json["target_week"]) == (WEEK, shift(WEEK, 1))


def test_slashes_need_no_encoding(service: Service) -> None:
    assert events(service.ask("/v1/users/a/b")) == ["event a/b", "x/y"]


def test_unknown_user_gets_list_for_new_users_marked_as_such(service: Service) -> None:
    answer = service.ask("/v1/users/nobody")
    assert (answer.status, answer.json["list"], events(answer)) == (200, "new-user", ["tea"])
    assert service.ask("/v1/new-user").json == {name: value for name, value in answer.json.items() if name != "user_id"}


def test_batch_keeps_order_and_repeats(service: Service) -> None:
    asked = [*reversed(IDS), "nobody", "ann", "ann"]
    answer = service.batch(asked)
    assert [(of["user_id"], of["list"]) for of in answer.json["users"]] == [
        (user, "own" if user in LISTS else "new-user") for user in asked
    ]
    assert [of["items"][0]["event_id"] for of in answer.json["users"][:2]] == [f"event {user}" for user in asked[:2]]
    none = service.batch(["nobody", "ann"], fallback="none").json["users"]
    assert [(of["list"], len(of["items"])) for of in none] == [("none", 0), ("own", 2)]
    assert service.batch([]).json["users"] == []
    assert len(service.batch(["ann"] * MAX_USERS).json["users"]) == MAX_USERS


BAD_REQUESTS = {
    "unknown path": ("GET", "/v1/nothing", None, 404, "not_found"),
    "no id": ("GET", "/v1/users/", None, 404, "no_user_id"),
    "no list and no fallback": ("GET", "/v1/users/nobody?fallback=none", None, 404, "unknown_user"),
    "not UTF-8": ("GET", "/v1/users/%FF", None, 400, "bad_user_id"),
    "unknown fallback": ("GET", "/v1/users/ann?fallback=x", None, 422, "bad_fallback"),
    "post to a user": ("POST", "/v1/users/ann", b"{}", 405, "method_not_allowed"),
    "get of a batch": ("GET", "/v1/users:batch", None, 405, "method_not_allowed"),
    "delete": ("DELETE", "/v1/new-user", None, 405, "method_not_allowed"),
    "no JSON": ("POST", "/v1/users:batch", b"{", 422, "bad_json"),
    "not UTF-8 JSON": ("POST", "/v1/users:batch", b'{"user_ids": ["\xff"]}', 422, "bad_json"),
    "too deep": ("POST", "/v1/users:batch", b"[" * 200_000, 422, "bad_json"),
    "an array": ("POST", "/v1/users:batch", b"[]", 422, "bad_batch"),
    "other fields": ("POST", "/v1/users:batch", b'{"user_ids": [], "x": 1}', 422, "bad_batch"),
    "ids that are numbers": ("POST", "/v1/users:batch", b'{"user_ids": [1]}', 422, "bad_user_ids"),
    "half a surrogate pair": ("POST", "/v1/users:batch", rb'{"user_ids": ["\ud800"]}', 422, "bad_user_ids"),
    "a fallback that is a list": ("POST", "/v1/users:batch", b'{"user_ids": [], "fallback": []}', 422, "bad_fallback"),
    "too many": ("POST", "/v1/users:batch", b'{"user_ids": [%b"a"]}' % (b'"a",' * MAX_USERS), 422, "too_many_users"),
    "too long": ("POST", "/v1/users:batch", b" " * (MAX_BYTES + 1), 413, "body_too_long"),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_bad_request_gets_json_that_says_why(
    method: str, path: str, body: bytes | None, status: int, code: str, service: Service
) -> None:
    answer = service.ask(path, method, body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    assert answer.json["detail"]
    assert ("allow" in answer.headers) == (status == 405)


def test_body_of_unknown_length_is_limited(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("POST", "/v1/users:batch", (b" " * 65536 for _ in range(17)), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_client_that_has_the_week_gets_no_body(service: Service) -> None:
    first = service.ask("/v1/users/ann")
    again = service.ask("/v1/users/ann", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert first.headers["cache-control"] == "private, no-cache"
    head = service.ask("/v1/users/ann", "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(first.body)))


def test_openapi_is_valid_and_answers_follow_it(service: Service) -> None:
    document = service.ask("/openapi.json").json
    validate(document)
    answers = {
        "/v1/users/{id}": service.ask("/v1/users/ann"),
        "/v1/users:batch": service.batch(["ann", "nobody"], fallback="none"),
        "/v1/new-user": service.ask("/v1/new-user"),
        "/healthz": service.ask("/healthz"),
    }
    for path, answer in answers.items():
        (operation,) = document["paths"][path].values()
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json, schema | {"components": document["components"]})
    problem = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    jsonschema.validate(service.ask("/v1/nothing").json, problem)
    assert set(document["paths"]) == {*answers, "/metrics"}


def test_documentation_loads_nothing_from_elsewhere(service: Service) -> None:
    page = service.ask("/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    assert "POST" in text and "/v1/users:batch" in text
    assert re.findall(r"https?://|<script|\bsrc=|<link|@import|url\(", text) == []
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    start = service.ask("/")
    assert (start.status, start.headers["location"]) == (307, "docs")


SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="[^"\\]*",?)*\})? (\S+)')


def test_metrics_are_in_the_text_format_of_prometheus(service: Service) -> None:
    service.ask("/v1/users/ann")
    answer = service.ask("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    kinds, values = {}, {}
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kinds[name] = line.split()
        elif not line.startswith("# HELP "):
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found[1] in kinds or re.sub("_(bucket|sum|count)$", "", found[1]) in kinds
            values[found[1] + (found[2] or "")] = float(found[3])
    assert values['tgn_serve_requests_total{route="user",status="200"}'] >= 1
    assert values['tgn_serve_lists_total{list="own"}'] >= 1
    buckets = [
        value for name, value in values.items() if name.startswith('tgn_serve_request_seconds_bucket{route="user"')
    ]
    assert buckets == sorted(buckets) and buckets[-1] == values['tgn_serve_request_seconds_count{route="user"}']
    assert (values["tgn_serve_ready"], values["tgn_serve_up_to_date"], values["tgn_serve_users"]) == (1, 1, len(IDS))
    assert values["tgn_serve_target_week_timestamp_seconds"] == 1768176000
    assert "event" not in answer.body.decode()


def test_health_names_the_week_and_its_age(service: Service) -> None:
    health = service.health()
    assert (health["status"], health["problem"], health["week"], health["users"]) == ("ok", None, WEEK, len(IDS))
    assert health["weeks_behind"] >= 0
    assert 0 <= health["age_seconds"] < 3600


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("attacker.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_without_token_only_names_of_this_machine_are_answered(host: str, status: int, service: Service) -> None:
    assert service.ask("/v1/new-user", headers={"Host": host}).status == status


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xfc"]
)
@pytest.mark.parametrize("path", ["/v1/users/ann", "/v1/new-user", "/metrics", "/reports/", "/v1/nothing"])
def test_lists_need_the_token(path: str, header: str | None, guarded: Service) -> None:
    answer = guarded.ask(path, headers={} if header is None else {"Authorization": header})
    assert (answer.status, answer.json["code"], answer.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")


def test_token_opens_everything_from_any_host_and_is_not_logged(guarded: Service) -> None:
    headers = {"Authorization": f"bearer {TOKEN}", "Host": "shop.example"}
    assert guarded.ask("/v1/users/ann", headers=headers).status == 200
    assert guarded.ask("/metrics", headers=headers).status == 200
    assert [guarded.ask(path).status for path in ("/healthz", "/openapi.json", "/docs", "/")] == [200, 200, 200, 307]
    log = guarded.log.read_text()
    assert '"GET /v1/users/ann HTTP/1.1" 200' in log
    assert TOKEN not in log
    assert TOKEN not in Path(f"/proc/{guarded.process.pid}/cmdline").read_text()


def test_requests_are_not_logged_unless_asked_for(service: Service) -> None:
    service.ask("/v1/users/ann")
    assert "/v1/users/" not in service.log.read_text()


@pytest.mark.parametrize(
    ("options", "token", "message"),
    [
        (["--host", "0.0.0.0"], "", "--host 0.0.0.0 lets other machines in: set TGN_SERVE_TOKEN"),
        ([], "short", "TGN_SERVE_TOKEN: it needs 16 characters or more"),
        ([], "with a blank in it, which no header may have", "TGN_SERVE_TOKEN: it needs 16 characters or more"),
    ],
)
def test_unsafe_service_does_not_start(options: list[str], token: str, message: str, tmp_path: Path) -> None:
    environment = {"TGN_HOME": str(tmp_path), "TGN_SERVE_TOKEN": token}
    refused = CliRunner(env=environment).invoke(cli, ["serve", "--port", str(free_port()), *options])
    assert refused.exit_code != 0
    assert message in refused.output
    assert token == "" or token not in refused.output


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_addresses_that_only_this_machine_reaches_are_known(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_slow_client_is_disconnected(service: Service) -> None:
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as silent,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as half,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as body,
    ):
        began = time.monotonic()
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        body.sendall(b"POST /v1/users:batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert body.makefile("rb").read().startswith(b"HTTP/1.1 408 ")
        for client in (silent, half):
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
        assert time.monotonic() - began < 50


LOADED = """
import importlib, json, pkgutil, sys
import tgn_assets.cli.main, tgn_assets.settings, tgn_assets.state.published_copy, tgn_assets.serve
for module in pkgutil.iter_modules(tgn_assets.serve.__path__):
    importlib.import_module(f"tgn_assets.serve.{module.name}")
print(json.dumps(sorted({"dagster", "torch", "pandas", "lightgbm"} & set(sys.modules))))
"""


def test_service_imports_neither_dagster_nor_torch() -> None:
    ended = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
