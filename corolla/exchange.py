"""Where frames leave and enter this process: the sessions driven here, the span served here, the link.

A frame for this very peer never touches the network: that is the leg between a head and the first
blocks on the same volunteer. Owned by the event loop's thread. Does not know tensors or models.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol

from msgspec import UNSET

from corolla.orders import WorkOrder, order_of
from corolla.step_order import HOLD_SECONDS, Key, StepOrder
from schema.errors import (
    CorollaError,
    FrameRefused,
    GenerationFailed,
    MalformedFrame,
    MalformedTensor,
    ProtocolViolation,
    ShapeMismatch,
    StepFailed,
    Unavailable,
)
from schema.frames import (
    TRAVELLING_TYPES,
    Flags,
    Frame,
    FrameType,
    Header,
    encode_frame,
    frame_of,
)
from schema.ids import PeerId, SessionId, session_at_hop
from schema.messages import (
    Failure,
    FromPeer,
    FromRelay,
    HopLost,
    Refused,
    RouteGrant,
    RouteRequest,
    decode_failure,
    encode_failure,
)
from schema.outbox import URGENCY_OF_FRAME, Urgency
from schema.routes import Route, read_route
from schema.trace import HopTrace, decode_trace, encode_trace

READ_ROUTES = 1024
"""Routes whose parsed form is kept: a session uses one route for all its frames."""

log = logging.getLogger(__name__)


class Link(Protocol):
    """The connection to the relay, as far as it matters here; see `corolla.link.RelayLink`."""

    peer_id: PeerId

    def send_frame(self, frame: bytes, urgency: Urgency) -> None: ...
    def send_message(self, message: FromPeer) -> None: ...


Launch = Callable[[bytes], None]
"""Computes a prepared step with this payload. Once, on any thread; raises why the step is refused."""


class SpanServer(Protocol):
    """What serves blocks in this process; a plain client has none."""

    def on_work(self, frame: Frame, order: WorkOrder) -> None:
        """A step to compute; its answer goes to `Exchange.answer` or `Exchange.fail`."""
        ...

    def on_malformed(self, frame: Frame, error: MalformedFrame) -> None:
        """A step that says too little to be work; its driver waits for `Exchange.fail`."""
        ...

    def prepare(self, frame: Frame, order: WorkOrder) -> Launch:
        """As `on_work`, for a frame whose payload comes later, if at all."""
        ...

    def on_close(self, session: SessionId, keep: bool = False) -> None:
        """This session is over; the name is a work order's. `keep`: others may begin as a fork of it."""
        ...


class Inbox(Protocol):
    """A session that is driven in this process."""

    def on_output(self, frame: Frame) -> None: ...

    def on_failure(self, error: CorollaError, hop: int | None = None) -> None:
        """Nothing that is in flight will come back. `hop`: of the route, where one could not go on."""
        ...

    def on_trace(self, step: int, hop: int, trace: HopTrace) -> None:
        """A hop says how long a step was there."""
        ...

    def on_hop_lost(self, peer: PeerId) -> None:
        """A volunteer of its route is gone, and its KV cache with it."""
        ...


