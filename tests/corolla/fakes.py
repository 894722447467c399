"""Stand-ins for what a driver talks to: a link that records, hops that answer when they are told to."""

import asyncio
from collections.abc import Callable

import torch

from corolla.exchange import Exchange, Launch, WorkOrder
from corolla.tensors import from_wire, to_wire
from schema.errors import CorollaError, MalformedFrame, ModelUnavailable
from schema.frames import Flags, Frame, FrameType, decode_frame, encode_frame, parse_header
from schema.ids import PeerId, SessionId, Span, model_key
from schema.messages import (
    ErrorInfo,
    Failure,
    FromPeer,
    GrantedHop,
    HopLost,
    Refused,
    RouteGrant,
    RouteRequest,
    encode_failure,
)
from schema.outbox import Urgency
from schema.routes import Hop, Route, read_route, sign_route
from schema.tensors import WireTensor, decode_tensors, encode_tensors
from schema.trace import HopTrace

ME = PeerId("0" * 15 + "1")
ANEMONE = PeerId("a" * 16)
BELLIS = PeerId("b" * 16)
SESSION = SessionId(b"s" * 16)
HIDDEN = 8
FAR_AWAY = (Hop(ANEMONE, Span(0, 2)), Hop(BELLIS, Span(2, 4)))
"""A route's hops, none of them this peer."""
CROCUS, DAHLIA = PeerId("c" * 16), PeerId("d" * 16)
EVENING = PeerId("e" * 16)
NAMES = {
    ANEMONE: "anemone",
    BELLIS: "bellis",
    CROCUS: "crocus",
    DAHLIA: "dahlia",
    EVENING: "evening primrose",
    ME: "me",
}


def route_of(*hops: Hop, session: SessionId = SESSION, origin: PeerId = ME) -> bytes:
    """A signed route."""
    return sign_route(Route(origin, hops, model_key("tiny"), 2**32 - 1), session, bytes(range(32)))


def grant_of(route: bytes, request: str = "0") -> RouteGrant:
    hops = [
        GrantedHop(peer=hop.peer, name=NAMES[hop.peer], start=hop.span.start, end=hop.span.end)
        for hop in read_route(route).hops
    ]
    return RouteGrant(request=request, route=route, hops=hops, expires=2**32 - 1)


def hidden(tokens: int = 1) -> WireTensor:
    """Hidden states [1, tokens, HIDDEN]."""
    return to_wire(torch.zeros(1, tokens, HIDDEN))


def step(route: bytes, kind: FrameType = FrameType.STEP, session: SessionId = SESSION, hop: int = 0) -> Frame:
    return Frame(kind, hop, session, 0, 0, route, encode_tensors([hidden()]))


def failure(frame: Frame, error: CorollaError) -> Frame:
    """The FAILURE with which a hop answers a step."""
    payload = encode_failure(Failure(code=error.code, message=error.message, hop=frame.hop))
    return frame._replace(type=FrameType.FAILURE, payload=payload)


def deliver(exchange: Exchange, frame: Frame) -> None:
    """As the link does with a frame that arrived."""
    message = encode_frame(frame)
    exchange.on_frame(parse_header(message), message)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; fail if it does not for long."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - turns of the loop, not time
            await asyncio.sleep(0)


class RecordingLink:
    """Keeps what is sent; `refusal` makes it refuse everything."""

    def __init__(self, peer_id: PeerId = ME) -> None:
        self.peer_id = peer_id
        self.frames: list[Frame] = []
        self.urgencies: list[Urgency] = []
        self.messages: list[FromPeer] = []
        self.refusal: CorollaError | None = None

    def send_frame(self, frame: bytes, urgency: Urgency) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.frames.append(decode_frame(frame))
        self.urgencies.append(urgency)

    def send_message(self, message: FromPeer) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.messages.append(message)


class RecordingServer:
    """A span server that computes nothing."""

    def __init__(self) -> None:
        self.work: list[tuple[Frame, WorkOrder]] = []
        self.malformed: list[Frame] = []
        self.closed: list[SessionId] = []
        self.kept: list[SessionId] = []

    def on_work(self, frame: Frame, order: WorkOrder) -> None:
        self.work.append((frame, order))

    def on_malformed(self, frame: Frame, error: MalformedFrame) -> None:
        self.malformed.append(frame)

    def prepare(self, frame: Frame, order: WorkOrder) -> Launch:
        return lambda payload: self.on_work(frame._replace(payload=payload), order)

    def on_close(self, session: SessionId, keep: bool = False) -> None:
        (self.kept if keep else self.closed).append(session)


