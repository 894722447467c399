"""A volunteer tells the relay how fast it is, and measures while nobody needs it."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from schema.ids import SessionId, new_session_id
from schema.messages import Heartbeat, Offer
from tests.volunteer.nodes import Start, closing, work
from tests.volunteer.scripted_relay import ScriptedRelay
from volunteer import drift, measuring
from volunteer import gauge as gauge_module
from volunteer.config import Config
from volunteer.throughput import DecodeStep, Spread, Table

FEW_RUNS = 8
IMPOSSIBLE = Spread(median=1e-9, low=1e-9, high=1e-9, runs=4)


def speeds(relay: ScriptedRelay) -> list[float]:
    """What its heartbeats have said so far."""
    given = [message.blocks_per_second for message in relay.of(Heartbeat)]
    return [speed for speed in given if isinstance(speed, float)]


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge_module, "CHECK_SECONDS", 0.001)
    monkeypatch.setattr(drift, "RECENT_RUNS", FEW_RUNS)
    monkeypatch.setattr(measuring, "PLAN", measuring.PLAN[:3])
    monkeypatch.setattr(measuring, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "CELL_SECONDS", 0.0)


@pytest.fixture
def kept(config: Config, tmp_path: Path) -> Config:
    return replace(config, cache=tmp_path)


def files(config: Config) -> list[Path]:
    assert config.cache is not None
    return sorted(config.cache.rglob("*.json"))


async def measured(relay: ScriptedRelay, config: Config, start: Start) -> Path:
    """The file of a volunteer that has measured and left."""
    running = await start(config)
    await relay.wait_for(lambda: speeds(relay) and files(config))
    await running.leave()
    return files(config)[0]


async def test_the_relay_is_told_the_speed_with_every_heartbeat(
    relay: ScriptedRelay, config: Config, start: Start
) -> None:
    running = await start(config)
    await relay.wait_until_serving()
    running.node.set_pause("it is late")
    running.node.set_pause(None)
    await relay.wait_for(lambda: len(relay.of(Heartbeat)) == 2)
    first, second = speeds(relay)
    assert first == second > 0


@pytest.mark.usefixtures("looking_often")
async def test_a_volunteer_that_comes_back_offers_it(
    relay: ScriptedRelay, config: Config, start: Start, at_once: list[int]
) -> None:
    await start(config)
    await relay.wait_until_serving()
    await relay.wait_for(lambda: speeds(relay))
    await relay.connections[-1].close(1012)
    await relay.wait_until_serving(times=2)
    assert relay.of(Offer)[-1].blocks_per_second == speeds(relay)[-1]


@pytest.mark.usefixtures("looking_often")
async def test_it_measures_when_it_serves_nothing_and_keeps_that(
    relay: ScriptedRelay, kept: Config, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await measured(relay, kept, start)
    assert "decode, 2 at once" in caplog.text
    assert "as measured earlier" not in caplog.text
    running = await start(kept)
    await relay.wait_until_serving(times=2)
    await running.leave()
    assert "as measured earlier" in caplog.text


@pytest.mark.usefixtures("looking_often")
async def test_drift_is_measured_after_the_session_and_told_once(
    relay: ScriptedRelay, kept: Config, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = await measured(relay, kept, start)
    wrong = Table(decode=(DecodeStep(batch=1, context=0, seconds=IMPOSSIBLE),))
    file.write_bytes(msgspec.json.encode(json.loads(file.read_bytes()) | {"table": wrong}))
    relay.messages.clear()

    running = await start(kept)
    await relay.wait_until_serving()
    session = new_session_id()
    await steps(relay, session)
    assert "measuring anew" not in caplog.text
    await relay.send(closing(session))
    await relay.wait_for(lambda: speeds(relay))
    assert speeds(relay)[-1] < wrong.throughput.blocks_per_second

    for _ in range(20):  # turns in which it could begin once more
        await running.device.call(lambda: None)
    await running.leave()
    assert caplog.text.count("measuring anew") == 1
    assert json.loads(file.read_bytes())["table"] != msgspec.to_builtins(wrong)


@pytest.mark.usefixtures("looking_often")
async def test_it_measures_nothing_while_its_owner_needs_the_machine(
    relay: ScriptedRelay, kept: Config, start: Start
) -> None:
    running = await start(kept)
    running.node.set_pause("it is late")
    await relay.wait_until_serving()
    for _ in range(20):  # turns in which it could have begun
        await running.device.call(lambda: None)
    assert files(kept) == []
    running.node.set_pause(None)
    await relay.wait_for(lambda: files(kept))


async def steps(relay: ScriptedRelay, session: SessionId) -> None:
    """So many steps of a session of others, one after the other."""
    for number in range(FEW_RUNS + 1):
        answers = len(relay.frames)
        await relay.send(work(session, position=3 * number))
        await relay.wait_for(lambda before=answers: len(relay.frames) > before)
