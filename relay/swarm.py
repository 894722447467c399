"""The swarm as this replica sees it: who serves what, and what is missing.

Owned by the event loop's thread; `joining` writes it, planner, pages and REST read it. Durable
facts are in SQL (relay/store.py); this is the copy that routes are planned from, so that planning
needs no query. Other replicas' volunteers are in it too (relay/replicas.py). Does not know sockets.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass

from msgspec import UNSET

from relay.candidates import Candidates
from relay.elsewhere import RemotePeer
from relay.peer import Peer
from relay.placement import Placement
from relay.planner import RETRY_SECONDS, describe_gaps, gaps_in
from relay.prices import Holder
from relay.rounds import Round
from relay.sizes import BYTES_NF4, bytes_of_blocks, describe_need
from schema.errors import ModelUnavailable, NotFound
from schema.ids import PeerId, SessionId, Span
from schema.messages import ModelFacts
from schema.swarm import MissingBlocks, ModelStatus, SwarmStatus, VolunteerState, VolunteerStatus


@dataclass(slots=True)
class Volunteer:
    """A connected volunteer, from its offer on; of this replica, or of another one (`RemotePeer`)."""

    peer: Peer | RemotePeer
    device: str
    blocks_per_second: float
    """As it has told last; 0 when it was not measured."""
    placement: Placement
    state: VolunteerState = "loading"
    """How far it has come; `shown_state` is what it does now."""
    dtype: str = ""
    quantization: str = "none"
    probe: SessionId | None = None
    """The session of the probe that it was sent and has not passed."""
    probed: float = math.inf
    """Loop time of its last probe, once it serves (relay/probing.py)."""
    is_in_doubt: bool = False
    """Whether it has served, and then not passed a probe in time."""
    done: int = 0
    total: int = 0
    sessions: int = 0
    """As it has told last."""
    granted: int = 0
    """Routes over it since then."""
    is_paused: bool = False
    """As its heartbeats say: its owner needs the machine."""
    is_quarantined: bool = False
    """Whether an operator keeps it out of routes; written by `Swarm.put` and `Swarm.set_quarantined`."""
    score: float = 1.0
    """As relay/standings.py has computed it last."""
    has_new_speed: bool = False
    """Whether `blocks_per_second` is another than in its row."""
    memory: int = 0
    """Bytes."""
    joined_at: float = 0.0
    """Unix time."""
    settled_at: float = 0.0
    """Unix time at which it was given its span."""
    is_new_here: bool = False
    """Whether its row names another replica: it has moved here."""
    planned_rtt: float | None = None
    """How far it was when routes were planned with it anew; written by `Swarm.refresh`."""
    renewed: float = 0.0
    """Of another replica's volunteer: loop time of the last news of it, on the bus or in SQL."""

    @property
    def shown_state(self) -> VolunteerState:
        if self.is_quarantined:
            return "quarantined"
        if self.state != "serving":
            return self.state
        return "paused" if self.is_paused else "probing" if self.is_in_doubt else "serving"

    @property
    def takes_no_sessions(self) -> bool:
        """Whether it takes no new ones for a while: paused, in doubt, or in quarantine."""
        return self.is_paused or self.is_in_doubt or self.is_quarantined

    @property
    def holder(self) -> Holder:
        """What a route is planned with."""
        return Holder(
            peer=self.peer.id,
            span=self.placement.span,
            sessions=self.sessions + self.granted,
            blocks_per_second=self.blocks_per_second,
            rtt=self.peer.rtt,
            score=self.score,
        )


