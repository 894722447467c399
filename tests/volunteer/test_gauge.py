"""A span's throughput over its life: found on disk or measured, and measured again when real work says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from corolla.tensors import to_wire
from schema.frames import FrameType
from schema.ids import SessionId, Span, new_session_id
from schema.messages import Assignment
from schema.tensors import encode_tensors
from tests.corolla.tiny_text import SHAPE, TinyLlama
from volunteer import gauge as gauge_module
from volunteer import measuring
from volunteer.config import Config, ModelChoice
from volunteer.device import DeviceThread
from volunteer.drift import RECENT_RUNS
from volunteer.loading import LoadedPart, Loader
from volunteer.measuring import Measurement
from volunteer.throughput import DecodeStep, Spread, Table
from volunteer.work import Result, Work

PATIENCE_SECONDS = 30
SPAN = Span(0, 2)
ASSIGNED = Assignment(model="tiny", start=0, end=2, head=False)
IMPOSSIBLE = Table(
    decode=(DecodeStep(batch=1, context=0, seconds=Spread(median=1e-9, low=1e-9, high=1e-9, runs=4)),)
)
"""No step takes so little: every real one is off."""


@pytest.fixture
def config(llama: TinyLlama, tmp_path: Path) -> Config:
    models = (ModelChoice("tiny", str(llama.folder)),)
    return Config(
        token="",
        relay_url="",
        name="anemone",
        models=models,
        device="cpu",
        kernels="library",
        cache=tmp_path / "cache",
    )


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and short measurements, and no waiting between two looks."""
    monkeypatch.setattr(measuring, "PLAN", measuring.PLAN[:3])
    monkeypatch.setattr(measuring, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "CELL_SECONDS", 0.0)
    monkeypatch.setattr(gauge_module, "CHECK_SECONDS", 0.001)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Measurement]:
    """Every measurement that was begun."""
    made: list[Measurement] = []

    class Counted(Measurement):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(gauge_module, "Measurement", Counted)
    return made


@pytest.fixture
async def device() -> AsyncIterator[DeviceThread]:
    async with DeviceThread() as thread:
        yield thread


async def load(config: Config, device: DeviceThread) -> LoadedPart:
    loader = Loader(config)
    (candidate,) = loader.consider([])
    return await loader.load(device, candidate, ASSIGNED, lambda done, total: None)


def files(config: Config) -> list[Path]:
    assert config.cache is not None
    return sorted(config.cache.rglob("*.json"))


async def decode(device: DeviceThread, session: SessionId, steps: int = RECENT_RUNS) -> None:
    """A session of so many steps after its first, which stays open."""
    for position in range(steps + 1):
        payload = encode_tensors([to_wire(torch.zeros(1, 1, SHAPE.hidden))])
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        work = Work(FrameType.STEP, session, position, position, 0, SPAN, payload)
        device.submit(work, answer.set_result)
        result = await asyncio.wait_for(answer, PATIENCE_SECONDS)
        assert result.error is None


async def closed(device: DeviceThread, session: SessionId) -> None:
    device.close(session)
    while device.stats().sessions:
        await device.call(lambda: None)


async def loaded_with_a_wrong_table(config: Config, device: DeviceThread) -> LoadedPart:
    """From disk, as if this machine had been much faster."""
    return await loaded_with_a_table(config, device, IMPOSSIBLE)


async def loaded_with_a_table(config: Config, device: DeviceThread, table: Table) -> LoadedPart:
    """After a first start, with another table in the file that it has left."""
    await (await load(config, device)).gauge.finish()
    (file,) = files(config)
    content = json.loads(file.read_bytes())
    file.write_bytes(msgspec.json.encode(content | {"table": table}))
    return await load(config, device)


