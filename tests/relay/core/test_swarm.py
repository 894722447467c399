"""relay/swarm.py: what is missing, in plain words, and a bell for those who show it."""

import asyncio

import msgspec
import pytest
from msgspec import UNSET

from relay.peer import Identity, Peer
from relay.placement import Placement
from relay.prices import Holder
from relay.swarm import Swarm, Volunteer
from schema.errors import ModelUnavailable, NotFound
from schema.ids import PeerId, Span
from schema.protocol import RelayConnection
from schema.swarm import MissingBlocks, VolunteerState
from tests.relay.core.peers import FACTS, MODEL

ALL = "they need about 2.0 kB of memory at 16 bits, or 562 bytes in nf4"
HALF = "they need about 1.0 kB of memory at 16 bits, or 281 bytes in nf4"


def new_swarm() -> Swarm:
    return Swarm([(MODEL, FACTS), ("unknown yet", None)])


def volunteer(
    number: int,
    start: int = 0,
    end: int = FACTS.blocks,
    *,
    head: bool = True,
    state: VolunteerState = "serving",
    sessions: int = 0,
    is_paused: bool = False,
) -> Volunteer:
    identity = Identity(PeerId(f"{number:016x}"), f"volunteer {number}", "token", "volunteer")
    peer = Peer(identity, RelayConnection(), 1000, now=0.0)
    placement = Placement(MODEL, Span(start, end), head)
    return Volunteer(peer, "CPU", 0.0, placement, state=state, sessions=sessions, is_paused=is_paused)


def swarm_of(*volunteers: Volunteer) -> Swarm:
    swarm = new_swarm()
    for one in volunteers:
        swarm.put(one)
    return swarm


# ---- what is missing ----


async def test_a_model_without_volunteers_says_so() -> None:
    assert new_swarm().why_incomplete("unknown yet") == "no volunteer has joined for it yet"


async def test_missing_blocks_are_named() -> None:
    swarm = swarm_of(volunteer(1, 0, 4), volunteer(2, 6, 8))
    assert swarm.why_incomplete(MODEL) == (
        "blocks 4\N{EN DASH}5 have no volunteer; "
        "they need about 500 bytes of memory at 16 bits, or 141 bytes in nf4"
    )


async def test_a_missing_head_is_named() -> None:
    reason = swarm_of(volunteer(1, head=False)).why_incomplete(MODEL)
    assert reason is not None
    assert reason.startswith("no volunteer holds its head")


async def test_a_complete_model_has_nothing_missing() -> None:
    assert swarm_of(volunteer(1)).why_incomplete(MODEL) is None


@pytest.mark.parametrize("state", ["loading", "probing", "draining"])
async def test_only_who_serves_counts(state: VolunteerState) -> None:
    swarm = swarm_of(volunteer(1, state=state))
    assert swarm.why_incomplete(MODEL) == f"blocks 0\N{EN DASH}7 have no volunteer; {ALL}"
    assert swarm.holders(MODEL) == []
    assert swarm.heads(MODEL) == []


async def test_who_is_paused_does_not_count_and_is_shown_as_such() -> None:
    swarm = swarm_of(volunteer(1, is_paused=True), volunteer(2, 0, 4))
    assert swarm.why_incomplete(MODEL) == f"blocks 4\N{EN DASH}7 have no volunteer; {HALF}"
    assert [holder.span for holder in swarm.holders(MODEL)] == [Span(0, 4)]
    assert [one.state for one in swarm.status().volunteers] == ["paused", "serving"]


@pytest.mark.parametrize("state", ["loading", "probing", "draining"])
async def test_who_is_paused_before_it_serves_or_while_it_leaves_is_shown_as_what_it_does(
    state: VolunteerState,
) -> None:
    assert swarm_of(volunteer(1, is_paused=True, state=state)).status().volunteers[0].state == state


async def test_who_rests_is_known_until_it_serves_again_or_leaves() -> None:
    one, other = volunteer(1, is_paused=True), volunteer(2)
    swarm = swarm_of(one, other)
    other.is_in_doubt = True
    swarm.refresh(other)
    assert set(swarm.resting) == {one.peer.id, other.peer.id}
    one.is_paused = False
    swarm.refresh(one)
    assert not swarm.takes_no_sessions(one.peer.id)
    assert set(swarm.resting) == {other.peer.id}
    swarm.drop(other.peer.id)
    assert not swarm.resting


