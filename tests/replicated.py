"""A relay of several replicas as processes, on PostgreSQL and NATS, with volunteers spread over them.

Tests may stop, kill and start replicas; peers and clients find another one, as they would through a proxy.
"""

import asyncio
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import RelayProcess, Volunteer, free_port, serving_relay, tail, volunteer
from relay.migrate import upgrade
from relay.settings import Settings
from relay.store import Store
from tests.servers import NatsServer, PostgresServer, nats_server, postgres_server

HEARTBEAT_SECONDS = "0.5"
EXIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Replica(RelayProcess):
    """A replica whose tokens are made without the start of another process."""

    def token(self, kind: str, name: str) -> str:
        async def create() -> str:
            settings = Settings.from_environment(self.environment)
            async with Store.open(settings) as store:
                made = "volunteer" if kind == "volunteer" else "client"
                return str(await store.create_token(made, name, self.url))

        with ThreadPoolExecutor(1) as elsewhere:  # a test may have an event loop of its own
            return elsewhere.submit(asyncio.run, create()).result()


class Replicated:
    """Replicas of one relay, and who is connected to them."""

    def __init__(self, folder: Path, stack: ExitStack, settings: Mapping[str, str], count: int) -> None:
        self.folder = folder
        self.stack = stack
        self.volunteers: dict[str, Volunteer] = {}
        self.ports = [free_port() for _ in range(count)]
        self._settings = settings
        self.replicas: list[RelayProcess] = []
        for number in range(count):
            self.replicas.append(self._start(number))

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def _start(self, number: int) -> RelayProcess:
        own = self.folder / f"replica-{number}"
        own.mkdir(exist_ok=True)
        environment = {
            **self._settings,
            "HOST": "127.0.0.1",
            "PORT": str(self.ports[number]),
            "PUBLIC_URL": self.urls[number],
            "REPLICA": f"replica-{number}-{secrets.token_hex(2)}",
        }
        started = self.stack.enter_context(serving_relay(environment, own))
        return Replica(started.url, started.secret, environment, own, started.process)

    def restart(self, number: int) -> None:
        """Stop a replica in good order, and start another one in its place."""
        self.stop(number, signal.SIGTERM)
        self.start(number)

    def stop(self, number: int, how: signal.Signals) -> None:
        process = self.replicas[number].process
        process.send_signal(how)
        process.wait(EXIT_SECONDS)

    def start(self, number: int) -> None:
        self.replicas[number] = self._start(number)

    def plant(self, name: str, near: int, *arguments: str) -> None:
        """Start a volunteer that knows all replicas, and dials the one with this number first."""
        urls = self.urls[near:] + self.urls[:near]
        running = volunteer(self.replicas[near], name, "--relay", ",".join(urls), *arguments)
        self.volunteers[name] = self.stack.enter_context(running)

    def wait_until_serving(self, names: Sequence[str] | None = None) -> None:
        """Return when every replica knows that these volunteers serve; default: all of them."""
        for replica in self.replicas:
            if replica.process.poll() is None:
                expected = self.volunteers.keys() if names is None else names
                replica.wait_until_serving(expected, list(self.volunteers.values()))

    def token(self, name: str) -> str:
        return self.replicas[0].token("client", name)

    def last_words(self) -> str:
        """The end of every log, for a test that has failed."""
        logs = [*self.folder.glob("replica-*/*.log")]
        return "\n".join(f"--- {log}\n{tail(log)}" for log in logs)

    def said(self, words: str) -> list[str]:
        """The lines of all logs with these words in them."""
        logs = self.folder.glob("replica-*/*.log")
        return [line for log in logs for line in log.read_text().splitlines() if words in line]

    def end(self) -> None:
        """Kill everybody: at the end of all tests nobody has to finish anything."""
        for one in self.volunteers.values():
            one.process.kill()
        for replica in self.replicas:
            replica.process.kill()


class Shared:
    """What the replicas share, and tests may take away."""

    def __init__(self, postgres: PostgresServer, database: str, nats: NatsServer, files: Path) -> None:
        self.postgres = postgres
        self.database = database
        self.nats = nats
        self.files = files

    def settings(self, models: str) -> dict[str, str]:
        return {
            "DATABASE_URL": self.postgres.url_of(self.database),
            "BUS_URL": self.nats.url,
            "FILES": str(self.files),
            "RELAY_SECRET": secrets.token_hex(32),
            "MODELS": models,
            "OPEN_CHAT": "true",
            "HEARTBEAT_SECONDS": HEARTBEAT_SECONDS,
        }


@contextmanager
def shared() -> Iterator[Shared]:
    """A migrated database, a bus and a folder for files, of a test's own."""
    postgres = postgres_server()
    database = postgres.create()
    with tempfile.TemporaryDirectory(prefix="corolla-") as folder, nats_server(Path(folder)) as nats:
        try:
            asyncio.run(upgrade(postgres.url_of(database)))
            yield Shared(postgres, database, nats, Path(folder) / "files")
        finally:
            postgres.drop(database)


@contextmanager
def replicated(between: Shared, models: str, count: int = 2) -> Iterator[Replicated]:
    """Running replicas, without volunteers yet."""
    with tempfile.TemporaryDirectory(prefix="corolla-") as folder, ExitStack() as stack:
        running = Replicated(Path(folder), stack, between.settings(models), count)
        try:
            yield running
        finally:
            running.end()
