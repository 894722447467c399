"""A volunteer's way into the swarm and out of it.

    offer -> (placement, in one SQL transaction) -> assignment -> progress ... -> loaded
          -> probe -> ready, believed only if the probe's answer passed this relay -> serving
          -> (a move, in one SQL transaction) -> assignment -> ...

Writes the swarm and SQL; called by the read loop of the volunteer's connection, one message at a
time. Does not know sockets or replies.
"""

import math
import time
from dataclasses import replace

import msgspec

from relay.forwarding import Forwarder
from relay.hub import Hub
from relay.peer import Peer, check_printable
from relay.placement import Held, Placement, place
from relay.rebalancing import LastMove, Move, Resident, is_strong_enough, next_move
from relay.records import HeldSpan, VolunteerRecord
from relay.routing import Routing
from relay.settings import Settings
from relay.standings import Standings
from relay.store import Store
from relay.swarm import Swarm, Volunteer
from schema.errors import JoinRefused, UnexpectedMessage
from schema.ids import SessionId, Span
from schema.messages import Assignment, Heartbeat, Loaded, ModelFacts, Offer, Progress, Ready, Serving
from schema.swarm import VolunteerState

STALE_SECONDS = 15.0
"""The rows of a replica that has not been heard of for this long hold no spans any more."""


