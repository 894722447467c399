"""Fixtures for what stands on the database: every test that asks for one runs on SQLite and on PostgreSQL.

PostgreSQL is a real server, see tests/servers.py.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.migrate import upgrade
from relay.settings import Settings
from relay.store import Store
from tests.servers import PostgresServer, postgres_server


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """Undoes `configure_logs`, whose lines would come into the output of later tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    return postgres_server()


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
