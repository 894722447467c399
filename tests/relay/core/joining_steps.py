"""Steps on a volunteer's way into the swarm."""

from relay.records import VolunteerRecord
from schema.messages import Assignment, ErrorInfo, Goodbye, Offer, Probe
from tests.relay.core.peers import ScriptedPeer, offer
from tests.relay.core.support import RunningRelay


async def rows(relay: RunningRelay) -> list[VolunteerRecord]:
    return await relay.services.store.volunteers()


async def assigned(peer: ScriptedPeer, message: Offer) -> Assignment:
    await peer.say(message)
    return await peer.hear(Assignment)


async def loaded(peer: ScriptedPeer) -> Probe:
    """Go as far as the probe."""
    await peer.load(await assigned(peer, offer()))
    return await peer.hear(Probe)


def states(relay: RunningRelay) -> list[str]:
    return [volunteer.state for volunteer in relay.services.swarm.volunteers()]


async def refusal(peer: ScriptedPeer) -> ErrorInfo:
    """How the relay ends the connection."""
    code, _ = await peer.goodbye()
    last = peer._messages[-1]
    assert isinstance(last, Goodbye)
    assert last.error.code == code
    return last.error
