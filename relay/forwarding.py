"""Putting frames on the next hop's queue, and refusing those that may not go there.

Reads a frame's header and route; never opens a payload, except that of a FAILURE, for the code in it.
Counts what it sees of volunteers in memory (relay/outcomes.py): two dictionaries' numbers for every step, and
a little more for one in `SAMPLED_STEPS`.
Verified routes are kept in a bounded cache, which is also how a driver is told at once that a hop
of its session is gone. The cache is soft state: without it, the next frame verifies again.
Does not know volunteers, models or SQL.
"""

import logging
import time
from dataclasses import dataclass

from relay import blame
from relay.elsewhere import RemotePeer
from relay.hub import Hub
from relay.lateness import SAMPLED_STEPS, StepTimes
from relay.metrics import Metrics
from relay.outcomes import Outcomes
from relay.peer import Peer
from schema.awake import StayingAwake
from schema.errors import (
    FrameLost,
    FrameRefused,
    MalformedFrame,
    PeerGone,
    ProtocolViolation,
    QueueFull,
    RouteExpired,
    WrongHop,
)
from schema.frames import (
    HEADER_BYTES,
    KNOWN_TYPES,
    Frame,
    FrameType,
    Header,
    encode_frame,
    parse_header,
    peek_header,
)
from schema.ids import PeerId, SessionId
from schema.messages import Failure, HopLost, decode_failure, encode_failure
from schema.outbox import URGENCY_OF_FRAME, Urgency
from schema.protocol import SkippedFrame
from schema.routes import Route, verify_route

MAX_CACHED_ROUTES = 65_536
MAX_CLOSED_ROUTES = 4096
"""Routes of sessions that are over, whose hops may still send what they were computing."""
UNREAD_SECONDS = 1.0
"""For so long a volunteer has taken nothing that is blamed for its full queue."""
MAX_WARNED_SESSIONS = 1024
"""Sessions that are remembered because the log has told of a stopped step of theirs."""

log = logging.getLogger(__name__)

_SESSION = slice(8, 24)
# As plain integers: comparing with an enum's member costs more than the rest of the line, every frame.
_STEP, _PROBE = int(FrameType.STEP), int(FrameType.PROBE)
_CLOSE, _FAILURE, _TRACE = int(FrameType.CLOSE), int(FrameType.FAILURE), int(FrameType.TRACE)
_SAMPLED = SAMPLED_STEPS - 1


@dataclass(slots=True)
class VerifiedRoute:
    """A route whose MAC was right, unrolled for forwarding."""

    session: SessionId
    stops: tuple[PeerId, ...]
    """origin, hops..., origin: the sender to stop `i` is `stops[i]`, its receiver `stops[i + 1]`."""
    expires: int
    lengths: tuple[int, ...] = ()
    """How many blocks each hop runs."""
    epoch: int = 0
    """The highest seen of the session's frames; hops drop the steps of lower ones."""

    @classmethod
    def of(cls, route: Route, session: SessionId) -> "VerifiedRoute":
        stops = (route.origin, *(hop.peer for hop in route.hops), route.origin)
        return cls(session, stops, route.expires, tuple(len(hop.span) for hop in route.hops))

    @property
    def origin(self) -> PeerId:
        return self.stops[0]

    @property
    def hops(self) -> tuple[PeerId, ...]:
        return self.stops[1:-1]


