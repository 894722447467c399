"""Putting frames on the next hop's queue, and refusing those that may not go there.

Reads a frame's header and route; never opens a payload, except to write the FAILURE of its own.
Verified routes are kept in a bounded cache, which is also how a driver is told at once that a hop
of its session is gone. The cache is soft state: without it, the next frame verifies again.
Does not know volunteers, models or SQL.
"""

import logging
import time
from dataclasses import dataclass

from relay.elsewhere import RemotePeer
from relay.hub import Hub
from relay.metrics import Metrics
from relay.peer import Peer
from schema.errors import FrameLost, FrameRefused, MalformedFrame, PeerGone, QueueFull, RouteExpired, WrongHop
from schema.frames import HEADER_BYTES, Frame, FrameType, Header, encode_frame, parse_header, peek_header
from schema.ids import PeerId, SessionId
from schema.messages import Failure, HopLost, encode_failure
from schema.outbox import URGENCY_OF_FRAME, Urgency
from schema.protocol import SkippedFrame
from schema.routes import Route, verify_route

MAX_CACHED_ROUTES = 65_536
MAX_WARNED_SESSIONS = 1024
"""Sessions that are remembered because the log has told of a stopped step of theirs."""

log = logging.getLogger(__name__)

_SESSION = slice(8, 24)
# As plain integers: comparing with an enum's member costs more than the rest of the line, every frame.
_PROBE, _CLOSE, _FAILURE = int(FrameType.PROBE), int(FrameType.CLOSE), int(FrameType.FAILURE)


@dataclass(frozen=True, slots=True)
class VerifiedRoute:
    """A route whose MAC was right, unrolled for forwarding."""

    session: SessionId
    stops: tuple[PeerId, ...]
    """origin, hops..., origin: the sender to stop `i` is `stops[i]`, its receiver `stops[i + 1]`."""
    expires: int

    @classmethod
    def of(cls, route: Route, session: SessionId) -> "VerifiedRoute":
        stops = (route.origin, *(hop.peer for hop in route.hops), route.origin)
        return cls(session, stops, route.expires)

    @property
    def origin(self) -> PeerId:
        return self.stops[0]

    @property
    def hops(self) -> tuple[PeerId, ...]:
        return self.stops[1:-1]


class Forwarder:
    """Forwards frames between the peers of a hub. Owned by the event loop's thread."""

    def __init__(self, hub: Hub, metrics: Metrics, secret: bytes) -> None:
        self._hub = hub
        self._metrics = metrics
        self._secret = secret
        self._routes: dict[bytes, VerifiedRoute] = {}
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
            route = self._verified(header, message)
            if header.hop > len(route.stops) - 2:
                raise MalformedFrame(
                    f"a frame to stop {header.hop} of a route with {len(route.stops) - 2} hops"
                )
            if header.type == _CLOSE:
                self._forward_close(sender, route, header, message)
            elif header.type == _FAILURE:
                self._forward_failure(sender, route, header, message)
            else:
                self._forward_step(sender, route, header, message)
        except FrameRefused as refusal:
            self._refuse(logging.DEBUG, sender.id, header, refusal)

    def arrive(self, receiver_id: PeerId, message: bytes) -> None:
        """Hand over a frame that another replica has checked and sent here for one of this one's peers.

        Raises:
            MalformedFrame, RouteForged: it is no frame of this relay.
        """
        header = parse_header(message)
        route = self._verified(header, message)
        receiver = self._hub.find(receiver_id)
        if header.type in (_CLOSE, _FAILURE):
            self._put_control(receiver, header.type, message)
            if header.type == _CLOSE:
                self._routes.pop(_cache_key(header, message), None)
        elif receiver is None:
            self._fail(receiver_id, route, header, message, PeerGone("the next stop has just left"))
        elif not receiver.enqueue(message, URGENCY_OF_FRAME[header.type]):
            full = QueueFull("the next volunteer on the route does not read fast enough")
            self._fail(receiver_id, route, header, message, full)
        else:
            self._metrics.count_forwarded(header.type, len(message))

    def frame_lost(self, message: bytes, error: FrameRefused | None = None) -> None:
        """Tell the driver of a frame that has not reached its stop. `message`: header and route at least."""
        header = peek_header(message)
        if header.type in (_CLOSE, _FAILURE):
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

    def peer_left(self, peer: PeerId) -> None:
        """Tell the drivers here whose routes pass this peer; close the sessions that it drove, on hops here.

        Wherever the peer was: each replica does this for its own.
        """
        for key, route in list(self._routes.items()):
            if peer not in route.stops:
                continue
            del self._routes[key]
            driver = self._hub.get(route.origin)
            if peer == route.origin:
                self._close_for(route, raw_route=key[len(route.session) :])
            elif driver is not None:
                driver.tell(HopLost(session=route.session.hex(), peer=peer))

    def _close_for(self, route: VerifiedRoute, raw_route: bytes) -> None:
        """Free a session on its hops in place of its driver, which is gone."""
        message = encode_frame(Frame(FrameType.CLOSE, 0, route.session, 0, 0, raw_route, b""))
        for hop in set(route.hops) - {route.origin}:
            self._put_control(self._hub.get(hop), _CLOSE, message)

    def _verified(self, header: Header, message: bytes) -> VerifiedRoute:
        key = _cache_key(header, message)
        route = self._routes.get(key)
        if route is None:
            raw = message[HEADER_BYTES : header.payload_start]
            route = VerifiedRoute.of(verify_route(raw, header.session, self._secret), header.session)
            if len(self._routes) >= MAX_CACHED_ROUTES:
                del self._routes[next(iter(self._routes))]
            self._routes[key] = route
        return route

    def _forward_step(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        stops = route.stops
        if stops[header.hop] != sender.id:
            raise WrongHop(f"{sender.id} is not the stop before {header.hop}")
        receiver = self._hub.find(stops[header.hop + 1])
        if route.expires <= time.time():
            expired = RouteExpired("the route has expired: ask for a new one")
            self._fail(sender.id, route, header, message, expired)
        elif receiver is None:
            gone = PeerGone("the next stop on the route is not connected")
            self._fail(sender.id, route, header, message, gone)
        elif not receiver.enqueue(message, URGENCY_OF_FRAME[header.type]):
            full = QueueFull("the next volunteer on the route does not read fast enough")
            self._fail(sender.id, route, header, message, full)
        else:
            if header.type == _PROBE and header.hop == len(stops) - 2 and route.session in self._probes:
                self._probes[route.session] = True
            self._metrics.count_forwarded(header.type, len(message))

    def _forward_close(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        if sender.id != route.origin:
            raise WrongHop("only the driver closes its session")
        self._routes.pop(_cache_key(header, message), None)
        for hop in set(route.hops) - {sender.id}:
            self._put_control(self._hub.find(hop), _CLOSE, message)

    def _forward_failure(self, sender: Peer, route: VerifiedRoute, header: Header, message: bytes) -> None:
        if header.hop == len(route.hops) or route.hops[header.hop] != sender.id:
            raise WrongHop(f"{sender.id} is not hop {header.hop}, whose failure it tells")
        driver = self._hub.find(route.origin)
        if driver is None:
            raise PeerGone("the driver is not connected")
        self._put_control(driver, _FAILURE, message)

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


def _cache_key(header: Header, message: bytes) -> bytes:
    return message[_SESSION] + message[HEADER_BYTES : header.payload_start]