async def test_who_left_does_not_count() -> None:
    one = volunteer(1)
    swarm = swarm_of(one)
    assert swarm.drop(one.peer.id) is one
    assert swarm.holders(MODEL) == []
    assert swarm.drop(one.peer.id) is None


async def test_a_model_that_is_not_served_is_refused_naming_those_that_are() -> None:
    with pytest.raises(NotFound, match="it serves: llama, unknown yet"):
        new_swarm().facts("other")


# ---- holders and heads ----


async def test_holders_are_told_with_their_spans_and_load() -> None:
    swarm = swarm_of(volunteer(1, 2, 5, sessions=3))
    assert swarm.holders(MODEL) == [Holder(PeerId(f"{1:016x}"), Span(2, 5), 3)]


async def test_heads_are_told_the_least_loaded_first() -> None:
    busy, idle = volunteer(1, sessions=5), volunteer(2, sessions=1)
    assert swarm_of(busy, idle).require_heads(MODEL) == [idle, busy]


async def test_an_incomplete_model_has_no_heads_to_ask() -> None:
    with pytest.raises(ModelUnavailable, match="block 7 has no volunteer") as refusal:
        swarm_of(volunteer(1, 0, 7)).require_heads(MODEL)
    assert refusal.value.retry_after


# ---- the picture ----


async def test_the_status_shows_models_and_volunteers() -> None:
    status = swarm_of(volunteer(1, 0, 4), volunteer(2, 5, 8, state="loading")).status()
    model, unknown = status.models
    assert (model.id, model.blocks, model.context, model.complete, model.heads) == (MODEL, 8, 128, False, 1)
    assert model.missing == [MissingBlocks(4, 8)]
    assert model.reason == f"blocks 4\N{EN DASH}7 have no volunteer; {HALF}"
    assert (model.missing_bytes, model.missing_bytes_nf4) == (1000, 281)
    assert (unknown.blocks, unknown.reason) == (None, "no volunteer has joined for it yet")
    first, second = status.volunteers
    assert (first.name, first.start, first.end, first.head, first.state) == (
        "volunteer 1",
        0,
        4,
        True,
        "serving",
    )
    assert second.state == "loading"


async def test_the_status_of_a_complete_model() -> None:
    model = swarm_of(volunteer(1)).status().models[0]
    assert (model.complete, model.missing, model.reason) == (True, [], None)
    assert (model.missing_bytes, model.missing_bytes_nf4) == (UNSET, UNSET)


# ---- the bell ----


async def test_a_change_wakes_everybody_who_waits() -> None:
    swarm = new_swarm()
    waiting = [asyncio.create_task(swarm.wait_for_change(swarm.version)) for _ in range(3)]
    await asyncio.sleep(0)
    swarm.put(volunteer(1))
    assert await asyncio.gather(*waiting) == [swarm.version] * 3


async def test_a_change_that_was_missed_is_told_at_once() -> None:
    swarm = new_swarm()
    seen = swarm.version
    swarm.touch()
    assert await swarm.wait_for_change(seen) == seen + 1


async def test_models_that_stay_as_they_are_ring_no_bell() -> None:
    swarm = new_swarm()
    before = swarm.version
    swarm.set_models([(MODEL, FACTS), ("unknown yet", None)])
    assert swarm.version == before


async def test_who_was_not_there_rings_no_bell_by_leaving() -> None:
    swarm = new_swarm()
    before = swarm.version
    swarm.drop(PeerId("f" * 16))
    assert swarm.version == before


async def test_models_may_be_added_and_learnt_of() -> None:
    swarm = new_swarm()
    before = swarm.version
    facts = msgspec.structs.replace(FACTS, name="unknown yet")
    swarm.set_models([("unknown yet", facts), ("new", None)])
    assert swarm.version > before
    assert swarm.facts("unknown yet") == facts
    assert swarm.priority == ["unknown yet", "new"]
    with pytest.raises(NotFound):
        swarm.facts(MODEL)