class Joining:
    """Takes volunteers in and lets them go."""

    def __init__(
        self,
        store: Store,
        swarm: Swarm,
        routing: Routing,
        forwarder: Forwarder,
        settings: Settings,
        standings: Standings,
    ) -> None:
        self._store = store
        self._swarm = swarm
        self._routing = routing
        self._forwarder = forwarder
        self._settings = settings
        self._standings = standings

    async def offer(self, peer: Peer, offer: Offer) -> None:
        """Give a volunteer its span.

        Raises:
            JoinRefused: it cannot serve here. Unavailable: the database is away.
            UnexpectedMessage: it has a span already.
        """
        if self._swarm.get(peer.id) is not None:
            raise UnexpectedMessage("a volunteer offers once a connection: connect again to offer anew")
        check_printable(offer.device, *(model.facts.family for model in offer.models))
        await self._check_facts(peer, offer)
        score = await self._standings.load(peer.id, time.time())
        record = self._record(peer, offer)
        await self._store.save_volunteer(record)

        def decide(others: list[HeldSpan]) -> Placement:
            held = map(_held_by, others)
            return place(offer.models, offer.blocks_per_second, held, self._swarm.priority)

        now = time.time()
        placement = await self._store.assign_span(
            peer.id, decide, seen_since=now - STALE_SECONDS, without=self._swarm.resting, now=now
        )
        if peer.ending is not None:
            return  # it was taken out meanwhile, and must not come back
        self._swarm.put(
            Volunteer(
                peer,
                offer.device,
                offer.blocks_per_second,
                placement,
                score=score,
                memory=offer.memory,
                joined_at=record.joined_at,
                settled_at=now,
            )
        )
        span = placement.span
        peer.tell(Assignment(model=placement.model, start=span.start, end=span.end, head=placement.head))

    def release(self, peer: Peer) -> None:
        """A volunteer goes on elsewhere: what was asked of it here is for its next replica to ask again."""
        volunteer = self._swarm.get(peer.id)
        if volunteer is not None:
            self._forget_probe(volunteer)

    def adopt(self, peer: Peer, now: float) -> None:
        """Go on with a volunteer that has come from another replica as it was there. `now`: loop time."""
        volunteer = self._swarm.get(peer.id)
        if volunteer is not None:
            volunteer.peer, volunteer.is_new_here = peer, True
            volunteer.probed = now
            self._swarm.refresh(volunteer)
            self._swarm.touch()

    async def save_adopted(self) -> None:
        """Write down the volunteers that have moved here, and keep what was seen of them.

        Raises:
            Unavailable: the database is away.
        """
        adopted = [one for one in self._swarm.volunteers_here() if one.is_new_here]
        if not adopted:
            return
        await self._store.save_volunteers([self._row(one) for one in adopted])
        await self._standings.follow([one.peer.id for one in adopted], time.time())
        for volunteer in adopted:
            volunteer.is_new_here = False

    async def rebalance(self, facts: ModelFacts) -> Move | None:
        """Move one volunteer of this replica to other blocks, if the model gains by it. The move, if any.

        Raises:
            Unavailable: the database is away.
        """
        now = time.time()
        together = await self._store.held_together(
            facts.name, seen_since=now - STALE_SECONDS, without=self._swarm.resting
        )
        if is_strong_enough(together, facts):
            return None

        def decide(residents: list[Resident], last: list[LastMove]) -> Move | None:
            return next_move(residents, facts, last, now)

        move = await self._store.move_span(
            facts.name, self._resident, decide, seen_since=now - STALE_SECONDS, now=now
        )
        volunteer = None if move is None else self._swarm.get(move.peer)
        if move is None or volunteer is None or not self._may_be_moved(volunteer):
            return None  # who leaves meanwhile takes its row along, or has it written anew where it goes
        place = volunteer.placement = replace(volunteer.placement, span=move.after)
        volunteer.settled_at = now
        self._change(volunteer, "loading")
        span = place.span
        volunteer.peer.tell(Assignment(model=place.model, start=span.start, end=span.end, head=place.head))
        return move

    def _resident(self, record: VolunteerRecord) -> Resident | None:
        """A row as something that may be moved; only those can be that are connected here and serve."""
        held = _held(record)
        if held is None or self._swarm.takes_no_sessions(record.peer):
            return None
        known = self._swarm.get(record.peer)
        may_be_moved = (
            known is not None and self._may_be_moved(known) and record.replica == self._settings.replica
        )
        return Resident(
            peer=record.peer,
            span=held.span,
            blocks_per_second=held.blocks_per_second,
            room=record.room if may_be_moved else None,
            cached=record.cached,
            settled_at=record.settled_at,
            is_serving=record.state == "serving",
        )

    @staticmethod
    def _may_be_moved(volunteer: Volunteer) -> bool:
        """Whether this replica may: only the one that a volunteer is connected to can tell it in time."""
        return isinstance(volunteer.peer, Peer) and volunteer.state == "serving"

    def progress(self, peer: Peer, message: Progress) -> None:
        volunteer = self._expect(peer, "loading", "probing")
        volunteer.done, volunteer.total = message.done, message.total
        self._swarm.touch()

    async def loaded(self, peer: Peer, message: Loaded) -> None:
        """The span is in memory: ask for the proof."""
        volunteer = self._expect(peer, "loading")
        placement = Placement(message.model, Span(message.start, message.end), message.head)
        if placement != volunteer.placement:
            raise JoinRefused("another span was loaded than the one assigned: update the volunteer")
        check_printable(message.dtype, message.quantization)
        volunteer.dtype, volunteer.quantization = message.dtype, message.quantization
        probe = self._routing.probe(peer.id, placement.model, placement.span)
        self._forget_probe(volunteer)  # the last one before a move may be under way
        volunteer.probe = SessionId(bytes.fromhex(probe.session))
        self._forwarder.expect_probe(volunteer.probe)
        await self._enter(volunteer, "probing")
        peer.tell(probe)

    async def ready(self, peer: Peer, message: Ready) -> None:
        """The volunteer says that its probe came back: believed if it did so through this relay."""
        volunteer = self._expect(peer, "probing")
        session = SessionId(bytes.fromhex(message.session))
        if session != volunteer.probe or not self._forwarder.probe_passed(session):
            raise JoinRefused("no answer to the probe has passed this relay")
        volunteer.probed = math.inf
        await self._enter(volunteer, "serving")
        volunteer.is_in_doubt = False
        self._swarm.refresh(volunteer)
        self._forget_probe(volunteer)
        peer.tell(Serving())

    def heartbeat(self, peer: Peer, message: Heartbeat) -> None:
        """Note load, speed, and whether the owner needs the machine: in memory, since it may change often."""
        volunteer = self._swarm.get(peer.id)
        if volunteer is None:
            return
        is_planned_with = volunteer.sessions + volunteer.granted, volunteer.planned_rtt
        volunteer.sessions, volunteer.granted = message.sessions, 0
        is_shown_otherwise = _note_state(volunteer, message)
        if is_shown_otherwise:
            self._swarm.touch()
        if is_shown_otherwise or is_planned_with != (volunteer.sessions, peer.rtt):
            self._swarm.refresh(volunteer)

    def draining(self, peer: Peer) -> bool:
        """No new routes from now on. Whether there is a row to change: `save_draining` does that."""
        volunteer = self._swarm.get(peer.id)
        if volunteer is None:
            return False
        self._change(volunteer, "draining")
        return True

    async def save_draining(self, peer: Peer) -> None:
        """Free the span of a volunteer that leaves; not in `draining`, since its sessions need not wait.

        Raises:
            Unavailable: the database is away.
        """
        await self._store.set_volunteer_state(peer.id, "draining")

    def drop(self, peer: Peer) -> None:
        """Take a volunteer out of the swarm at once; its row is for `remove_row`."""
        volunteer = self._swarm.get(peer.id)
        if volunteer is not None and volunteer.peer is peer:
            self._swarm.drop(peer.id)
            self._forget_probe(volunteer)

    async def remove_row(self, peer: Peer) -> None:
        """Free the span of a volunteer that is gone; also of one whose offer was refused.

        Raises:
            Unavailable: the database is away.
        """
        if peer.role == "volunteer":
            await self._store.remove_volunteer(peer.id, self._settings.replica)

    async def remove_rows_left(self, hub: Hub) -> None:
        """Free the spans of volunteers that are connected nowhere: the database was away, or a move failed.

        Raises:
            Unavailable: the database is away.
        """
        rows = await self._store.others_here(than=hub.everybody())
        gone = [peer for peer in rows if hub.find(peer) is None]  # some have come meanwhile
        if gone:
            await self._store.remove_volunteers(gone)
        for volunteer in map(self._swarm.get, gone):
            if volunteer is not None:
                volunteer.is_new_here = True  # back already: its row is written anew

    async def _check_facts(self, peer: Peer, offer: Offer) -> None:
        """Record what is new about the models offered, and refuse what contradicts earlier reports."""
        offered = [model.facts for model in offer.models if model.facts.name in self._swarm.priority]
        await self._read_models()
        new = [facts for facts in offered if self._known_facts(facts.name) != facts]
        for facts in new:
            await self._store.record_facts(facts, peer.id)
        if new:
            await self._read_models()
        for facts in new:
            known = self._known_facts(facts.name)
            if known is not None and known != facts:
                raise JoinRefused(
                    f"the facts of {facts.name!r} differ from those that the swarm knows of this digest: "
                    f"{_differences(known, facts)}; update the volunteer"
                )

    async def _read_models(self) -> None:
        records = await self._store.list_models()
        self._swarm.set_models((record.name, record.facts) for record in records)

    def _known_facts(self, model: str) -> ModelFacts | None:
        return self._swarm.facts(model) if model in self._swarm.priority else None

    async def _enter(self, volunteer: Volunteer, state: VolunteerState) -> None:
        await self._store.set_volunteer_state(
            volunteer.peer.id, state, dtype=volunteer.dtype or None, quantization=volunteer.quantization
        )
        self._change(volunteer, state)

    def _change(self, volunteer: Volunteer, state: VolunteerState) -> None:
        volunteer.state = state
        volunteer.done = volunteer.total = 0
        self._swarm.refresh(volunteer)
        self._swarm.touch()

    def _forget_probe(self, volunteer: Volunteer) -> None:
        if volunteer.probe is not None:
            self._forwarder.forget_probe(volunteer.probe)
            volunteer.probe = None

    def _record(self, peer: Peer, offer: Offer) -> VolunteerRecord:
        now = time.time()
        return VolunteerRecord(
            peer=peer.id,
            token_id=peer.token_id,
            name=peer.name,
            device=offer.device,
            memory=offer.memory,
            replica=self._settings.replica,
            state="connected",
            joined_at=now,
            blocks_per_second=offer.blocks_per_second,
        )

    def _row(self, volunteer: Volunteer) -> VolunteerRecord:
        peer, place = volunteer.peer, volunteer.placement
        if not isinstance(peer, Peer):
            raise TypeError(f"{peer.name} is not connected here")
        return VolunteerRecord(
            peer=peer.id,
            token_id=peer.token_id,
            name=peer.name,
            device=volunteer.device,
            memory=volunteer.memory,
            replica=self._settings.replica,
            state=volunteer.state,
            joined_at=volunteer.joined_at,
            model=place.model,
            start=place.span.start,
            end=place.span.end,
            head=place.head,
            dtype=volunteer.dtype or None,
            quantization=volunteer.quantization,
            blocks_per_second=volunteer.blocks_per_second,
            room=place.room,
            cached=place.cached,
            settled_at=volunteer.settled_at,
        )

    def _expect(self, peer: Peer, *states: VolunteerState) -> Volunteer:
        volunteer = self._swarm.get(peer.id)
        if volunteer is None or volunteer.state not in states:
            found = "no offer made" if volunteer is None else volunteer.state
            raise UnexpectedMessage(f"this message belongs to {' or '.join(states)}, not to {found}")
        return volunteer


