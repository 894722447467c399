"""A volunteer without a model: the real protocol over a plain socket, and blocks that send back what came.

It costs little, so that thousands of them fit into a process and the relay is what is measured. One object is
one connection, owned by the loop. Masks with a key of zeros, as RFC 6455 lets a client choose its keys.
"""

import asyncio
import base64
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from schema.frames import PROTOCOL_VERSION, Frame, FrameType, decode_frame, encode_frame
from schema.ids import PeerId, SessionId, new_instance_key
from schema.messages import (
    Assignment,
    FromPeer,
    Goodbye,
    Heartbeat,
    Hello,
    Loaded,
    ModelFacts,
    ModelOffer,
    Offer,
    Probe,
    Ready,
    Serving,
    Welcome,
    decode_from_relay,
    encode_message,
)
from schema.tensors import DType, WireTensor, encode_tensors

DTYPE = "float32"
HIDDEN = 8
_TEXT, _BINARY, _PING, _PONG = 1, 2, 9, 10
_KEY = bytes(4)


def facts(model: str, blocks: int) -> ModelFacts:
    """What volunteers say of a model that does not exist."""
    return ModelFacts(
        name=model,
        digest="0" * 64,
        family="plain",
        blocks=blocks,
        hidden_size=HIDDEN,
        parameters=0,
        context=4096,
    )


@dataclass(frozen=True, slots=True)
class Card:
    """Who a plain volunteer is, and what it offers."""

    token: str
    name: str
    model: ModelFacts
    span: tuple[int, int] | None = None
    """The blocks that it insists on."""


class PlainPeer(asyncio.Protocol):
    """One volunteer: connects, joins, passes its probe, and sends heartbeats for as long as it lives."""

    def __init__(self, card: Card, host: str) -> None:
        self.id = PeerId("")
        self.serving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the relay takes it for serving, or with why it does not."""
        self.on_frame: Callable[[Frame], None] = self._answer
        """What it does with steps. It answers them by default, each with what it got."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the connection is gone: why."""
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._card = card
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._is_open = False
        self._interval = 0.0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When its next heartbeat is, in loop time."""

    # ---- the socket ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast(asyncio.Transport, transport)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        stream.write(
            f"GET /ws/peer HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self._card.token}\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._fail(f"the connection was lost: {exc}")
        self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(head.decode(errors="replace").partition("\r\n")[0])
                return
            self._is_open, self._buffer = True, bytearray(rest)
            self._say_hello()
        while (message := _take_message(self._buffer)) is not None:
            self._on_message(*message)

    async def close(self) -> None:
        """Hang up, without a word."""
        if self._transport is not None:
            self._transport.abort()
            await self._closed

    def send(self, message: FromPeer) -> None:
        self.send_text(encode_message(message))

    def send_text(self, text: str) -> None:
        self._write(_TEXT, text.encode())

    def send_frame(self, frame: Frame) -> None:
        self.send_bytes(encode_frame(frame))

    def send_bytes(self, message: bytes) -> None:
        """A binary message, whatever it holds."""
        self._write(_BINARY, message)

    def _write(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(masked(opcode, payload))

    # ---- the protocol -------------------------------------------------------------------------

    def _say_hello(self) -> None:
        instance, name = new_instance_key(), self._card.name
        self.send(Hello(protocol=PROTOCOL_VERSION, software="benchmark", instance=instance, name=name))

    def _on_message(self, opcode: int, payload: bytes) -> None:
        if opcode == _BINARY:
            frame = decode_frame(payload)
            if frame.type == FrameType.PROBE:
                self._on_probe_frame(frame)
            else:
                self.on_frame(frame)
        elif opcode == _PING:
            self._write(_PONG, payload)
        elif opcode == _TEXT:
            match decode_from_relay(payload.decode()):
                case Welcome() as welcome:
                    self._enter(welcome)
                case Assignment(model=model, start=start, end=end, head=head):
                    self.send(Loaded(model=model, start=start, end=end, head=head, dtype=DTYPE))
                case Probe(session=session, route=route):
                    self._send_probe(SessionId(bytes.fromhex(session)), route)
                case Serving():
                    if not self.serving.done():
                        self.serving.set_result(None)
                case Goodbye(error=error):
                    self._fail(f"{error.code}: {error.message}")
                case _:
                    pass

    def _enter(self, welcome: Welcome) -> None:
        self.id, self._interval = PeerId(welcome.peer), welcome.heartbeat_seconds
        # Each at a time of its own, as real ones do that did not all start in the same second.
        phase = secrets.randbelow(1000) / 1000 * self._interval
        self._due = asyncio.get_running_loop().time() + phase
        self._heartbeat = asyncio.get_running_loop().call_at(self._due, self._beat)
        start, end = self._card.span or (None, None)
        offer = ModelOffer(
            facts=self._card.model,
            max_blocks=max(1, self._card.model.blocks // 3),
            can_hold_head=True,
            dtype=DTYPE,
            wanted_start=start,
            wanted_end=end,
        )
        self.send(Offer(device="a plain socket", memory=1 << 33, models=[offer], blocks_per_second=100.0))

    def _beat(self) -> None:
        self.send(Heartbeat())
        # Not from now: those of a process that had to wait would keep the same time from then on, as machines
        # of their own do not.
        self._due += self._interval
        self._heartbeat = asyncio.get_running_loop().call_at(self._due, self._beat)

    def _send_probe(self, session: SessionId, route: bytes) -> None:
        tensors = [WireTensor(DType.FLOAT32, (1, 1, HIDDEN), bytes(4 * HIDDEN))]
        self.send_frame(Frame(FrameType.PROBE, 0, session, 0, 0, route, encode_tensors(tensors)))

    def _on_probe_frame(self, frame: Frame) -> None:
        if frame.hop == 0:
            self._answer(frame)
        else:
            self.send(Ready(session=frame.session.hex()))

    def _answer(self, frame: Frame) -> None:
        self.send_frame(frame._replace(hop=frame.hop + 1))

    def _fail(self, why: str) -> None:
        if not self.serving.done():
            self.serving.set_exception(ConnectionError(f"{self._card.name}: {why}"))
        if not self.lost.done():
            self.lost.set_result(why)


async def connect(url: str, card: Card) -> PlainPeer:
    """A volunteer that serves. Raises OSError: why it does not."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(
        partial(PlainPeer, card, parts.netloc), parts.hostname or "", parts.port or 80
    )
    try:
        await peer.serving
    except ConnectionError:
        await peer.close()
        raise
    return peer


def masked(opcode: int, payload: bytes) -> bytes:
    """A whole message as a client sends it."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, 0x80 | size) + _KEY + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size) + _KEY + payload
    return struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size) + _KEY + payload


def _take_message(buffer: bytearray) -> tuple[int, bytes] | None:
    """The first whole message of what has arrived, taken out: opcode and payload. Servers do not mask."""
    if len(buffer) < 2:
        return None
    size, start = buffer[1] & 0x7F, 2
    if size >= 126:
        start = 4 if size == 126 else 10
        if len(buffer) < start:
            return None
        size = int.from_bytes(buffer[2:start], "big")
    if len(buffer) < start + size:
        return None
    opcode, payload = buffer[0] & 0x0F, bytes(buffer[start : start + size])
    del buffer[: start + size]
    return opcode, payload