class Swarm:
    """Models and volunteers, and a bell for those who show them."""

    def __init__(self, models: Iterable[tuple[str, ModelFacts | None]]) -> None:
        self._models: dict[str, ModelFacts | None] = dict(models)
        self._volunteers: dict[PeerId, Volunteer] = {}
        self._candidates: dict[str, Candidates] = {}
        """Of each model, those of its volunteers that serve."""
        self._heads: dict[str, dict[PeerId, Volunteer]] = {}
        """Of each model, those of them that hold its head."""
        self._here: dict[PeerId, Volunteer] = {}
        """Those that are connected to this replica."""
        self._round = Round[PeerId]()
        """Through them."""
        self._quarantined: Set[PeerId] = frozenset()
        """Those that operators keep out of routes, connected or not."""
        self._resting: set[PeerId] = set()
        """Those of which `takes_no_sessions` says so."""
        self._version = 0
        self._bell = asyncio.Event()
        self._on_departure: Callable[[Volunteer], None] = lambda volunteer: None

    def watch_departures(self, watch: Callable[[Volunteer], None]) -> None:
        """Have somebody (relay/history.py) told of whoever leaves, as it was last."""
        self._on_departure = watch

    # ---- writing (relay/joining.py) ----

    def set_models(self, models: Iterable[tuple[str, ModelFacts | None]]) -> None:
        updated = dict(models)
        if updated != self._models:
            self._models = updated
            self.touch()

    def put(self, volunteer: Volunteer) -> None:
        earlier = self._volunteers.get(volunteer.peer.id)
        if earlier is not None:
            self._take_out(earlier)
        self._volunteers[volunteer.peer.id] = volunteer
        volunteer.is_quarantined = volunteer.peer.id in self._quarantined
        self.refresh(volunteer)
        self.touch()

    def set_quarantined(self, peers: Set[PeerId]) -> None:
        """Keep these out of routes, and no others."""
        changed = self._quarantined ^ peers
        self._quarantined = frozenset(peers)
        for peer in changed:
            volunteer = self._volunteers.get(peer)
            if volunteer is not None:
                volunteer.is_quarantined = peer in peers
                self.refresh(volunteer)
                self.touch()

    def drop(self, peer: PeerId) -> Volunteer | None:
        volunteer = self._volunteers.pop(peer, None)
        if volunteer is not None:
            self._is_elsewhere(peer)
            self._resting.discard(peer)
            self._take_out(volunteer)
            self._on_departure(volunteer)
            self.touch()
        return volunteer

    def refresh(self, volunteer: Volunteer) -> None:
        """Plan routes from now on with what is new about a volunteer, if it is still there."""
        peer = volunteer.peer.id
        if self._volunteers.get(peer) is not volunteer:
            return
        place = volunteer.placement
        volunteer.planned_rtt = volunteer.peer.rtt
        if isinstance(volunteer.peer, Peer):
            self._here[peer] = volunteer
            self._round.add(peer)
        else:
            self._is_elsewhere(peer)
        if volunteer.takes_no_sessions:
            self._resting.add(peer)
        else:
            self._resting.discard(peer)
        if volunteer.shown_state != "serving":
            self._take_out(volunteer)
            return
        self.candidates(place.model).put(volunteer.holder)
        if place.head:
            self._heads.setdefault(place.model, {})[peer] = volunteer

    def _is_elsewhere(self, peer: PeerId) -> None:
        self._here.pop(peer, None)
        self._round.discard(peer)

    def _take_out(self, volunteer: Volunteer) -> None:
        """Plan nothing more with it."""
        model, peer = volunteer.placement.model, volunteer.peer.id
        self.candidates(model).drop(peer)
        self._heads.get(model, {}).pop(peer, None)

    def count_grant(self, peers: Iterable[PeerId]) -> None:
        """A route over these was granted: their heartbeats will tell, but others ask before."""
        for peer in peers:
            volunteer = self._volunteers.get(peer)
            if volunteer is not None:
                volunteer.granted += 1
                self.refresh(volunteer)

    def touch(self) -> None:
        """Ring the bell: something that people see has changed."""
        self._version += 1
        self._bell.set()
        self._bell = asyncio.Event()

    async def wait_for_change(self, seen: int) -> int:
        """Return the present version as soon as it is another than the one seen."""
        while self._version == seen:
            await self._bell.wait()
        return self._version

    # ---- reading ----

    @property
    def version(self) -> int:
        """Counts the changes."""
        return self._version

    def __len__(self) -> int:
        return len(self._volunteers)

    def get(self, peer: PeerId) -> Volunteer | None:
        return self._volunteers.get(peer)

    def takes_no_sessions(self, peer: PeerId) -> bool:
        """Whether a connected volunteer takes no new ones for a while: paused, in doubt, or in quarantine."""
        return peer in self._resting

    @property
    def resting(self) -> Collection[PeerId]:
        """Those that take no sessions for a while."""
        return self._resting

    def volunteers(self) -> list[Volunteer]:
        return list(self._volunteers.values())

    def volunteers_here(self) -> list[Volunteer]:
        """Those that are connected to this replica."""
        return list(self._here.values())

    def get_here(self, peer: PeerId) -> Volunteer | None:
        """One of them."""
        return self._here.get(peer)

    def next_here(self, count: int) -> Iterator[Volunteer]:
        """The next `count` of them: whoever asks again and again hears of them all in turn."""
        return (self._here[peer] for peer in self._round.take(count))

    @property
    def priority(self) -> list[str]:
        """The names of the models that this swarm serves, the most wanted first."""
        return list(self._models)

    def facts(self, model: str) -> ModelFacts | None:
        """What is known of a model; None until a volunteer has reported it.

        Raises:
            NotFound: this swarm does not serve a model of that name.
        """
        if model not in self._models:
            served = ", ".join(self._models) or "none"
            raise NotFound(f"this swarm has no model {model!r}; it serves: {served}")
        return self._models[model]

    def holders(self, model: str) -> list[Holder]:
        """The volunteers that serve blocks of a model now."""
        return self.candidates(model).holders()

    def candidates(self, model: str) -> Candidates:
        """The same as routes are planned from."""
        return self._candidates.setdefault(model, Candidates())

    def heads(self, model: str) -> list[Volunteer]:
        """The volunteers that can drive a reply of a model now, the least loaded first."""
        return sorted(self._heads.get(model, {}).values(), key=lambda volunteer: volunteer.sessions)

    def serving_count(self) -> int:
        """The volunteers that serve blocks of any model now."""
        return sum(map(len, self._candidates.values()))

    def head_count(self, model: str) -> int:
        """How many there are of them."""
        return len(self._heads.get(model, {}))

    def require_heads(self, model: str) -> list[Volunteer]:
        """The volunteers that can drive the next reply, at least one, the least loaded first.

        Raises:
            NotFound: no such model here.
            ModelUnavailable: it is incomplete now; says which blocks are missing.
        """
        reason = self.why_incomplete(model)
        if reason is not None:
            raise ModelUnavailable(f"{model!r} cannot answer now: {reason}", retry_after=RETRY_SECONDS)
        return self.heads(model)

    def why_incomplete(self, model: str) -> str | None:
        """In plain words why a model cannot answer now; None when it can."""
        facts = self.facts(model)
        if facts is None:
            return "no volunteer has joined for it yet"
        gaps = gaps_in(self.candidates(model).held(), Span(0, facts.blocks))
        if gaps:
            return f"{describe_gaps(gaps)} no volunteer; {describe_need(facts, gaps)}"
        if not self.heads(model):
            return "no volunteer holds its head (tokenizer, embedding and output)"
        return None

    def status(self) -> SwarmStatus:
        models = [self._model_status(name) for name in self._models]
        volunteers = [_volunteer_status(volunteer) for volunteer in self._volunteers.values()]
        return SwarmStatus(models=models, volunteers=volunteers)

    def model_status(self, model: str) -> ModelStatus:
        """One model. Raises NotFound: this swarm does not serve it."""
        self.facts(model)
        return self._model_status(model)

    def volunteer_status(self, peer: PeerId) -> VolunteerStatus | None:
        """One volunteer as it is shown; None when it is not connected here."""
        volunteer = self._volunteers.get(peer)
        return None if volunteer is None else _volunteer_status(volunteer)

    def _model_status(self, model: str) -> ModelStatus:
        facts = self._models[model]
        reason = self.why_incomplete(model)
        if facts is None:
            return ModelStatus(id=model, reason=reason)
        gaps = gaps_in(self.candidates(model).held(), Span(0, facts.blocks))
        return ModelStatus(
            id=model,
            blocks=facts.blocks,
            context=facts.context,
            complete=reason is None,
            missing=[MissingBlocks(gap.start, gap.end) for gap in gaps],
            missing_bytes=bytes_of_blocks(facts, gaps) or UNSET,
            missing_bytes_nf4=bytes_of_blocks(facts, gaps, BYTES_NF4) or UNSET,
            heads=len(self.heads(model)),
            reason=reason,
        )


def _volunteer_status(volunteer: Volunteer) -> VolunteerStatus:
    place = volunteer.placement
    return VolunteerStatus(
        id=volunteer.peer.id,
        name=volunteer.peer.name,
        state=volunteer.shown_state,
        device=volunteer.device,
        model=place.model,
        start=place.span.start,
        end=place.span.end,
        head=place.head,
        dtype=volunteer.dtype or None,
        done=volunteer.done,
        total=volunteer.total,
        sessions=volunteer.sessions,
        blocks_per_second=volunteer.blocks_per_second or UNSET,
        score=round(volunteer.score, 3),
    )
