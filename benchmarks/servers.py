"""Servers on this machine, each a process that is started for a while."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 240) -> Any:
    """What `ready` returns once that is true; TimeoutError if it takes longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := ready():
            return answer
        time.sleep(0.2)
    raise TimeoutError(f"{what} took more than {seconds:g} s")


def answers(url: str) -> bool:
    """Whether `url` answers with 200."""
    with suppress(OSError), urlopen(url, timeout=5) as response:
        return bool(response.status == 200)
    return False


@contextmanager
def running(command: Sequence[str], log: Path, **options: Any) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The process of `command` and the port that it got as a last argument, once it listens there.

    It prints to `log`, and gets SIGTERM in the end if it still runs. RuntimeError with what it printed if it ends
    before it listens.
    """
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen([*command, str(port)], stdout=out, stderr=out, **options)
    try:
        wait_for(command[-1], lambda: _listens(port) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
