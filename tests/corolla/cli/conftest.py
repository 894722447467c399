"""Relays to ask, and commands that ask them."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.migrate import upgrade
from tests.corolla.cli.fake_relay import FakeRelay, fake_relay
from tests.corolla.cli.running import CommandLine
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.support import RunningRelay, running_relay, sqlite_url


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied."""
    path = tmp_path_factory.mktemp("database") / "corolla.sqlite3"
    asyncio.run(upgrade(sqlite_url(path)))
    return path


@pytest.fixture
async def relay(empty_database: Path, tmp_path: Path) -> AsyncIterator[RunningRelay]:
    """A real relay, whose volunteers say what a test wants said."""
    async with running_relay(Path(shutil.copy(empty_database, tmp_path))) as running:
        yield running


@pytest.fixture
async def head(relay: RunningRelay) -> ScriptedPeer:
    """A volunteer that serves the whole model."""
    return await relay.serving(head=True)


@pytest.fixture
async def token(relay: RunningRelay) -> str:
    return await relay.token("client")


@pytest.fixture
def fake() -> Iterator[FakeRelay]:
    with fake_relay() as running:
        yield running


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    """Commands that know no relay."""
    return CommandLine(tmp_path / "home", {"PATH": os.environ["PATH"]})


@pytest.fixture
def faked(command: CommandLine, fake: FakeRelay) -> CommandLine:
    """Commands that ask the fake relay."""
    return CommandLine(command.home, {**command.environment, "COROLLA_API_KEY": fake.token})
