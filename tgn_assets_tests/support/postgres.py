"""A PostgreSQL server for the tests, from the binaries of Debian's package, and a record of its queries."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from adbc_driver_postgresql import dbapi

from benchmarks.servers import free_port

USER = "postgres"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "log_statement": "all",
    "shared_preload_libraries": "pg_stat_statements",
}


@dataclass(frozen=True)
class Postgres:
    """A server; whoever comes as `USER` from this machine may log in, everybody else needs a password."""

    port: int
    log: Path
    connection: dbapi.Connection

    def url(self, user: str = USER, database: str = "postgres") -> str:
        return _url(self.port, user, database)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that leads clients to this server by default."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER}

    def run(self, *statements: str) -> list[tuple]:
        """The rows of the last of the `statements`."""
        with self.connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def heard(self) -> Iterator[list[str]]:
        """Fills the list, in the end, with the lines that the server logged within."""
        lines: list[str] = []
        start = self.log.stat().st_size
        yield lines
        lines += self.log.read_bytes()[start:].decode().splitlines()

    @contextmanager
    def copied(self) -> Iterator[list[int]]:
        """Fills the list, in the end, with the number of rows that the server sent or took within, by COPY."""
        rows: list[int] = []
        self.run("SELECT pg_stat_statements_reset()")
        yield rows
        rows += self.run("SELECT COALESCE(sum(rows), 0)::int FROM pg_stat_statements WHERE query LIKE 'COPY%'")[0]


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server that lives as long as the context, or this process; without binaries the test is skipped, with the
    remedy.
    """
    initdb = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=shutil.which("initdb"), key=_version)
    if initdb is None:
        pytest.skip("there is no PostgreSQL server: `apt-get install postgresql`, or put its initdb on the PATH")
    programs = Path(initdb).parent
    with tempfile.TemporaryDirectory(prefix="postgres-of-tests-") as folder:
        data, log, port = Path(folder) / "data", Path(folder) / "log", free_port()
        owner = ["setpriv", "--pdeathsig", "INT"]  # a server that outlives a killed test run would never end
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            shutil.chown(folder, USER, USER)
            owner += ["--reuid", USER, "--regid", USER, "--clear-groups"]
        make = [str(programs / "initdb"), "-D", str(data), "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*owner, *make, "-A", "trust"], check=True, stdout=subprocess.DEVNULL)
        (data / "pg_hba.conf").write_text(
            f"host all {USER} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*owner, programs / "postgres", "-D", data, "-p", str(port), *options], stdout=out, stderr=out
            )
        try:
            with _first_connection(process, port, log) as connection:
                server = Postgres(port, log, connection)
                server.run("CREATE EXTENSION pg_stat_statements")
                yield server
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def _first_connection(process: subprocess.Popen, port: int, log: Path) -> dbapi.Connection:
    while True:
        try:
            return dbapi.connect(_url(port), autocommit=True)
        except dbapi.OperationalError:  # it is starting
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)


def _url(port: int, user: str = USER, database: str = "postgres") -> str:
    return f"postgresql://{user}@127.0.0.1:{port}/{database}"


def _version(initdb: Path) -> int:
    return int(initdb.parts[-3])
