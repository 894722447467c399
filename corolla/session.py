"""One sequence on the swarm: its route, its position, and the steps in flight.

Belongs to the task that drives it. A step goes out as a frame and comes back as hidden states; a
prompt goes out in slices that travel the hops one behind the other. Does not know tokens, sampling
or text.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import NamedTuple

from corolla.exchange import Exchange, Launch
from corolla.repair import Break
from corolla.resuming import Remains, hops_left, is_sound
from corolla.tracing import RouteTimes
from schema.errors import (
    CorollaError,
    FrameLost,
    GenerationFailed,
    InvalidRequest,
    MalformedTensor,
    NotFinite,
    PeerGone,
    RouteExpired,
    ShapeMismatch,
)
from schema.frames import Flags, Frame, FrameType, is_timed
from schema.ids import PeerId, SessionId, Span, new_session_id
from schema.messages import RouteGrant
from schema.routes import Hop
from schema.tensors import WireTensor, decode_tensors, encode_tensors
from schema.trace import HopTrace

STEP_SECONDS = 120.0
"""How long a driver waits for one step. Lost hops are told at once; this is for those that are only slow."""
PREFILL_WINDOW = 8
"""Slices of a prompt that may be in flight: enough to keep every hop of a usual route busy."""

_WITHOUT_TENSORS = (FrameType.FORK, FrameType.RESUME, FrameType.REPLAY)

Step = asyncio.Future[list[WireTensor]]
"""A step in flight: what it will come back with."""


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A step whose hidden states are still to come, for blocks in this process."""

    frame: Frame
    """As it will be, without its payload."""
    step: Step
    launch: Launch
    """See `corolla.exchange.Launch`; takes the encoded tensors."""


class _Waiting(NamedTuple):
    """A step in flight, and the position at which it ends."""

    step: Step
    end: int


