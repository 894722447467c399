"""Whoever serves is asked again for a probe, and is on no new route when it does not pass it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay import probing
from schema.messages import Probe, Ready
from tests.relay.core.joining_steps import states
from tests.relay.core.peers import ScriptedPeer
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually


@pytest.fixture
async def asking_relay(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    """A relay that asks again at once."""
    monkeypatch.setattr(probing, "PATIENCE_SECONDS", 60.0)
    async with running_relay(sqlite_file, probe_seconds=0.05) as running:
        yield running


def shown(relay: RunningRelay) -> list[str]:
    return [volunteer.shown_state for volunteer in relay.services.swarm.volunteers()]


async def test_a_probe_that_is_passed_again_changes_nothing(asking_relay: RunningRelay) -> None:
    volunteer = await asking_relay.serving()
    for _ in range(2):
        await volunteer.pass_probe(await volunteer.hear(Probe))
    await volunteer.hear(Probe)
    assert shown(asking_relay) == ["serving"]
    assert await asking_relay.metric("probes_total", outcome="passed") >= 2
    assert await asking_relay.metric("probes_total", outcome="late") == 0


async def test_who_does_not_pass_it_is_on_no_new_route_until_it_passes_another(
    asking_relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    volunteer = await asking_relay.serving(head=True)
    monkeypatch.setattr(probing, "PATIENCE_SECONDS", 0.0)
    await volunteer.hear(Probe)
    await eventually(lambda: shown(asking_relay) == ["probing"])
    assert states(asking_relay) == ["serving"]  # its sessions go on
    assert asking_relay.services.swarm.holders("llama") == []
    monkeypatch.setattr(probing, "PATIENCE_SECONDS", 60.0)
    while await asking_relay.metric("probes_total", outcome="passed") == 0:
        await volunteer.pass_probe(await volunteer.hear(Probe))
    assert asking_relay.services.swarm.holders("llama") != []
    assert await asking_relay.metric("probes_total", outcome="late") >= 1


async def test_a_probe_whose_answer_did_not_come_through_the_relay_is_not_believed(
    asking_relay: RunningRelay,
) -> None:
    volunteer = await asking_relay.serving()
    probe = await volunteer.hear(Probe)
    await volunteer.say(Ready(session=probe.session))
    assert (await volunteer.goodbye())[0] == "unexpected_message"


async def test_not_all_are_asked_at_once(asking_relay: RunningRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_AT_ONCE", 1)
    peers: list[ScriptedPeer] = [await asking_relay.serving(name=name) for name in ("first", "second")]
    for peer in peers:
        await peer.pass_probe(await peer.hear(Probe))
    assert shown(asking_relay) == ["serving", "serving"]


async def test_all_are_asked_though_a_pass_looks_at_a_few(
    asking_relay: RunningRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LOOKED_AT", 2)
    peers: list[ScriptedPeer] = [await asking_relay.serving(name=f"number {number}") for number in range(5)]
    for peer in peers:
        await peer.hear(Probe)