def _note_state(volunteer: Volunteer, message: Heartbeat) -> bool:
    """Note whether it is paused, and how fast it is. Whether either is new."""
    was_paused, volunteer.is_paused = volunteer.is_paused, message.paused is True
    speed = message.blocks_per_second
    is_other_speed = isinstance(speed, float) and speed != volunteer.blocks_per_second
    if isinstance(speed, float) and is_other_speed:
        volunteer.blocks_per_second, volunteer.has_new_speed = speed, True
    return is_other_speed or was_paused is not volunteer.is_paused


def _held_by(other: HeldSpan) -> Held:
    span = Span(other.start, other.end)
    return Held(other.model, span, other.head, other.blocks_per_second, other.volunteers)


def _held(record: VolunteerRecord) -> Held | None:
    """What a row says its volunteer holds; None before it was given a span, or when it leaves."""
    if record.model is None or record.start is None or record.end is None or record.state == "draining":
        return None
    return Held(record.model, Span(record.start, record.end), record.head, record.blocks_per_second)


def _differences(known: ModelFacts, offered: ModelFacts) -> str:
    before, now = msgspec.structs.asdict(known), msgspec.structs.asdict(offered)
    return ", ".join(
        f"{name} is {now[name]}, not {before[name]}" for name in before if now[name] != before[name]
    )