class RemoteSession:
    """A session over a granted route; an async context manager that frees the KV caches at its end.

    Unless they are to be kept: `keep`.
    """

    def __init__(self, exchange: Exchange, grant: RouteGrant, session: SessionId) -> None:
        self.grant = grant
        self.id = session
        self.position = 0
        """Tokens sent so far."""
        self.times = RouteTimes(len(grant.hops), time.monotonic)
        """Of the steps that were marked."""
        self._exchange = exchange
        self._next_step = 0
        self.held = 0
        """Tokens whose steps have come back: all hops hold them."""
        self.forked = 0
        """Tokens that it began with, which were not computed for it."""
        self.is_kept = False
        """Whether the hops keep the KV caches at the end."""
        self._waiting: dict[int, _Waiting] = {}
        """Steps in flight by their number."""
        self.broken: Break | None = None
        """Why no step can be sent any more."""
        self.lost: set[PeerId] = set()
        """Hops that have left."""

    async def __aenter__(self) -> "RemoteSession":
        self._exchange.open(self.id, self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for waiting in self._waiting.values():
            waiting.step.cancel()
        self.broken = self.broken or Break(GenerationFailed("this session is over: open another one"))
        self._exchange.close(self.id, self.grant.route, keep=self.is_kept)

    @property
    def hops(self) -> tuple[Hop, ...]:
        return tuple(Hop(PeerId(hop.peer), Span(hop.start, hop.end)) for hop in self.grant.hops)

    # ---- called by the exchange ----

    def on_output(self, frame: Frame) -> None:
        if is_timed(frame.flags):
            self.times.answered(frame.step)
        waiting = self._waiting.pop(frame.step, None)
        if waiting is None:
            return
        future, self.held = waiting.step, max(self.held, waiting.end)
        if future.done():
            return
        try:
            future.set_result([] if frame.type in _WITHOUT_TENSORS else decode_tensors(frame.payload))
        except CorollaError as error:
            unreadable = GenerationFailed(f"a volunteer's answer is no list of tensors: {error.message}")
            _fail(future, unreadable)
            self.blame_last_hop(unreadable)

    def on_trace(self, step: int, hop: int, trace: HopTrace) -> None:
        self.times.reported(step, hop, trace)

    def on_failure(self, error: CorollaError, hop: int | None = None) -> None:
        # Whoever noticed that a route has expired, or was to get what the relay has lost, is not to blame.
        if hop is None or isinstance(error, RouteExpired | FrameLost):
            self._break(Break(error))
            return
        sender = (
            self._peer(hop - 1) if isinstance(error, ShapeMismatch | NotFinite | MalformedTensor) else None
        )
        suspects = () if sender is None else (sender,)
        self._break(Break(error, self._peer(hop), isinstance(error, PeerGone), suspects))

    def blame_last_hop(self, error: CorollaError) -> None:
        """What came back cannot be used."""
        self._break(Break(error, self._peer(len(self.grant.hops) - 1)))

    def on_hop_lost(self, peer: PeerId) -> None:
        self.lost.add(peer)
        name = next((hop.name for hop in self.grant.hops if hop.peer == peer), peer)
        error = GenerationFailed(f"the volunteer {name!r} left in the middle of the reply: send it again")
        self._break(Break(error, peer, is_gone=True))

    def _peer(self, hop: int) -> PeerId | None:
        """Who that is. A probe's grant names nobody."""
        hops = self.grant.hops
        return PeerId(hops[hop].peer) if 0 <= hop < len(hops) else None

    def _break(self, broken: Break) -> None:
        self.broken = self.broken or broken
        for waiting in self._waiting.values():
            _fail(waiting.step, broken.error)
        self._waiting.clear()

    # ---- called by the driver ----

    def remains(self) -> Remains | None:
        """What its hops surely hold after it has broken off; None: nothing that could be gone on with."""
        if not is_sound(self.broken):
            return None
        gone = {self.broken.hop} if self.broken is not None and self.broken.hop is not None else set[PeerId]()
        left = hops_left(self.hops, self.lost | gone)
        return Remains(self.id, left, self.held) if left and self.held else None

    def keep(self) -> None:
        """Have the hops keep the KV caches at the end, for sessions that begin as a fork of this one."""
        self.is_kept = True

    def begin_at(self, tokens: int) -> None:
        """The hops are to hold this many tokens by what is posted next, beside the session's own steps."""
        self.position = tokens

    def post_beside(self, kind: FrameType, payload: bytes, position: int) -> Step:
        """Send a frame that is no step of this session: its answer says nothing of what all hops hold.

        Raises as `send`.
        """
        return self._post_beside(self._next_frame(kind, Flags.NONE, payload)._replace(position=position))

    def fork(self, kept: SessionId, tokens: int) -> None:
        """Begin with the first `tokens` tokens of a session that was kept; what follows may be sent at once.

        Where a hop cannot, this session fails with the hop's reason. Raises as `send`.
        """
        self.position = self.forked = tokens
        frame = self._next_frame(FrameType.FORK, Flags.NONE, kept)
        self._expect(frame, tokens=0)
        self._exchange.post(frame)

    def send(self, tensors: Sequence[WireTensor], *, kind: FrameType, want: Flags) -> Step:
        """Send one step of `tensors[0].shape[1]` tokens; the future is its output.

        Raises:
            CorollaError: the session has failed, or it cannot be sent; then nothing has changed.
        """
        frame = self._next_frame(kind, self._marked(kind, want), encode_tensors(tensors))
        if is_timed(frame.flags):
            self.times.sent(kind, frame.step)
        return self._post(frame, self._expect(frame, tensors[0].shape[1]))

    def _post(self, frame: Frame, step: Step) -> Step:
        try:
            self._exchange.post(frame)
        except CorollaError:
            self._withdraw(frame)
            raise
        return step

    def _post_beside(self, frame: Frame) -> Step:
        step = self._expect_beside(frame)
        try:
            self._exchange.post(frame)
        except CorollaError:
            del self._waiting[frame.step]
            self._next_step = frame.step
            raise
        return step

    async def forward(self, tensors: Sequence[WireTensor], want: Flags = Flags.NONE) -> WireTensor:
        """What whole sequences become; no hop keeps anything of it. Any number at once. Errors as `receive`.

        Hidden states [batch, tokens, hidden], and an attention mask [batch, tokens] where there is padding.
        """
        frame = self._next_frame(FrameType.FORWARD, want, encode_tensors(tensors))._replace(position=0)
        return await self.receive(self._post_beside(frame))

    def prepare(self) -> PreparedStep | None:
        """A decode step of one token that whoever makes its hidden states sends, on whatever thread.

        None when its first blocks are not in this process: then `send` sends it. One that is not launched
        has to be withdrawn before anything else is sent. Errors as `send`.
        """
        frame = self._next_frame(FrameType.STEP, self._marked(FrameType.STEP, Flags.LAST_ONLY), b"")
        launch = self._exchange.prepare(frame)
        if launch is None:
            return None
        if is_timed(frame.flags):
            launch = self.times.timed(FrameType.STEP, frame.step, launch)
        return PreparedStep(frame, self._expect(frame, tokens=1), launch)

    def withdraw(self, prepared: PreparedStep) -> None:
        """Take a prepared step back, as if it had never been."""
        self._withdraw(prepared.frame)

    def _marked(self, kind: FrameType, want: Flags) -> Flags:
        """The flags of the next step: some are timed."""
        return want | Flags.TIMED if self.times.is_due(kind, self._next_step) else want

    def _next_frame(self, kind: FrameType, want: Flags, payload: bytes) -> Frame:
        if self.broken is not None:
            raise self.broken.error
        return Frame(
            type=kind,
            hop=0,
            session=self.id,
            step=self._next_step,
            position=self.position,
            route=self.grant.route,
            payload=payload,
            flags=want,
        )

    def _expect(self, frame: Frame, tokens: int) -> Step:
        """Count a step as sent."""
        future: Step = asyncio.get_running_loop().create_future()
        self._waiting[frame.step] = _Waiting(future, frame.position + tokens)
        self._next_step += 1
        self.position += tokens
        return future

    def _expect_beside(self, frame: Frame) -> Step:
        """Count a step whose answer says nothing of what all hops hold."""
        future: Step = asyncio.get_running_loop().create_future()
        self._waiting[frame.step] = _Waiting(future, self.held)
        self._next_step += 1
        return future

    def _withdraw(self, frame: Frame) -> None:
        """Undo `_expect` for a step that could not be sent."""
        self._waiting.pop(frame.step, None)
        self.times.forget(frame.step)
        self._next_step, self.position = frame.step, frame.position

    async def receive(self, step: Step) -> WireTensor:
        """The hidden states that a step came back with.

        Raises:
            CorollaError: why there are none.
        """
        tensors = await self._answered(step)
        if not tensors:
            empty = GenerationFailed("a step came back empty: send the request again")
            self.blame_last_hop(empty)
            raise empty
        return tensors[0]

    async def _answered(self, step: Step, within: float | None = None) -> list[WireTensor]:
        """What a step came back with, if it does `within` so many seconds. Errors as `receive`."""
        seconds = STEP_SECONDS if within is None else within
        try:
            async with asyncio.timeout(seconds):
                return await step
        except TimeoutError:
            late = GenerationFailed(f"a step did not come back within {seconds:g} s: send the request again")
            self._break(Break(late, suspects=tuple(PeerId(hop.peer) for hop in self.grant.hops)))
            raise late from None

    async def decode(self, hidden: WireTensor) -> WireTensor:
        """One decode step, [batch, tokens, hidden] in and [batch, 1, hidden] out. Errors as `receive`."""
        return await self.receive(self.send([hidden], kind=FrameType.STEP, want=Flags.LAST_ONLY))

    async def prefill(self, slices: Sequence[WireTensor]) -> WireTensor:
        """A prompt in slices; the last position's hidden states. Errors as `receive`.

        All but the last slice come back as bare acknowledgements, which pace the sending.
        """
        if not slices:
            raise InvalidRequest("there is nothing to prefill: give at least one token")
        return await self.in_window(self.slices(slices))

    def slices(self, slices: Sequence[WireTensor]) -> list[Callable[[], Step]]:
        """A prompt's, or the rest of one's, each as what sends it."""
        wants = [Flags.NO_OUTPUT] * (len(slices) - 1) + [Flags.LAST_ONLY]
        return [
            partial(self.send, [hidden], kind=FrameType.PREFILL, want=want)
            for hidden, want in zip(slices, wants, strict=True)
        ]

    async def in_window(
        self, posts: Sequence[Callable[[], Step]], first_within: float | None = None
    ) -> WireTensor:
        """Sends one after the other, no more than the window ahead of the answers; the last one's output.

        `first_within`: seconds that the first answer may take; None: as all others. Errors as `receive`.
        """
        pending: list[Step] = []
        within = first_within
        try:
            for post in posts:
                if len(pending) >= PREFILL_WINDOW:
                    await self._answered(pending.pop(0), within)
                    within = None
                pending.append(post())
            last = pending.pop()
            for future in pending:
                await self._answered(future, within)
                within = None
            return await self.receive(last)
        finally:
            for future in pending:
                future.cancel()


def _fail(step: Step, error: CorollaError) -> None:
    """Ends a step with an error, which nobody has to look at: the driver may have stopped waiting for it."""
    if not step.done():
        step.set_exception(error)
        step.exception()


def failed_step(error: CorollaError) -> Step:
    """One that could not be sent, for whoever waits for it."""
    step: Step = asyncio.get_running_loop().create_future()
    _fail(step, error)
    return step


async def open_session(
    exchange: Exchange,
    model: str,
    prefer: frozenset[PeerId] = frozenset(),
    exclude: frozenset[PeerId] = frozenset(),
    repairs: str | None = None,
) -> RemoteSession:
    """A session over a fresh route. Arguments and errors as `Exchange.request_route`."""
    session = new_session_id()
    grant = await exchange.request_route(model, session, exclude, prefer, repairs)
    return RemoteSession(exchange, grant, session)
