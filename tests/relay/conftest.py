"""Fixtures for what stands on the database: every test that asks for one runs on SQLite and on PostgreSQL.

PostgreSQL is a real server: `TEST_POSTGRES_URL`, or one on this host that trusts local connections.
Without one those tests are skipped, but never in CI.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from relay.migrate import upgrade
from relay.settings import Settings
from relay.store import Store


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """Undoes `configure_logs`, whose lines would come into the output of later tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


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


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    server = PostgresServer(
        os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
    )
    try:
        server.run("SELECT 1")
    except (OSError, asyncpg.PostgresError) as error:
        reason = f"no PostgreSQL at {server.admin_url}: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated, empty database, to be copied."""
    name = postgres.create()
    asyncio.run(upgrade(postgres.url_of(name)))
    yield name
    postgres.drop(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def empty_database(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database with nothing in it."""
    if dialect == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create()
    yield server.url_of(name)
    server.drop(name)


@pytest.fixture
def database(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database that a relay can be started on."""
    if dialect == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'corolla.sqlite3'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create(request.getfixturevalue("postgres_template"))
    yield server.url_of(name)
    server.drop(name)


@pytest.fixture
def settings(database: str) -> Settings:
    return Settings(database_url=database, replica="here")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with Store.open(settings) as opened:
        yield opened