class Exchange:
    """Sends frames to their next stop and hands in those that arrive."""

    def __init__(self) -> None:
        self._span_server: SpanServer | None = None
        self._link: Link | None = None
        self._inboxes: dict[SessionId, Inbox] = {}
        self._route_requests: dict[str, asyncio.Future[RouteGrant]] = {}
        self._request_numbers = itertools.count()
        self._read_route = lru_cache(READ_ROUTES)(read_route)
        self._order = StepOrder()

    def serve(self, span_server: SpanServer) -> None:
        """Hand the steps for this peer's blocks to `span_server` from now on."""
        self._span_server = span_server

    # ---- the link -----------------------------------------------------------------------------

    def attach(self, link: Link) -> None:
        self._link = link

    def detach(self, error: CorollaError) -> None:
        """The link is gone: what waits for it fails with `error`."""
        self._link = None
        self._order = StepOrder()  # nothing that it holds can be answered
        for future in self._route_requests.values():
            if not future.done():
                future.set_exception(error)
        for inbox in list(self._inboxes.values()):
            inbox.on_failure(error)

    @property
    def link(self) -> Link:
        """Raises Unavailable while there is none."""
        if self._link is None:
            raise Unavailable("not connected to the relay", retry_after=1.0)
        return self._link

    def on_frame(self, header: Header, message: bytes) -> None:
        """A frame came over the link. One that cannot be used, or that comes too late, does no harm."""
        if self._link is None:
            return
        try:
            frame = frame_of(header, message)
            if frame.type in TRAVELLING_TYPES and self._span_server is not None:
                self._deliver_in_order(frame)
            else:
                self._deliver(frame)
        except ProtocolViolation as error:
            log.warning(
                "a frame could not be used: %s", error.message, extra={"session": header.session.hex()}
            )

    def on_message(self, message: FromRelay) -> bool:
        """A control message came over the link. False when it is not about routes."""
        match message:
            case RouteGrant():
                future = self._route_requests.get(message.request)
                if future is not None and not future.done():
                    future.set_result(message)
            case Refused():
                future = self._route_requests.get(message.request)
                if future is not None and not future.done():
                    future.set_exception(message.error.to_error())
            case HopLost():
                inbox = self._inboxes.get(SessionId(bytes.fromhex(message.session)))
                if inbox is not None:
                    inbox.on_hop_lost(PeerId(message.peer))
            case _:
                return False
        return True

    # ---- sessions driven here -----------------------------------------------------------------

    async def request_route(
        self,
        model: str,
        session: SessionId,
        exclude: frozenset[PeerId] = frozenset(),
        prefer: frozenset[PeerId] = frozenset(),
        repairs: str | None = None,
    ) -> RouteGrant:
        """A signed route over all blocks of a model; over peers that are preferred, where that is as good.

        `repairs`: the error code that ended the session before it, where there was one.

        Raises:
            ModelUnavailable and others: what the relay said. Unavailable: there is no connection.
        """
        request = str(next(self._request_numbers))
        future: asyncio.Future[RouteGrant] = asyncio.get_running_loop().create_future()
        self._route_requests[request] = future
        try:
            self.link.send_message(
                RouteRequest(
                    request=request,
                    model=model,
                    session=session.hex(),
                    exclude=sorted(exclude),
                    prefer=sorted(prefer) or UNSET,
                    repairs=repairs or UNSET,
                )
            )
            return await future
        finally:
            del self._route_requests[request]

    def open(self, session: SessionId, inbox: Inbox) -> None:
        self._inboxes[session] = inbox

    def close(self, session: SessionId, raw_route: bytes, *, keep: bool = False) -> None:
        """Forget a session; every hop frees its KV cache at once, or keeps it. Raises nothing."""
        if self._inboxes.pop(session, None) is not None:
            self._close_on_hops(session, raw_route, keep=keep)

    def release(self, session: SessionId, raw_route: bytes) -> None:
        """Free what the hops have kept of a session. Raises nothing."""
        self._close_on_hops(session, raw_route, keep=False)

    def _close_on_hops(self, session: SessionId, raw_route: bytes, *, keep: bool) -> None:
        try:
            route = self._read_route(raw_route)
            hops = {hop.peer for hop in route.hops}
            if route.origin in hops and self._span_server is not None:
                self._order.forget((route.origin, session))
                self._span_server.on_close(session_at_hop(route.origin, session), keep)
            if hops - {route.origin}:
                flags = Flags.KEEP if keep else Flags.NONE
                self._send(Frame(FrameType.CLOSE, 0, session, 0, 0, raw_route, b"", flags))
        except CorollaError as error:
            log.info("the hops cannot be told: %s", error.message, extra={"session": session.hex()})

    # ---- frames out ---------------------------------------------------------------------------

    def post(self, frame: Frame) -> None:
        """Send a frame of a travelling type to the stop that it names, which may be this process.

        Raises:
            Unavailable, QueueFull: it cannot be sent.
        """
        route = self._read_route(frame.route)
        is_local = route.stop(frame.hop) == self.link.peer_id and frame.type != FrameType.PROBE
        if is_local:
            self._deliver(frame)
        else:
            self._send(frame)

    def prepare(self, frame: Frame) -> Launch | None:
        """A way to send a STEP frame, its payload still to come, to blocks that are served in this process.

        None when the frame's stop is elsewhere: then it goes by `post`. Raises Unavailable.
        """
        route = self._read_route(frame.route)
        if self._span_server is None or route.stop(frame.hop) != self.link.peer_id:
            return None
        return self._span_server.prepare(frame, order_of(frame, route))

    def answer(self, work: Frame, payload: bytes) -> None:
        """Send the output of a step on to the next stop of its route. Errors as `post`."""
        self.post(work._replace(hop=work.hop + 1, payload=payload))

    def fail(self, work: Frame, error: CorollaError) -> None:
        """Tell a step's driver that there will be no output. Errors as `post`."""
        failure = Failure(code=error.code, message=error.message, retry_after=error.retry_after, hop=work.hop)
        self._tell_driver(work, FrameType.FAILURE, encode_failure(failure))

    def trace(self, work: Frame, trace: HopTrace) -> None:
        """Tell a step's driver how long it was here; after its answer. Errors as `post`."""
        self._tell_driver(work, FrameType.TRACE, encode_trace(trace))

    def _tell_driver(self, work: Frame, kind: FrameType, payload: bytes) -> None:
        frame = work._replace(type=kind, payload=payload, flags=Flags.NONE)
        if self._read_route(work.route).origin == self.link.peer_id:
            self._deliver(frame)
        else:
            self._send(frame)

    def _send(self, frame: Frame) -> None:
        self.link.send_frame(encode_frame(frame), URGENCY_OF_FRAME[frame.type])

    # ---- frames in ----------------------------------------------------------------------------

    def _deliver_in_order(self, frame: Frame) -> None:
        """A step that came over the link, where what was before it may still be on another way."""
        route = self._read_route(frame.route)
        if frame.hop == len(route.hops):
            self._deliver_step(frame, route)
            return
        key = (route.origin, frame.session)
        ready = self._order.arrived(key, frame)
        if ready == [frame]:
            self._deliver_step(frame, route)
        elif ready:
            self._deliver_each(ready)
        else:
            asyncio.get_running_loop().call_later(HOLD_SECONDS, self._let_go, key, frame)

    def _let_go(self, key: Key, frame: Frame) -> None:
        if self._link is not None and self._order.is_held(key, frame):
            self._deliver_each(self._order.let_go(key))

    def _deliver_each(self, frames: Iterable[Frame]) -> None:
        """Each by its own route. One that cannot be used takes none of the others with it."""
        for frame in frames:
            try:
                self._deliver_step(frame, self._read_route(frame.route))
            except ProtocolViolation as error:
                log.warning(
                    "a frame could not be used: %s", error.message, extra={"session": frame.session.hex()}
                )

    def _deliver(self, frame: Frame) -> None:
        route = self._read_route(frame.route)
        if frame.type in TRAVELLING_TYPES:
            self._deliver_step(frame, route)
        elif frame.type == FrameType.FAILURE:
            inbox = self._inboxes.get(frame.session)
            if inbox is not None:
                # The relay has checked the header's hop; what the payload says of it may blame another.
                inbox.on_failure(step_error(decode_failure(frame.payload)), frame.hop)
        elif frame.type == FrameType.TRACE:
            inbox = self._inboxes.get(frame.session)
            if inbox is not None:
                inbox.on_trace(frame.step, frame.hop, decode_trace(frame.payload))
        elif frame.type == FrameType.CLOSE and self._span_server is not None:
            keep = bool(frame.flags & Flags.KEEP)
            self._order.forget((route.origin, frame.session))
            self._span_server.on_close(session_at_hop(route.origin, frame.session), keep)

    def _deliver_step(self, frame: Frame, route: Route) -> None:
        if route.stop(frame.hop) != self.link.peer_id:
            raise MalformedFrame(f"stop {frame.hop} of this frame's route is another peer")
        if frame.hop == len(route.hops):
            inbox = self._inboxes.get(frame.session)
            if inbox is not None:
                inbox.on_output(frame)
        elif self._span_server is not None:
            try:
                order = order_of(frame, route)
            except MalformedFrame as error:
                self._span_server.on_malformed(frame, error)
            else:
                self._span_server.on_work(frame, order)


def step_error(failure: Failure) -> CorollaError:
    """Why a step failed, as its hop or the relay says.

    Only what can happen to a step is taken over as it is: a volunteer could else tell a reader, in a reply's
    error, that the reader's own token or request is at fault.
    """
    error = failure.to_error()
    if isinstance(error, StepFailed | FrameRefused):
        return error
    if isinstance(error, MalformedTensor):  # what a hop was sent by the one before it, not by the reader
        return ShapeMismatch(error.message, retry_after=error.retry_after)
    return GenerationFailed(
        f"hop {failure.hop} could not go on ({failure.code}): {error.message}", retry_after=error.retry_after
    )
