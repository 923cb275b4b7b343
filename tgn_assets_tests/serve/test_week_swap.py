"""A real `tgn serve` while weeks are published, ids forgotten, files damaged, and when it is stopped."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.weeks import shift
from tgn_assets_tests.serve.service import LISTS, NEW_USERS, WEEK, Answer, Item, Service, publish_lists, serving

pytestmark = pytest.mark.e2e


def lists_of(generation: int, users: int = 200) -> dict[str, list[Item]]:
    """Lists whose every event names the generation."""
    return {f"user {at}": [(f"{generation}:{at}:{place}", 0.5, "popular") for place in range(5)] for at in range(users)}


def generations(answer: Answer) -> set[str]:
    """Which generations the items of an answer are of."""
    body = answer.json
    lists = [body] if "items" in body else body["users"]
    assert all(len(of["items"]) == 5 for of in lists)
    return {item["event_id"].split(":")[0] for of in lists for item in of["items"]}


def test_no_request_fails_or_mixes_weeks_while_weeks_are_published(tmp_path: Path) -> None:
    home, weeks = tmp_path / "home", 4
    new_users: list[list[Item]] = [[(f"{at}:new:{place}", 0.5, "popular") for place in range(5)] for at in range(weeks)]
    publish_lists(home, lists_of(0), new_users[0])
    everyone = json.dumps({"user_ids": [*lists_of(0), "nobody"]}).encode()
    seen: list[tuple[str, set[str]]] = []
    failures: list[str] = []
    over = threading.Event()

    def load(port: int, worker: int) -> None:
        asked = 0
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not over.is_set():
            asked += 1
            try:
                if asked % 10 == 0:
                    connection.request("POST", "/v1/users:batch", everyone)
                else:
                    connection.request("GET", f"/v1/users/user%20{(worker * 37 + asked) % 201}")
                response = connection.getresponse()
                headers = {name.lower(): value for name, value in response.getheaders()}
                answer = Answer(response.status, headers, response.read())
                assert answer.status == 200, answer.body
                seen.append((answer.json["week"], generations(answer)))
                time.sleep(0.003)  # some hundred requests a second do, and leave other tests the processor
            except (AssertionError, OSError, http.client.HTTPException) as error:
                failures.append(f"{type(error).__name__}: {error}")
                return

    with serving(home) as service:
        service.wait_for(status="ok")
        threads = [threading.Thread(target=load, args=(service.port, worker)) for worker in range(3)]
        for thread in threads:
            thread.start()
        for at in range(1, weeks):
            publish_lists(home, lists_of(at), new_users[at], week=shift(WEEK, at))
            service.wait_for(week=shift(WEEK, at))
            time.sleep(0.1)
        over.set()
        for thread in threads:
            thread.join()
        health = service.health()
    assert failures == []
    assert health["week"] == shift(WEEK, weeks - 1)
    assert {week for week, _ in seen} == {shift(WEEK, at) for at in range(weeks)}
    assert [(week, found) for week, found in seen if found != {str((int(week[8:]) - 5) // 7)}] == []


def test_forgotten_user_is_gone_after_the_swap(tmp_path: Path) -> None:
    home = tmp_path / "home"
    publish_lists(home, LISTS, NEW_USERS)
    with serving(home) as service:
        tag = service.wait_for(status="ok") and service.ask("/v1/users/ann").headers["etag"]
        publish_lists(home, {user: items for user, items in LISTS.items() if user != "ann"}, NEW_USERS)
        service.wait_for(users=len(LISTS) - 1)
        answer = service.ask("/v1/users/ann", headers={"If-None-Match": tag})
        assert (answer.status, answer.json["list"]) == (200, "new-user")
        # Nothing that the process holds has the id any more, the memory of the old week included.
        mapped = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert len(re.findall("/memfd:lists", mapped)) == 1


def wait_for_metric(service: Service, line: str) -> None:
    for _ in range(600):
        if f"{line}\n" in service.ask("/metrics").body.decode():
            return
        time.sleep(0.1)
    raise AssertionError(service.log.read_text())


def test_damaged_copy_is_not_served_and_health_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy = publish_lists(home, LISTS, NEW_USERS)
    sound = copy.read_bytes()
    other = publish_lists(tmp_path / "other", lists_of(1, 3000), week=shift(WEEK, 1)).read_bytes()
    flipped = bytearray(other)
    for at in range(3 * 4096, len(flipped), 512):  # past the file's headers
        flipped[at] ^= 0xFF
    with serving(home) as service:
        service.wait_for(status="ok")
        for failed, damaged in enumerate((b"", other[: len(other) // 2], b"no database" * 1000, bytes(flipped)), 1):
            (home / "new").write_bytes(damaged)
            (home / "new").replace(copy)
            wait_for_metric(service, f'tgn_serve_loads_total{{result="failed"}} {failed}')
            assert service.health()["problem"] == "current.duckdb cannot be read"
            assert service.ask("/v1/users/ann").json["week"] == WEEK
        assert "Traceback" not in service.log.read_text() and "; week 2026-01-05 stays" in service.log.read_text()
        (home / "new").write_bytes(sound)
        (home / "new").replace(copy)
        service.wait_for(status="ok")
        copy.unlink()
        assert "no current.duckdb" in service.wait_for(status="degraded")["problem"]
        assert service.ask("/v1/users/ann").json["list"] == "own"
        assert "tgn_serve_up_to_date 0\n" in service.ask("/metrics").body.decode()
        (home / "new").write_bytes(other)
        (home / "new").replace(copy)
        assert service.wait_for(status="ok")["week"] == shift(WEEK, 1)


def test_service_waits_for_the_first_week(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service:
        health, answer = service.ask("/healthz"), service.ask("/v1/new-user")
        assert (health.status, health.json["status"]) == (503, "unavailable")
        assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "nothing_published", "30")
        publish_lists(service.home, LISTS)
        service.wait_for(status="ok", week=WEEK)


def test_warehouse_is_neither_opened_nor_needed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    publish_lists(home, LISTS)
    with duckdb.connect(home / "warehouse.duckdb") as con, serving(home) as service:  # a run that holds it
        con.execute("CREATE TABLE t (a INTEGER)")
        service.wait_for(status="ok")
        files = [os.readlink(link) for link in Path(f"/proc/{service.process.pid}/fd").iterdir() if link.exists()]
        assert [name for name in files if str(home) in name and not name.endswith(".log")] == []
        assert {path.name for path in home.iterdir()} == {"current.duckdb", "warehouse.duckdb", "warehouse.duckdb.wal"}


def test_sigterm_finishes_requests_and_exits_with_0(tmp_path: Path) -> None:
    home = tmp_path / "home"
    publish_lists(home, LISTS)
    body = b'{"user_ids": ["ann"]}'
    with serving(home) as service, socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        service.wait_for(status="ok")
        client.sendall(b"POST /v1/users:batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        client.sendall(body)
        assert client.makefile("rb").read().endswith(b'"reason_parameters":null}]}]}')
        assert service.process.wait(timeout=30) == 0
    assert "Traceback" not in service.log.read_text()


def test_ctrl_c_ends_it_as_it_does_any_command(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell lets it be ignored
    with serving(tmp_path / "home") as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=30) == 130
    assert "Traceback" not in service.log.read_text()