class RecordingInbox:
    """A session that only listens."""

    def __init__(self) -> None:
        self.outputs: list[Frame] = []
        self.failures: list[CorollaError] = []
        self.failed_hops: list[int | None] = []
        self.lost: list[PeerId] = []
        self.traces: list[tuple[int, int, HopTrace]] = []

    def on_trace(self, step: int, hop: int, trace: HopTrace) -> None:
        self.traces.append((step, hop, trace))

    def on_output(self, frame: Frame) -> None:
        self.outputs.append(frame)

    def on_failure(self, error: CorollaError, hop: int | None = None) -> None:
        self.failures.append(error)
        self.failed_hops.append(hop)

    def on_hop_lost(self, peer: PeerId) -> None:
        self.lost.append(peer)


class Hops(RecordingLink):
    """Relay and volunteers in one: answers every step with its own hidden states, as its flags ask.

    `held`: steps are not answered until `release`. `compute`: what the hops make of a step's hidden states.
    `replies`: by step number, what comes back instead of the answer. `by_kind`: by type of frame; None for
    nothing. `gone`: hops that have left. `spares`:
    who takes the place of those, and of those that a driver excludes.
    """

    def __init__(self, exchange: Exchange, hops: tuple[Hop, ...] = FAR_AWAY) -> None:
        super().__init__()
        self.hops = hops
        self.held = False
        self.waiting: list[Frame] = []
        self.replies: dict[int, Callable[[Frame], Frame]] = {}
        self.by_kind: dict[FrameType, Callable[[Frame], Frame | None]] = {}
        self.compute: Callable[[Frame, torch.Tensor], torch.Tensor] = lambda _, states: states
        self.no_route: CorollaError | None = None
        self.gone: set[PeerId] = set()
        self.spares: list[PeerId] = []
        self._exchange = exchange
        exchange.attach(self)

    @property
    def closed(self) -> bool:
        """Whether the last frame was a CLOSE."""
        return bool(self.frames) and self.frames[-1].type == FrameType.CLOSE

    def send_message(self, message: FromPeer) -> None:
        super().send_message(message)
        if isinstance(message, RouteRequest):
            self._exchange.on_message(self._grant(message))

    def lose(self, peer: PeerId) -> None:
        """A hop leaves: the drivers of the steps that wait are told, and get no answer."""
        self.gone.add(peer)
        sessions, self.waiting = {frame.session for frame in self.waiting}, []
        for session in sessions:
            self._exchange.on_message(HopLost(session=session.hex(), peer=peer))

    def _grant(self, request: RouteRequest) -> RouteGrant | Refused:
        if self.no_route is not None:
            return Refused(request=request.request, error=ErrorInfo.of(self.no_route))
        unwanted = self.gone | {PeerId(peer) for peer in request.exclude}
        spares = [peer for peer in self.spares if peer not in unwanted]
        try:
            hops = [hop if hop.peer not in unwanted else Hop(spares.pop(0), hop.span) for hop in self.hops]
        except IndexError:
            missing = ModelUnavailable("blocks 2-3 have no volunteer", retry_after=10.0)
            return Refused(request=request.request, error=ErrorInfo.of(missing))
        session = SessionId(bytes.fromhex(request.session))
        return grant_of(route_of(*hops, session=session), request.request)

    def send_frame(self, frame: bytes, urgency: Urgency) -> None:
        super().send_frame(frame, urgency)
        sent = self.frames[-1]
        if sent.type != FrameType.CLOSE:
            self.waiting.append(sent)
            if not self.held:
                self.release()

    def release(self, count: int | None = None) -> None:
        """Answer the oldest steps that wait."""
        due, self.waiting = self.waiting[:count], self.waiting[count:] if count is not None else []
        for frame in due:
            answer = self.replies.get(frame.step) or self.by_kind.get(FrameType(frame.type), self._answer)
            answered = answer(frame)
            if answered is not None:
                deliver(self._exchange, answered)

    def _answer(self, frame: Frame) -> Frame:
        if frame.type in (FrameType.RESUME, FrameType.REPLAY):
            return returned(frame, bytes(frame.payload))
        states = self.compute(frame, from_wire(decode_tensors(frame.payload)[0]))
        if frame.flags & Flags.NO_OUTPUT:
            states = states[:, :0]
        elif frame.flags & Flags.LAST_ONLY:
            states = states[:, -1:]
        return returned(frame, encode_tensors([to_wire(states)]))


def returned(frame: Frame, payload: bytes) -> Frame:
    """A step's frame as the last hop sends it back, with this payload."""
    return frame._replace(hop=len(read_route(frame.route).hops), payload=payload)
