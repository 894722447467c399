"""Several replicas of one relay as processes, on a PostgreSQL that is there and a NATS of their own.

`TEST_POSTGRES_URL` names the PostgreSQL server; else it is one on this machine that trusts local connections.
`scripts/services` starts it where it is installed. Does not know what is measured.
"""

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import asyncpg

from benchmarks.processes import START_SECONDS, RelayProcess, free_port, serving_relay
from relay.migrate import upgrade

HEARTBEAT_SECONDS = "0.5"


def _run(statement: str) -> str:
    """Run a statement on the server; its address without a database."""
    url = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")

    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
    return url.rpartition("/")[0]


@contextmanager
def database() -> Iterator[str]:
    """The address of a migrated database, which is gone afterwards."""
    name = f"corolla_benchmark_{secrets.token_hex(4)}"
    url = f"{_run(f'CREATE DATABASE {name}').replace('postgresql://', 'postgresql+asyncpg://')}/{name}"
    try:
        asyncio.run(upgrade(url))
        yield url
    finally:
        _run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def bus(folder: Path) -> Iterator[str]:
    """The address of a NATS server. Raises RuntimeError: there is none here, or it does not start."""
    program = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("nats-server is not installed: run scripts/services")
    port = free_port()
    with (folder / "nats.log").open("ab") as log:
        server = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if time.monotonic() > deadline:
                raise RuntimeError("nats-server does not start")
            time.sleep(0.02)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@contextmanager
def replicas(folder: Path, models: str, count: int = 2, **settings: str) -> Iterator[list[RelayProcess]]:
    """Running replicas with their files in a folder; killed at the end, if they are still there."""
    with database() as database_url, bus(folder) as bus_url, ExitStack() as stack:
        shared = {
            "HOST": "127.0.0.1",
            "DATABASE_URL": database_url,
            "BUS_URL": bus_url,
            "RELAY_SECRET": secrets.token_hex(32),
            "MODELS": models,
            "OPEN_CHAT": "true",
            "HEARTBEAT_SECONDS": HEARTBEAT_SECONDS,
            "FILES": str(folder / "files"),
            **settings,
        }
        running: list[RelayProcess] = []
        for number in range(count):
            port, own = free_port(), folder / f"replica-{number}"
            own.mkdir()
            environment = shared | {"PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
            running.append(stack.enter_context(serving_relay(environment, own)))
        try:
            yield running
        finally:
            for one in running:
                one.process.kill()
