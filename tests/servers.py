"""The servers that replicas share, for tests: PostgreSQL, which is there, and NATS, started where needed.

`TEST_POSTGRES_URL` names a PostgreSQL server; else it is one on this host that trusts local connections.
`scripts/services` starts it where it is installed. Without one, tests that need it are skipped, never in CI.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import asyncpg
import pytest

from benchmarks.processes import free_port

START_SECONDS = 30.0


@dataclass(frozen=True)
class PostgresServer:
    """A server that databases can be made on."""

    admin_url: str

    def run(self, statement: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.admin_url, timeout=5)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())

    def url_of(self, database: str) -> str:
        server = self.admin_url.rpartition("/")[0]
        return server.replace("postgresql://", "postgresql+asyncpg://") + f"/{database}"

    def create(self, template: str = "template0") -> str:
        """A new database's name."""
        name = f"corolla_test_{secrets.token_hex(4)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        self.run(f"DROP DATABASE {database} WITH (FORCE)")

    def set_open(self, database: str, is_open: bool) -> None:
        """Let a database take connections, or take it away from everybody."""
        self.run(f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS {str(is_open).lower()}")
        if not is_open:
            self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")


def missing(reason: str) -> NoReturn:
    """Skip a test for want of a server; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def postgres_server() -> PostgresServer:
    """The server, if it answers."""
    server = PostgresServer(
        os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
    )
    try:
        server.run("SELECT 1")
    except (OSError, asyncpg.PostgresError) as error:
        missing(f"no PostgreSQL at {server.admin_url}: {error}; run scripts/services")
    return server


class NatsServer:
    """A NATS server of a test's own, which it may kill."""

    def __init__(self, program: str, log: Path) -> None:
        self.port = free_port()
        self._program = program
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [self._program, "-a", "127.0.0.1", "-p", str(self.port)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"NATS does not start:\n{self._log.read_text()}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    """A running server with its log in a folder."""
    program = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        missing("nats-server is not installed")
    server = NatsServer(program, folder / "nats.log")
    server.start()
    try:
        yield server
    finally:
        server.kill()
