"""`tgn` without the seconds of CPU that its imports take: a process that has them done forks one for each command.

The processes of the commands have the folder, environment and streams of whoever asks; what they have not is signals,
imports of their own and charts. QUICK_TRAINING in the environment has the configuration of training that the command
then uses, a dictionary like `deployment.TINY` as JSON; `{}` is that one.
`python -m tgn_assets_tests.support.preloaded SOCKET` is the server; it ends with its stdin.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from select import select

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    asked = json.dumps([os.getcwd(), dict(os.environ), sys.argv[2:]]).encode()
    socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(asked)
    sys.exit(int(server.recv(9) or 70))
"""
LATE = (
    "assets.exports",
    "cli.check",
    "cli.doctor",
    "cli.runner",
    "cli.status",
    "ml.encoder.train",
    "ml.evaluation.evaluate",
    "ml.ranker.train",
    "ml.recommend.publish",
    "reporting.terminal",
    "reporting.weekly_page.page",
)
"""Modules that commands import when they need them, with all of their imports."""


@contextmanager
def preloaded_tgn() -> Iterator[Path]:
    """A program that does what `tgn` does, as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="preloaded-tgn-") as folder:
        program, address, client = Path(folder) / "tgn", Path(folder) / "socket", Path(folder) / "client.py"
        client.write_text(CLIENT)
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S -E {client} {address} "$@"\n')
        program.chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TGN_", "DAGSTER_"))}
        server = subprocess.Popen(
            [sys.executable, "-m", "tgn_assets_tests.support.preloaded", str(address)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        with server:  # closes its stdin in the end, and waits for it
            assert server.stdin and server.stdout
            assert server.stdout.readline() == b"ready\n"
            yield program


def main(address: str) -> None:
    """Serves commands at the UNIX socket `address` until stdin is closed."""
    from tgn_assets.settings import Settings
    from tgn_assets.state.home import Home
    from tgn_assets.state.process import prepare_process

    prepare_process()
    from tgn_assets_tests.support.deployment import without_pictures

    without_pictures(pytest.MonkeyPatch())
    for module in LATE:  # imported, and not called: what computes has threads, which do not survive a fork
        import_module(f"tgn_assets.{module}")
    with tempfile.TemporaryDirectory() as folder, Home(Settings(_env_file=None, home=Path(folder))).instance():
        pass  # SQLAlchemy and much of Dagster are loaded when an instance is opened
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while listener in select([listener, sys.stdin], [], [])[0]:
            with listener.accept()[0] as client:
                if os.fork() == 0:
                    listener.close()
                    _serve(client)
            os.waitpid(-1, os.WNOHANG)  # of those served before
    os._exit(0)  # what was imported takes seconds to end in order


def _serve(client: socket.socket) -> None:
    """Runs the command that `client` asks for in a child, and tells the exit status; never returns."""
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += client.recv(1 << 16)
    if (command := os.fork()) == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        folder, environment, arguments = json.loads(asked)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = ["tgn", *arguments]
        from tgn_assets.cli.main import main as tgn
        from tgn_assets_tests.support.deployment import quick_training

        if training := os.environ.pop("QUICK_TRAINING", None):
            quick_training(pytest.MonkeyPatch(), json.loads(training))
        tgn()
    _, status = os.waitpid(command, 0)
    client.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
