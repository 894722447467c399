"""A relay for every test, in the event loop that production uses where there is one."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx
import hypothesis
import openai
import pytest

from relay import pages, replies
from relay.migrate import upgrade
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.rest_client import client_of
from tests.relay.core.support import RunningRelay, running_relay, sqlite_url

try:
    from uvloop import new_event_loop
except ImportError:  # Windows
    from asyncio import new_event_loop

# A busy machine is not a failure.
hypothesis.settings.register_profile(
    "relay", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("relay")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"as in production": new_event_loop}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied: that takes half the time of making one."""
    path = tmp_path_factory.mktemp("database") / "corolla.sqlite3"
    asyncio.run(upgrade(sqlite_url(path)))
    return path


@pytest.fixture
def sqlite_file(empty_database: Path, tmp_path: Path) -> Path:
    """A database of the test's own."""
    return Path(shutil.copy(empty_database, tmp_path))


@pytest.fixture
async def relay(sqlite_file: Path) -> AsyncIterator[RunningRelay]:
    """A relay that serves one model and has no volunteers."""
    async with running_relay(sqlite_file) as running:
        yield running


@pytest.fixture
async def open_relay(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    """A relay at whose pages nobody has to sign in, and which tells them its news at once."""
    monkeypatch.setattr(pages, "PUSH_SECONDS", 0.0)
    async with running_relay(sqlite_file, open_chat=True) as running:
        yield running


@pytest.fixture
def one_head_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply whose head has left waits for no other."""
    monkeypatch.setattr(replies, "WAIT_SECONDS", 0.01)


# ---- who is connected ----


@pytest.fixture
async def driver(relay: RunningRelay) -> ScriptedPeer:
    """A client that drives sessions."""
    return await relay.dial(kind="client", name="driver")


@pytest.fixture
async def first(relay: RunningRelay) -> ScriptedPeer:
    """A volunteer, to be a hop."""
    return await relay.dial(name="first")


@pytest.fixture
async def second(relay: RunningRelay) -> ScriptedPeer:
    """Another one."""
    return await relay.dial(name="second")


@pytest.fixture
async def head(relay: RunningRelay) -> ScriptedPeer:
    """A volunteer that serves the whole model, its head too."""
    return await relay.serving(head=True)


# ---- who asks over HTTP ----


@pytest.fixture
async def token(relay: RunningRelay) -> str:
    return await relay.token("client")


@pytest.fixture
async def http(relay: RunningRelay, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a good token."""
    async with client_of(relay, token) as client:
        yield client


@pytest.fixture
async def assistant(relay: RunningRelay, token: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, unchanged."""
    async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as client:
        yield client