class Forwarder:
    """Forwards frames between the peers of a hub. Owned by the event loop's thread."""

    def __init__(
        self,
        hub: Hub,
        metrics: Metrics,
        secret: bytes,
        outcomes: Outcomes | None = None,
        awake: StayingAwake | None = None,
    ) -> None:
        """`awake`: None where the relay sleeps between steps."""
        self._hub = hub
        self._metrics = metrics
        self._secret = secret
        self._outcomes = outcomes or Outcomes()
        self._answered = self._outcomes.answered
        self._computed = self._outcomes.computed
        self._awake = awake
        self._times = StepTimes()
        self._routes: dict[bytes, VerifiedRoute] = {}
        self._passing: dict[PeerId, dict[bytes, None]] = {}
        """The keys of the routes on which a peer is: thousands may leave together."""
        self._closed: dict[bytes, None] = {}
        """The routes whose sessions ended last, the oldest first."""
        self._probes: dict[SessionId, bool] = {}
        """The probes that are waited for, and whether their answer has passed."""
        self._warned: dict[SessionId, None] = {}
        """The sessions of which the log has told, the oldest first."""

    def forward(self, sender: Peer, message: bytes) -> None:
        """Pass one received binary message on.

        Raises:
            ProtocolViolation: the sender broke the protocol; its connection should be ended.
        """
        header = sender.connection.receive_frame(message)
        if isinstance(header, SkippedFrame):
            self._metrics.skipped_frames += 1
            return
        try:
            route = self._verified(header, message, sender.id)
            if header.hop > len(route.stops) - 2:
                raise MalformedFrame(
                    f"a frame to stop {header.hop} of a route with {len(route.stops) - 2} hops"
                )
            if header.type == _CLOSE:
                self._forward_close(sender, route, header, message)
            elif header.type == _FAILURE:
                self._forward_failure(sender, route, header, message)
            elif header.type == _TRACE:
                self._forward_trace(sender, route, header, message)
            else:
                self._forward_step(sender, route, header, message)
        except FrameRefused as refusal:
            self._refuse(logging.DEBUG, sender.id, header, refusal)
            seen = blame.of_refusal(refusal)
            if seen is not None and sender.role == "volunteer":
                self._outcomes.note(sender.id, seen)

    def arrive(self, receiver_id: PeerId, message: bytes) -> None:
        """Hand over a frame that another replica has checked and sent here for one of this one's peers.

        Raises:
            MalformedFrame, RouteForged: it is no frame of this relay.
        """
        header = parse_header(message)
        if header.type not in KNOWN_TYPES:
            self._metrics.skipped_frames += 1
            return
        route = self._verified(header, message)
        receiver = self._hub.find(receiver_id)
        if header.type in (_CLOSE, _FAILURE):
            self._put_control(receiver, header.type, message)
            if header.type == _CLOSE:
                self._end_session(route, header, message)
        elif header.type == _TRACE:
            self._put_trace(receiver, message)
        elif receiver is None:
            self._fail(receiver_id, route, header, message, PeerGone("the next stop has just left"))
        elif not receiver.enqueue(message, URGENCY_OF_FRAME[header.type]):
            self._fail_unread(receiver_id, receiver, route, header, message)
        else:
            if self._is_sampled(header):
                self._begin_sample(receiver, route, header)
            self._count(header, message)

    def frame_lost(self, message: bytes, error: FrameRefused | None = None) -> None:
        """Tell the driver of a frame that has not reached its stop. `message`: header and route at least."""
        header = peek_header(message)
        if header.type in (_CLOSE, _FAILURE, _TRACE):
            return
        route = self._verified(header, message)
        lost = error or FrameLost("a frame was lost between two replicas of the relay: try again")
        self._fail(route.stops[header.hop], route, header, message, lost)

    def expect_probe(self, session: SessionId) -> None:
        """Watch for the answer to a probe, until `forget_probe`."""
        self._probes[session] = False

    def probe_passed(self, session: SessionId) -> bool:
        """Whether the answer to an expected probe went back through here."""
        return self._probes.get(session, False)

    def forget_probe(self, session: SessionId) -> None:
        self._probes.pop(session, None)

    def peer_left(self, peer: PeerId) -> int:
        """Tell the drivers here whose routes pass this peer; close the sessions that it drove, on hops here.

        Wherever the peer was: each replica does this for its own. How many sessions of others passed it.
        """
        self._times.peer_left(peer)
        broken = 0
        for key in self._passing.pop(peer, ()):
            route = self._routes[key]
            if peer == route.origin:
                self._forget_route(key)
                self._remember_closed(key)
                self._close_for(route, raw_route=key[len(route.session) :])
                continue
            broken += 1
            # The route stays: its driver, which closes it on the other hops, may die before it does.
            driver = self._hub.get(route.origin)
            if driver is not None:
                driver.tell(HopLost(session=route.session.hex(), peer=peer))
        return broken

    def peer_moved(self, peer: PeerId) -> None:
        """A peer goes on over another replica, and its answers with it."""
        self._times.peer_moved(peer)

    def _close_for(self, route: VerifiedRoute, raw_route: bytes) -> None:
        """Free a session on its hops in place of its driver, which is gone."""
        message = encode_frame(Frame(FrameType.CLOSE, 0, route.session, 0, 0, raw_route, b""))
        for hop in set(route.hops) - {route.origin}:
            self._put_control(self._hub.get(hop), _CLOSE, message)

    def _remember_closed(self, key: bytes) -> None:
        if len(self._closed) >= MAX_CLOSED_ROUTES:
            del self._closed[next(iter(self._closed))]
        self._closed[key] = None

    def _verified(self, header: Header, message: bytes, sender: PeerId | None = None) -> VerifiedRoute:
        """A frame's route. `sender`: None where another replica has seen that it is the right one."""
        key = _cache_key(header, message)
        route = self._routes.get(key)
        if route is None:
            raw = message[HEADER_BYTES : header.payload_start]
            route = VerifiedRoute.of(verify_route(raw, header.session, self._secret), header.session)
            if key in self._closed:
                if header.type in (_FAILURE, _TRACE) or (sender or route.stops[header.hop]) != route.origin:
                    return route  # too late: it does not bring the session back
                del self._closed[key]
            if set(route.stops) == {route.origin}:
                return route  # a probe's, which nobody closes, and of which nobody has to be told
            self._keep_route(key, route)
        route.epoch = max(route.epoch, header.epoch)
        return route

    def _keep_route(self, key: bytes, route: VerifiedRoute) -> None:
        if len(self._routes) >= MAX_CACHED_ROUTES:
            self._forget_route(next(iter(self._routes)))
        self._routes[key] = route
        for peer in set(route.stops):
            self._passing.setdefault(peer, {})[key] = None

    def _forget_route(self, key: bytes) -> None:
        route = self._routes.pop(key, None)
        if route is None:
            return
        for peer in set(route.stops):
            keys = self._passing.get(peer, {})  # nothing of one that has left
            keys.pop(key, None)
            if not keys:
                self._passing.pop(peer, None)

    def _forward_step(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        stops = route.stops
        if stops[header.hop] != sender.id:
            raise WrongHop(f"{sender.id} is not the stop before {header.hop}")
        is_sampled = self._is_sampled(header)
        if is_sampled and header.hop:
            self._end_sample(sender, header)
        receiver = self._hub.find(stops[header.hop + 1])
        if route.expires <= time.time():
            expired = RouteExpired("the route has expired: ask for a new one")
            self._fail(sender.id, route, header, message, expired)
        elif receiver is None:
            gone = PeerGone("the next stop on the route is not connected")
            self._fail(sender.id, route, header, message, gone)
        elif not receiver.enqueue(message, URGENCY_OF_FRAME[header.type]):
            self._fail_unread(sender.id, receiver, route, header, message)
        else:
            if header.hop and sender.id != stops[0]:
                self._answered[sender.id] += 1
                self._computed[sender.id] += route.lengths[header.hop - 1]
            if is_sampled:
                self._begin_sample(receiver, route, header)
            if header.type == _PROBE and header.hop == len(stops) - 2 and route.session in self._probes:
                self._probes[route.session] = True
            self._count(header, message)

    def _count(self, header: Header, message: bytes) -> None:
        """A frame of a step went on its way."""
        self._metrics.count_forwarded(header.type, len(message))
        if self._awake is not None and header.type == _STEP:
            self._awake.step_passed()

    def _is_sampled(self, header: Header) -> bool:
        return header.step & _SAMPLED == self._times.drawn and header.type == _STEP

    def _begin_sample(self, receiver: Peer | RemotePeer, route: VerifiedRoute, header: Header) -> None:
        """Time a step from here to the hop's answer, where that comes through here."""
        if not isinstance(receiver, Peer) or header.epoch < route.epoch:
            return  # its own replica does; and a hop owes no answer to what its driver has given up
        stops, receives = route.stops, header.hop + 1
        hop = stops[receives]
        if hop != route.origin and hop != stops[receives + 1]:
            place = header.session, header.hop
            self._times.sent(hop, place, header.step, header.epoch, time.monotonic())

    def _end_sample(self, sender: Peer, header: Header) -> None:
        place = header.session, header.hop - 1
        late = self._times.answered(place, header.step, time.monotonic())
        if late is not None:
            self._outcomes.note(sender.id, "late", late)

    def _forward_close(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        if sender.id != route.origin:
            raise WrongHop("only the driver closes its session")
        self._end_session(route, header, message)
        for hop in set(route.hops) - {sender.id}:
            self._put_control(self._hub.find(hop), _CLOSE, message)

    def _end_session(self, route: VerifiedRoute, header: Header, message: bytes) -> None:
        """Forget a session that its driver has closed; a hop here may have owed it an answer."""
        key = _cache_key(header, message)
        self._forget_route(key)
        self._remember_closed(key)
        for number in range(len(route.hops)):
            silent = self._times.closed((header.session, number), header.epoch, time.monotonic())
            if silent is not None:
                self._outcomes.note(silent[0], "unanswered", silent[1])

    def _forward_failure(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        _require_hop(sender, route, header)
        self._note_failure(route, header, message)
        driver = self._hub.find(route.origin)
        if driver is None:
            raise PeerGone("the driver is not connected")
        self._put_control(driver, _FAILURE, message)

    def _forward_trace(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        _require_hop(sender, route, header)
        self._put_trace(self._hub.find(route.origin), message)

    def _put_trace(self, driver: Peer | RemotePeer | None, message: bytes) -> None:
        """Queue a TRACE frame, which no session misses where there is no room for it."""
        if driver is None:
            return
        if driver.enqueue(message, URGENCY_OF_FRAME[_TRACE]):
            self._metrics.count_forwarded(_TRACE, len(message))
        else:
            self._metrics.refuse(QueueFull.code)

    def _note_failure(self, route: VerifiedRoute, header: Header, message: bytes) -> None:
        """Count a hop's failure, against it or whoever else may have caused it."""
        self._times.forget((header.session, header.hop))
        try:
            code = decode_failure(memoryview(message)[header.payload_start :]).code
        except ProtocolViolation as error:
            code = error.code  # which no hop may say, so that it is blamed itself
        kind, is_shared = blame.of_failure(code, header.hop)
        blamed = route.hops[header.hop - 1 : header.hop + 1] if is_shared else (route.hops[header.hop],)
        for hop in set(blamed) - {route.origin}:
            self._outcomes.note(hop, kind)

    def _fail_unread(
        self,
        sender: PeerId,
        receiver: Peer | RemotePeer,
        route: VerifiedRoute,
        header: Header,
        message: bytes,
    ) -> None:
        """Refuse a step for which there is no room; on the way to another replica nobody is to blame."""
        full = QueueFull("the next volunteer on the route does not read fast enough")
        self._fail(sender, route, header, message, full)
        if not isinstance(receiver, Peer) or receiver.role != "volunteer":
            return
        # One that reads may be sent more at once than there is room for: that is no fault of its own.
        if receiver.is_stuck(time.monotonic(), UNREAD_SECONDS):
            self._outcomes.note(receiver.id, "unread")

    def _fail(
        self, sender: PeerId, route: VerifiedRoute, header: Header, message: bytes, error: FrameRefused
    ) -> None:
        """Refuse a step that goes no further: its driver is told, and the log."""
        hop = min(header.hop, len(route.hops) - 1)
        failure = Failure(code=error.code, message=error.message, retry_after=error.retry_after, hop=hop)
        frame = Frame(
            type=FrameType.FAILURE,
            hop=hop,
            session=header.session,
            step=header.step,
            position=header.position,
            route=message[HEADER_BYTES : header.payload_start],
            payload=encode_failure(failure),
            epoch=header.epoch,
        )
        self._put_control(self._hub.find(route.origin), _FAILURE, encode_frame(frame))
        self._refuse(self._level_for(header.session), sender, header, error)

    def _refuse(self, level: int, sender: PeerId, header: Header, refusal: FrameRefused) -> None:
        """Count a refused frame, and log whose it was."""
        self._metrics.refuse(refusal.code)
        where = {"peer": sender, "session": header.session, "step": header.step}
        log.log(level, "%s", refusal.message, extra=where | {"reason": refusal.code})

    def _level_for(self, session: SessionId) -> int:
        """How loud a stopped step is: a session is told of once, as many of its steps may be under way."""
        if session in self._warned:
            return logging.DEBUG
        if len(self._warned) >= MAX_WARNED_SESSIONS:
            del self._warned[next(iter(self._warned))]
        self._warned[session] = None
        return logging.WARNING

    def _put_control(self, receiver: Peer | RemotePeer | None, kind: int, message: bytes) -> None:
        """Queue a CLOSE or FAILURE frame; who is not connected any more needs none."""
        if receiver is None:
            return
        if receiver.enqueue(message, Urgency.CONTROL):
            self._metrics.count_forwarded(kind, len(message))
        else:
            self._metrics.refuse(QueueFull.code)


def _require_hop(sender: Peer, route: VerifiedRoute, header: Header) -> None:
    """Raises WrongHop: what a hop says to the driver is for that hop to say."""
    if header.hop == len(route.hops) or route.hops[header.hop] != sender.id:
        raise WrongHop(f"{sender.id} is not hop {header.hop}, in whose name it speaks")


def _cache_key(header: Header, message: bytes) -> bytes:
    return message[_SESSION] + message[HEADER_BYTES : header.payload_start]
