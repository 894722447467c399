"""Peers that say exactly what a test wants said: the other side of `/ws/peer`, without any model."""

import asyncio
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from schema import messages
from schema.errors import CorollaError
from schema.frames import PROTOCOL_VERSION, Flags, Frame, FrameType, decode_frame, encode_frame
from schema.generation import FinishReason, Timing, Usage
from schema.ids import PeerId, SessionId
from schema.messages import FromPeer, FromRelay, ModelFacts, ModelOffer, Offer
from schema.protocol import PeerConnection
from tests.relay.core.waiting import DEADLINE

M = TypeVar("M", bound=FromRelay)

MODEL = "llama"
FACTS = ModelFacts(
    name=MODEL, digest="a" * 64, family="llama", blocks=8, hidden_size=4, parameters=1000, context=128
)
PROMPT_TOKENS = 5
"""What every scripted reply says that its prompt took."""


@dataclass(frozen=True)
class Journey:
    """One session and its route."""

    session: SessionId
    route: bytes

    def frame(
        self,
        hop: int,
        payload: bytes = b"activations",
        kind: int = FrameType.STEP,
        *,
        step: int = 0,
        position: int = 0,
        epoch: int = 0,
    ) -> bytes:
        """A frame to stop `hop`."""
        return encode_frame(
            Frame(kind, hop, self.session, step, position, self.route, payload, Flags.NONE, epoch)
        )


class ScriptedPeer:
    """The other side of `/ws/peer`: a volunteer or client without any model.

    Reads from its socket only when the test asks it to.
    """

    def __init__(self, connection: ClientConnection, token: str, instance: str) -> None:
        self.socket = connection
        self.token = token
        self.instance = instance
        self.id = PeerId("")
        self.name = ""
        self.welcome: messages.Welcome
        self._protocol = PeerConnection()
        self._frames: deque[bytes] = deque()
        self._messages: deque[FromRelay] = deque()

    # ---- saying ----

    async def say(self, message: FromPeer) -> None:
        await self.socket.send(messages.encode_message(message))

    async def send(self, *frames: bytes) -> None:
        for frame in frames:
            await self.socket.send(frame)

    async def shake_hands(self, name: str) -> None:
        hello = messages.Hello(protocol=PROTOCOL_VERSION, software="tests", instance=self.instance, name=name)
        await self.say(hello)
        self.welcome = await self.hear(messages.Welcome)
        self.id, self.name = PeerId(self.welcome.peer), name

    async def join(self, start: int, end: int, *, head: bool = False) -> None:
        """Go all the way from the offer to serving."""
        await self.say(offer(start, end, head=head))
        await self.load(await self.hear(messages.Assignment))
        await self.pass_probe(await self.hear(messages.Probe))
        await self.hear(messages.Serving)

    async def load(self, given: messages.Assignment) -> None:
        await self.say(
            messages.Loaded(
                model=given.model, start=given.start, end=given.end, head=given.head, dtype="float32"
            )
        )

    async def pass_probe(self, probe: messages.Probe) -> None:
        """Send the probe to itself, answer it, and say so."""
        journey = Journey(SessionId(bytes.fromhex(probe.session)), probe.route)
        for hop in (0, 1):
            await self.send(journey.frame(hop, kind=FrameType.PROBE))
            await self.frame()
        await self.say(messages.Ready(session=probe.session))

    # ---- hearing ----

    async def hear(self, kind: type[M]) -> M:
        """The next control message, which must be of this kind; heartbeats do not count."""
        while not self._messages:
            await self._read()
        message = self._messages.popleft()
        if not isinstance(message, kind):
            raise AssertionError(f"{kind.__name__} was due, not {message}")
        return message

    async def frame(self) -> bytes:
        """The next frame."""
        while not self._frames:
            await self._read()
        return self._frames.popleft()

    async def failure(self) -> messages.Failure:
        """The next frame, which must be a FAILURE: its payload."""
        frame = decode_frame(await self.frame())
        if frame.type != FrameType.FAILURE:
            raise AssertionError(f"a FAILURE was due, not {frame}")
        return messages.decode_failure(frame.payload)

    async def goodbye(self) -> tuple[str, int]:
        """How the relay ends the connection: the error code of its goodbye, and the close code.

        What comes before is skipped.
        """
        self._messages.clear()
        with suppress(ConnectionClosed):
            while True:
                await self._read()
        last = self._messages[-1] if self._messages else None
        if not isinstance(last, messages.Goodbye):
            raise AssertionError(f"closed without a goodbye, after {last}")
        return last.error.code, self.close_code

    async def closed(self) -> int:
        """The close code with which the connection ends, whatever comes before."""
        with suppress(ConnectionClosed):
            while True:
                await self._read()
        return self.close_code

    @property
    def close_code(self) -> int:
        code = self.socket.close_code
        if code is None:
            raise AssertionError("the connection is open")
        return code

    async def is_served(self) -> None:
        """Return when the relay answers this peer, after all that it was sent before: it is well."""
        await self.say(messages.RouteRequest(request="ping", model="?", session="0" * 32))
        while True:
            if (await self.hear(messages.Refused)).request == "ping":
                return

    async def _read(self) -> None:
        async with asyncio.timeout(DEADLINE):
            received = await self.socket.recv()
        if isinstance(received, bytes):
            self._protocol.receive_frame(received)
            self._frames.append(received)
            return
        message = self._protocol.receive_text(received)
        if not isinstance(message, messages.Heartbeat):
            self._messages.append(message)

    # ---- leaving ----

    async def close(self) -> None:
        await self.socket.close()

    def reset(self) -> None:
        """Vanish: no close frame, and TCP's RST in place of its FIN."""
        raw: socket.socket = self.socket.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.transport.abort()


