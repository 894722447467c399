"""One sequence on the swarm: its route, its position, and the steps in flight.

Belongs to the task that drives it. A step goes out as a frame and comes back as hidden states; a
prompt goes out in slices that travel the hops one behind the other. Does not know tokens, sampling
or text.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from corolla.exchange import Exchange, Launch
from corolla.repair import Break
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
from schema.frames import Flags, Frame, FrameType
from schema.ids import PeerId, SessionId, Span, new_session_id
from schema.limits import TARGET_SLICE_BYTES
from schema.messages import RouteGrant
from schema.routes import Hop
from schema.tensors import WireTensor, decode_tensors, encode_tensors

STEP_SECONDS = 120.0
"""How long a driver waits for one step. Lost hops are told at once; this is for those that are only slow."""
PREFILL_WINDOW = 8
"""Slices of a prompt that may be in flight: enough to keep every hop of a usual route busy."""
LEADING_PARTS = (4, 2)
"""What parts of a full slice the first ones are, over several hops. Together they are less than one."""

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
        self._exchange = exchange
        self._next_step = 0
        self.held = 0
        """Tokens whose steps have come back: all hops hold them."""
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
        waiting = self._waiting.pop(frame.step, None)
        if waiting is None:
            return
        future, self.held = waiting.step, max(self.held, waiting.end)
        if future.done():
            return
        try:
            future.set_result([] if frame.type == FrameType.FORK else decode_tensors(frame.payload))
        except CorollaError as error:
            unreadable = GenerationFailed(f"a volunteer's answer is no list of tensors: {error.message}")
            _fail(future, unreadable)
            self.blame_last_hop(unreadable)

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

    def keep(self) -> None:
        """Have the hops keep the KV caches at the end, for sessions that begin as a fork of this one."""
        self.is_kept = True

    def fork(self, kept: SessionId, tokens: int) -> None:
        """Begin with the first `tokens` tokens of a session that was kept; what follows may be sent at once.

        Where a hop cannot, this session fails with the hop's reason. Raises as `send`.
        """
        self.position = tokens
        frame = self._next_frame(FrameType.FORK, Flags.NONE, kept)
        self._expect(frame, tokens=0)
        self._exchange.post(frame)

    def send(self, tensors: Sequence[WireTensor], *, kind: FrameType, want: Flags) -> Step:
        """Send one step of `tensors[0].shape[1]` tokens; the future is its output.

        Raises:
            CorollaError: the session has failed, or it cannot be sent; then nothing has changed.
        """
        frame = self._next_frame(kind, want, encode_tensors(tensors))
        future = self._expect(frame, tensors[0].shape[1])
        try:
            self._exchange.post(frame)
        except CorollaError:
            self._withdraw(frame)
            raise
        return future

    async def forward(self, tensors: Sequence[WireTensor], want: Flags = Flags.NONE) -> WireTensor:
        """What whole sequences become; no hop keeps anything of it. Any number at once. Errors as `receive`.

        Hidden states [batch, tokens, hidden], and an attention mask [batch, tokens] where there is padding.
        """
        frame = self._next_frame(FrameType.FORWARD, want, encode_tensors(tensors))._replace(position=0)
        step: Step = asyncio.get_running_loop().create_future()
        self._waiting[frame.step] = _Waiting(step, self.held)
        self._next_step += 1
        try:
            self._exchange.post(frame)
        except CorollaError:
            del self._waiting[frame.step]
            raise
        return await self.receive(step)

    def prepare(self) -> PreparedStep | None:
        """A decode step of one token that whoever makes its hidden states sends, on whatever thread.

        None when its first blocks are not in this process: then `send` sends it. One that is not launched
        has to be withdrawn before anything else is sent. Errors as `send`.
        """
        frame = self._next_frame(FrameType.STEP, Flags.LAST_ONLY, b"")
        launch = self._exchange.prepare(frame)
        return None if launch is None else PreparedStep(frame, self._expect(frame, tokens=1), launch)

    def withdraw(self, prepared: PreparedStep) -> None:
        """Take a prepared step back, as if it had never been."""
        self._withdraw(prepared.frame)

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

    def _withdraw(self, frame: Frame) -> None:
        """Undo `_expect` for a step that could not be sent."""
        self._waiting.pop(frame.step, None)
        self._next_step, self.position = frame.step, frame.position

    async def receive(self, step: Step) -> WireTensor:
        """The hidden states that a step came back with.

        Raises:
            CorollaError: why there are none.
        """
        try:
            async with asyncio.timeout(STEP_SECONDS):
                tensors = await step
        except TimeoutError:
            late = GenerationFailed(
                f"a step did not come back within {STEP_SECONDS:g} s: send the request again"
            )
            self._break(Break(late, suspects=tuple(PeerId(hop.peer) for hop in self.grant.hops)))
            raise late from None
        if not tensors:
            empty = GenerationFailed("a step came back empty: send the request again")
            self.blame_last_hop(empty)
            raise empty
        return tensors[0]

    async def decode(self, hidden: WireTensor) -> WireTensor:
        """One decode step, [batch, tokens, hidden] in and [batch, 1, hidden] out. Errors as `receive`."""
        return await self.receive(self.send([hidden], kind=FrameType.STEP, want=Flags.LAST_ONLY))

    async def prefill(self, slices: Sequence[WireTensor]) -> WireTensor:
        """A prompt in slices; the last position's hidden states. Errors as `receive`.

        All but the last slice come back as bare acknowledgements, which pace the sending.
        """
        if not slices:
            raise InvalidRequest("there is nothing to prefill: give at least one token")
        pending: list[Step] = []
        try:
            for index, hidden in enumerate(slices):
                if len(pending) >= PREFILL_WINDOW:
                    await self.receive(pending.pop(0))
                want = Flags.LAST_ONLY if index == len(slices) - 1 else Flags.NO_OUTPUT
                pending.append(self.send([hidden], kind=FrameType.PREFILL, want=want))
            last = pending.pop()
            for future in pending:
                await self.receive(future)
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


def slice_lengths(tokens: int, bytes_per_token: int, max_tokens: int, hops: int = 1) -> list[int]:
    """How to cut a prompt of one token or more: into equal slices, to one token, that exceed neither limit.

    The limits are `max_tokens` tokens and `TARGET_SLICE_BYTES` bytes; a slice has one token at least. Over
    several hops a prompt of several slices begins with shorter ones: a slice goes on when it is there as a
    whole, so that they let the later hops begin, and their connections get up to speed, early.
    """
    most = max(1, min(TARGET_SLICE_BYTES // bytes_per_token, max_tokens))
    first = [most // part for part in LEADING_PARTS if most >= part] if hops > 1 and tokens > most else []
    rest = tokens - sum(first)
    count = math.ceil(rest / most)
    base, longer = divmod(rest, count)
    return first + [base + 1] * longer + [base] * (count - longer)
