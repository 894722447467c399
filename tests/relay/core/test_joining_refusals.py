"""relay/joining.py: every wrong step on the way is refused by name."""

from typing import Any

import msgspec
import pytest

from schema.frames import FrameType
from schema.ids import SessionId, new_session_id
from schema.messages import Loaded, ModelFacts, Offer, Ready, RouteGrant, RouteRequest
from tests.relay.core.joining_steps import assigned, loaded, refusal, rows
from tests.relay.core.peers import FACTS, MODEL, Journey, model_offer, offer
from tests.relay.core.support import RunningRelay
from tests.relay.core.waiting import eventually


async def test_ready_without_a_probe_is_not_believed(relay: RunningRelay) -> None:
    peer = await relay.dial()
    probe = await loaded(peer)
    await peer.say(Ready(session=probe.session))
    assert await peer.goodbye() == ("join_refused", 4409)
    assert relay.services.swarm.holders(MODEL) == []


async def test_ready_with_half_a_probe_is_not_believed(relay: RunningRelay) -> None:
    peer = await relay.dial()
    probe = await loaded(peer)
    journey = Journey(SessionId(bytes.fromhex(probe.session)), probe.route)
    await peer.send(journey.frame(0, kind=FrameType.PROBE))
    await peer.frame()
    await peer.say(Ready(session=probe.session))
    assert await peer.goodbye() == ("join_refused", 4409)


async def test_ready_with_another_sessions_probe_is_not_believed(relay: RunningRelay) -> None:
    """An ordinary route, with frames that say that they are a probe's."""
    server = await relay.serving()
    peer = await relay.dial()
    await loaded(peer)
    session = new_session_id()
    await peer.say(RouteRequest(request="r", model=MODEL, session=session.hex()))
    journey = Journey(session, (await peer.hear(RouteGrant)).route)
    await peer.send(journey.frame(0, kind=FrameType.PROBE))
    await server.send(await server.frame(), journey.frame(1, kind=FrameType.PROBE))
    await peer.frame()
    await peer.say(Ready(session=session.hex()))
    assert await peer.goodbye() == ("join_refused", 4409)


async def test_ready_with_another_volunteers_probe_is_not_believed(relay: RunningRelay) -> None:
    honest, cheat = await relay.dial(), await relay.dial()
    probe = await loaded(honest)
    await loaded(cheat)
    journey = Journey(SessionId(bytes.fromhex(probe.session)), probe.route)
    for hop in (0, 1):
        await honest.send(journey.frame(hop, kind=FrameType.PROBE))
        await honest.frame()
    await cheat.say(Ready(session=probe.session))
    assert await cheat.goodbye() == ("join_refused", 4409)


@pytest.mark.parametrize(
    "changes",
    [{"start": 1}, {"end": 7}, {"head": True}, {"model": "another"}],
    ids=str,
)
async def test_another_span_than_the_one_assigned_is_refused(
    relay: RunningRelay, changes: dict[str, Any]
) -> None:
    peer = await relay.dial()
    given = await assigned(peer, offer())
    right = Loaded(model=MODEL, start=given.start, end=given.end, head=given.head, dtype="float32")
    await peer.say(msgspec.structs.replace(right, **changes))
    error = await refusal(peer)
    assert error.code == "join_refused"
    assert "another span" in error.message


async def test_a_second_offer_on_the_same_connection_is_refused(relay: RunningRelay) -> None:
    peer = await relay.serving()
    await peer.say(offer())
    assert await peer.goodbye() == ("unexpected_message", 1002)


async def test_another_checkpoint_of_the_same_name_is_refused_by_its_digest(relay: RunningRelay) -> None:
    await relay.serving()
    peer = await relay.dial()
    await peer.say(offer(facts=changed_facts(digest="b" * 64)))
    error = await refusal(peer)
    assert error.code == "join_refused"
    assert "b" * 64 in error.message
    assert FACTS.digest in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("blocks", 4), ("hidden_size", 8), ("context", 1), ("family", "gpt2"), ("parameters", 1)],
)
async def test_other_facts_of_the_same_checkpoint_are_refused_by_name(
    relay: RunningRelay, field: str, value: Any
) -> None:
    await relay.serving()
    peer = await relay.dial()
    await peer.say(offer(facts=changed_facts(**{field: value})))
    error = await refusal(peer)
    assert error.code == "join_refused"
    assert f"{field} is {value}, not {getattr(FACTS, field)}" in error.message


def changed_facts(**changes: Any) -> ModelFacts:
    return msgspec.structs.replace(FACTS, **changes)


async def test_what_does_not_fit_is_refused_with_the_remedy_and_leaves_no_row(relay: RunningRelay) -> None:
    peer = await relay.dial()
    await peer.say(offer(max_blocks=0))
    error = await refusal(peer)
    assert error.code == "join_refused"
    assert "free memory" in error.message
    await eventually(lambda: len(relay.services.hub) == 0 and not relay.server.server_state.tasks)
    assert await rows(relay) == []
    assert await relay.metric("refusals_total", reason="join_refused") == 1


async def test_a_model_that_the_swarm_does_not_serve_is_refused_naming_those_it_does(
    relay: RunningRelay,
) -> None:
    peer = await relay.dial()
    await peer.say(offer(facts=changed_facts(name="other")))
    assert "serves llama, not other" in (await refusal(peer)).message


async def test_facts_of_models_that_are_not_served_are_not_kept(relay: RunningRelay) -> None:
    peer = await relay.dial()
    models = [model_offer(facts=changed_facts(name="other")), model_offer()]
    given = await assigned(peer, Offer(device="CPU", memory=1, models=models))
    assert given.model == MODEL
    assert [model.name for model in await relay.services.store.list_models()] == [MODEL]


@pytest.mark.parametrize("device", ["nul\0", "two\nlines"])
async def test_a_device_with_control_characters_is_refused(relay: RunningRelay, device: str) -> None:
    peer = await relay.dial()
    await peer.say(msgspec.structs.replace(offer(), device=device))
    assert await peer.goodbye() == ("malformed_message", 1002)


async def test_a_dtype_with_control_characters_is_refused(relay: RunningRelay) -> None:
    peer = await relay.dial()
    given = await assigned(peer, offer())
    await peer.say(Loaded(model=MODEL, start=given.start, end=given.end, head=given.head, dtype="nul\0"))
    assert await peer.goodbye() == ("malformed_message", 1002)