class TestTheStart:
    async def test_measures_the_first_figure_alone_and_the_rest_later(
        self, config: Config, device: DeviceThread, begun: list[Measurement]
    ) -> None:
        part = await load(config, device)
        assert [(step.batch, step.context) for step in part.gauge.table.decode] == [(1, 0)]
        assert files(config) == []
        await part.gauge.finish()
        assert len(part.gauge.table.decode) > 1
        assert len(files(config)) == len(begun) == 1

    async def test_finds_what_was_measured_before(
        self, config: Config, device: DeviceThread, begun: list[Measurement]
    ) -> None:
        first = await load(config, device)
        await first.gauge.finish()
        assert "as measured earlier" not in str(first)
        second = await load(config, device)
        assert second.gauge.table == first.gauge.table
        assert "as measured earlier" in str(second)
        assert not await second.gauge.go_on()
        assert len(begun) == 1

    async def test_with_another_form_measures_anew(
        self, config: Config, device: DeviceThread, begun: list[Measurement]
    ) -> None:
        await (await load(config, device)).gauge.finish()
        await load(replace(config, kernels="fastest"), device)
        assert len(begun) == 2

    async def test_with_a_broken_file_measures_anew(
        self, config: Config, device: DeviceThread, begun: list[Measurement], caplog: pytest.LogCaptureFixture
    ) -> None:
        await (await load(config, device)).gauge.finish()
        (file,) = files(config)
        file.write_text("{")
        part = await load(config, device)
        assert len(begun) == 2
        assert part.throughput.blocks_per_second > 0
        assert str(file) in caplog.text

    async def test_does_not_count_on_a_table_without_the_first_figure(
        self, config: Config, device: DeviceThread, begun: list[Measurement]
    ) -> None:
        await loaded_with_a_table(config, device, Table())
        assert len(begun) == 2

    async def test_without_a_folder_keeps_nothing(self, config: Config, device: DeviceThread) -> None:
        part = await load(replace(config, cache=None), device)
        await part.gauge.finish()
        assert files(config) == []


class TestDrift:
    async def test_has_it_measured_again_once_when_nothing_is_served(
        self, config: Config, device: DeviceThread, begun: list[Measurement], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        gauge = (await loaded_with_a_wrong_table(config, device)).gauge
        begun.clear()
        session = new_session_id()
        await decode(device, session)
        assert not await gauge.go_on(), "a session is open"
        assert begun == []
        await closed(device, session)
        await gauge.finish()
        assert len(begun) == 1
        assert gauge.table.throughput.blocks_per_second < IMPOSSIBLE.throughput.blocks_per_second
        assert caplog.text.count("times as long as was measured: measuring anew") == 1
        session = new_session_id()
        await decode(device, session)
        await closed(device, session)
        assert (await load(config, device)).gauge.table == gauge.table

    async def test_of_too_few_steps_is_none(
        self, config: Config, device: DeviceThread, begun: list[Measurement]
    ) -> None:
        gauge = (await loaded_with_a_wrong_table(config, device)).gauge
        begun.clear()
        session = new_session_id()
        await decode(device, session, steps=RECENT_RUNS // 2)
        await closed(device, session)
        assert not await gauge.go_on()
        assert begun == []

    async def test_measured_anew_makes_way_for_work(
        self, config: Config, device: DeviceThread, begun: list[Measurement]
    ) -> None:
        gauge = (await loaded_with_a_wrong_table(config, device)).gauge
        begun.clear()
        await closed(device, await decoded(device))
        going, session = asyncio.create_task(gauge.go_on()), new_session_id()
        await decode(device, session, steps=1)
        if not await going:
            assert not await gauge.go_on(), "a session is open"
            await closed(device, session)
            await gauge.finish()
        assert len(begun) == 1
        assert gauge.table.throughput.blocks_per_second > 0


async def decoded(device: DeviceThread) -> SessionId:
    session = new_session_id()
    await decode(device, session)
    return session


class TestKeeping:
    async def test_measures_while_nothing_is_served_and_tells(
        self, config: Config, device: DeviceThread, begun: list[Measurement], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        part = await load(config, device)
        told = asyncio.Event()
        keeping = asyncio.create_task(part.gauge.keep(lambda: True, told.set))
        await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert len(files(config)) == len(begun) == 1
        assert all(line in caplog.text for line in part.gauge.table.lines())

    async def test_leaves_the_device_alone_while_something_is(
        self, config: Config, device: DeviceThread
    ) -> None:
        part = await load(config, device)
        looks = asyncio.Event()
        asked = 0

        def is_idle() -> bool:
            nonlocal asked
            asked += 1
            if asked == 3:
                looks.set()
            return False

        keeping = asyncio.create_task(part.gauge.keep(is_idle, lambda: None))
        await asyncio.wait_for(looks.wait(), PATIENCE_SECONDS)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert len(part.gauge.table.decode) == 1

    async def test_ends_with_the_device(self, config: Config) -> None:
        async with DeviceThread() as device:
            part = await load(config, device)
            await part.gauge.finish()
            keeping = asyncio.create_task(part.gauge.keep(lambda: True, lambda: None))
        await asyncio.wait_for(keeping, PATIENCE_SECONDS)
