"""A scripted relay, and volunteers of it in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import torch

from schema.errors import CorollaError
from tests.corolla.tiny_text import TinyLlama
from tests.volunteer.nodes import RunningNode, Start
from tests.volunteer.scripted_relay import ScriptedRelay, scripted_relay
from volunteer import node as node_module
from volunteer.config import Config, ModelChoice
from volunteer.device import DeviceThread


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    torch.set_num_threads(1)
    return TinyLlama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    async with scripted_relay() as running:
        yield running


@pytest.fixture
def config(relay: ScriptedRelay, llama: TinyLlama) -> Config:
    models = (ModelChoice("tiny", str(llama.folder)),)
    return Config(token="corolla-volunteer.a.b.", relay_url=relay.url, name="anemone", models=models)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Dial again at once; the failures in a row that were waited for."""
    waited: list[int] = []

    def no_backoff(failures: int, retry_after: float | None, jitter: float) -> float:
        waited.append(failures)
        return 0.0

    monkeypatch.setattr(node_module, "backoff", no_backoff)
    return waited


@pytest.fixture
async def start() -> AsyncIterator["Start"]:
    """Starts volunteers, and ends them with the test."""
    running: list[RunningNode] = []
    devices: list[DeviceThread] = []

    async def begin(config: Config) -> RunningNode:
        device = await DeviceThread().__aenter__()
        devices.append(device)
        running.append(RunningNode(config, device))
        return running[-1]

    yield begin
    for one in running:
        one.task.cancel()
        with suppress(asyncio.CancelledError, CorollaError):
            await one.task
    for device in devices:
        await device.stop()