def model_offer(
    start: int | None = None,
    end: int | None = None,
    *,
    max_blocks: int = FACTS.blocks,
    head: bool = False,
    facts: ModelFacts = FACTS,
) -> ModelOffer:
    return ModelOffer(
        facts=facts,
        max_blocks=max_blocks,
        can_hold_head=head,
        dtype="float32",
        wanted_start=start,
        wanted_end=end,
    )


def offer(
    start: int | None = None,
    end: int | None = None,
    *,
    max_blocks: int = FACTS.blocks,
    head: bool = False,
    facts: ModelFacts = FACTS,
) -> Offer:
    """An offer of one model; with a span, the one that its owner insists on."""
    model = model_offer(start, end, max_blocks=max_blocks, head=head, facts=facts)
    return Offer(device="CPU", memory=2**30, models=[model])


async def answer(head: ScriptedPeer, *texts: str, reason: FinishReason = "stop") -> messages.Generate:
    """Let a head answer the next request with these pieces of text; the request."""
    generate = await head.hear(messages.Generate)
    await say_texts(head, generate, *texts)
    await finish(head, generate, reason=reason, tokens=len(texts))
    return generate


async def say_texts(head: ScriptedPeer, generate: messages.Generate, *texts: str) -> None:
    for number, text in enumerate(texts, 1):
        await head.say(messages.Delta(request=generate.request, text=text, tokens=number))


async def finish(
    head: ScriptedPeer, generate: messages.Generate, *, reason: FinishReason = "stop", tokens: int = 0
) -> None:
    usage = Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=tokens, total_tokens=PROMPT_TOKENS + tokens)
    timing = Timing(first_token=0.1, total=0.2)
    await head.say(messages.Finished(request=generate.request, reason=reason, usage=usage, timing=timing))


async def fail(head: ScriptedPeer, generate: messages.Generate, error: CorollaError) -> None:
    await head.say(messages.Failed(request=generate.request, error=messages.ErrorInfo.of(error)))
