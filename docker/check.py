"""Tries the steps of the Dockerfile one by one without Docker: `python3 docker/check.py`, in a new environment.

A folder stands for the image: COPY copies into it, as .dockerignore allows; RUN lines of pip are run in a new
environment, those of apt-get are looked up, those of useradd are only printed; HEALTHCHECK and CMD are started as they
stand, on a free port. With `--here` nothing is installed: this Python's environment takes the place of the new one.
"""

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS_TO_START = 90


def steps(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


class Image:
    """The folder that stands for the image, and what the steps so far have set."""

    def __init__(self, folder: Path, *, install: bool) -> None:
        self.folder, self.install = folder, install
        self.work = folder
        self.health: list[str] = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("TGN_", "DAGSTER_"))
        }
        programs = Path(sys.executable).parent
        if install:
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            programs = folder / "venv" / "bin"
            self.environment.pop("PYTHONPATH", None)
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def inside(self, path: str) -> Path:
        """Where `path` of the image lies here."""
        return self.folder / path.lstrip("/") if path.startswith("/") else self.work / path

    def step(self, word: str, rest: str) -> None:
        """Does one step; SystemExit if it cannot be done."""
        match word:
            case "WORKDIR":
                self.work = self.inside(rest)
                self.work.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self.copy(*rest.split())
            case "ARG" | "ENV":
                name, value = rest.split("=", 1)
                value = shlex.split(value or "''")[0]
                self.environment[name] = str(self.inside(value)) if value.startswith("/") else value
            case "RUN":
                self.run(rest)
            case "FROM" | "USER" | "VOLUME" | "EXPOSE":
                pass
            case "HEALTHCHECK":
                self.health = json.loads(rest[rest.index("[") :])
            case "CMD":
                self.start(json.loads(rest))
            case _:
                need(False, f"docker/check.py does not know the instruction {word}")

    def run(self, command: str) -> None:
        """RUN: what pip installs is installed, what apt-get installs is looked up, where there is dpkg."""
        if command.startswith("pip ") and self.install:
            subprocess.run(["sh", "-ec", command], cwd=self.work, env=self.environment, check=True)
        elif found := re.search(r"apt-get install (.*?) &&", command):
            for package in found[1].split():
                if not package.startswith("-") and shutil.which("dpkg"):
                    queries = (["dpkg", "-s", package], ["apt-cache", "show", package])
                    known = any(subprocess.run(query, capture_output=True).returncode == 0 for query in queries)
                    need(known, f"there is no package {package}")

    def copy(self, *names: str) -> None:
        """COPY: files and folders of the repository into a folder of the image."""
        *sources, target = names
        allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for source in sources:
            need((ROOT / source).exists(), f"{source} is not in the repository")
            need(any(fnmatch.fnmatch(source, pattern) for pattern in allowed), f".dockerignore leaves out {source}")
            if (ROOT / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, self.inside(target), ignore=ignore, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / source, self.inside(target))

    def start(self, command: list[str]) -> None:
        """CMD, until the health check succeeds, on a free port and on a log of two weeks."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        log = self.folder / "log.csv"
        log.write_text("ip_address,event_id,timestamp\nu,e,2024-01-01 08:00:00\nu,e,2024-01-14 08:00:00\n")
        environment = self.environment | {"TGN_SOURCE": str(log), "TGN_END_WEEK": "2024-01-08"}
        output = self.folder / "output"
        with output.open("w") as out:
            process = subprocess.Popen(
                [*command, "--port", port],
                cwd=self.work,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            end = time.monotonic() + SECONDS_TO_START
            health = [part.replace("3000", port) for part in self.health]
            while subprocess.run(health, env=environment, capture_output=True).returncode:
                lives = process.poll() is None and time.monotonic() < end
                need(lives, f"{shlex.join(command)} does not answer:\n{output.read_text()[-3000:]}")
                time.sleep(0.5)
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # code servers may outlive their parent
            process.wait()


def need(condition: bool, otherwise: str) -> None:
    """Ends the program with what is wrong, unless `condition` holds."""
    if not condition:
        sys.exit(f"FAILED: {otherwise}")


def main() -> None:
    """Prints each step and does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="install nothing: use the environment of this Python")
    install = not parser.parse_args().here
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder), install=install)
        for word, rest in steps((ROOT / "Dockerfile").read_text()):
            print(word, rest, flush=True)
            image.step(word, rest)
    print("every step can be done")


if __name__ == "__main__":
    main()
