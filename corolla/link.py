"""The one outbound WebSocket to the relay: dialling, the handshake, and both directions of it.

Used by volunteers and by clients alike. One read loop, one send loop with a bounded outbox, and
heartbeats; everything here belongs to the event loop's thread. What arrives goes to a `Receiver`.
Does not know spans, sessions or generation.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

import msgspec
from msgspec import UNSET
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

from corolla.address import peer_url, proxy_for
from corolla.websocket import MessageConnection
from schema import messages
from schema.api import ErrorBody
from schema.errors import (
    CorollaError,
    InvalidRequest,
    ProtocolViolation,
    QueueFull,
    Unauthorized,
    Unavailable,
    UnexpectedMessage,
    Unresponsive,
    all_errors,
    error_from_code,
)
from schema.frames import PROTOCOL_VERSION, Header
from schema.ids import PeerId, new_instance_key
from schema.messages import FromPeer, FromRelay, Heartbeat, Hello, Welcome, encode_message
from schema.outbox import Outbox, Urgency
from schema.protocol import MAX_FRAME_BYTES, PeerConnection, SkippedFrame

HANDSHAKE_SECONDS = 15.0
CLOSE_SECONDS = 2.0
"""How long the relay may take to answer a close."""
OUTBOX_BYTES = 256 * 1024 * 1024
MISSED_HEARTBEATS = 3
"""Heartbeats that the relay may miss before it counts as gone."""
ORDINARY_CLOSES = frozenset({1000, 1001, 1005, 1012})
"""Codes (RFC 6455 section 7.4) of a relay that stops or restarts: nobody is at fault."""

log = logging.getLogger(__name__)


class _NoDetails(logging.LoggerAdapter[logging.Logger]):
    """For the WebSocket library, which at level DEBUG logs every header and text: tokens and prompts."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Where to dial, and as whom."""

    relay_url: str
    """Base URL: http(s) or ws(s). Several replicas' with commas between them."""
    token: str = field(repr=False)
    name: str
    """Shown to everyone."""
    software: str
    instance: str = field(default_factory=new_instance_key, repr=False)
    """Kept by a process over its reconnects, so that it stays the same peer."""
    can_move: bool = False
    """Whether it goes elsewhere when it is asked to; see corolla/carrier.py."""
    hears_operators: bool = False
    """Whether its receiver knows `quarantined` and `restored`."""


class Receiver(Protocol):
    """What arrives over a link; called by the read loop, so neither method may take long."""

    def on_frame(self, header: Header, message: bytes) -> None: ...
    def on_message(self, message: FromRelay) -> None: ...


class RelayLink:
    """An open connection to the relay. Made by `dial`, used until `run` returns or raises."""

    def __init__(
        self, socket: MessageConnection, connection: PeerConnection, welcome: Welcome, url: str = ""
    ) -> None:
        self.url = url
        """What was dialled, as it stands among the options."""
        self.welcome = welcome
        self.peer_id = PeerId(welcome.peer)
        self.skipped_frames = 0
        """Frames of types that this version does not know."""
        self._socket = socket
        self._connection = connection
        self._outbox = Outbox(OUTBOX_BYTES)
        self._wake = asyncio.Event()
        self._is_idle = False
        """Whether the send loop waits for something to do; written by the send loop."""
        self._closing = False
        self._is_held = False
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._refused: asyncio.Future[None] = self._loop.create_future()
        """Fails with what is wrong with a message that arrived, or with the relay's goodbye."""

    def send_frame(self, frame: bytes, urgency: Urgency) -> None:
        """Queue a frame.

        Raises:
            QueueFull: the connection is slower than what is sent.
        """
        self._put(frame, urgency)

    def send_message(self, message: FromPeer) -> None:
        """Queue a control message. Errors as `send_frame`."""
        self._put(encode_message(message), Urgency.CONTROL)

    def close(self) -> None:
        """Send what is queued, then close; `run` returns."""
        self._closing = True
        self._wake.set()

    def hold(self) -> None:
        """Send nothing until `release`: it waits in the outbox."""
        self._is_held = True

    def release(self) -> None:
        """Say that the peer has arrived, and send what has waited."""
        self._outbox.put(encode_message(messages.Arrived()), Urgency.CONTROL, first=True)
        self._is_held = False
        self._wake.set()

    def send_last(self) -> None:
        """Say, after everything that waits, that the peer goes on over another connection."""
        self._put(encode_message(messages.Moving()), Urgency.PREFILL)

    async def abandon(self) -> None:
        """Close a connection that is not to be used."""
        await self._socket.close()

    async def run(self, receiver: Receiver, status: "StatusSource | None" = None) -> None:
        """Serve the connection until `close`.

        Raises:
            CorollaError: why the relay ended it, or Unavailable when the network did.
        """
        self._socket.deliver_to(partial(self._on_message, receiver))
        tasks = [
            self._refused,
            asyncio.create_task(self._read_loop(receiver)),
            asyncio.create_task(self._send_loop()),
            asyncio.create_task(self._heartbeat_loop(status)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._socket.deliver_to(None)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._socket.close()
        for error in results:
            if isinstance(error, Exception):
                raise error

    def _put(self, message: str | bytes, urgency: Urgency) -> None:
        is_free = self._is_idle and not self._is_held and not self._outbox.waiting_bytes
        if is_free and self._socket.send_now(message):
            return
        if not self._outbox.put(message, urgency):
            raise QueueFull(
                "the connection to the relay is slower than what is sent over it", retry_after=5.0
            )
        self._wake.set()

    async def _send_loop(self) -> None:
        """Sends what cannot be sent at once."""
        try:
            while True:
                message = None if self._is_held else self._outbox.take()
                if message is not None:
                    await self._socket.send(message)
                elif self._closing and not self._is_held:
                    return
                else:
                    self._wake.clear()
                    self._is_idle = True
                    await self._wake.wait()
                    self._is_idle = False
        except ConnectionClosed as error:
            raise _lost(error) from error

    async def _read_loop(self, receiver: Receiver) -> None:
        """Handles what is not delivered as it arrives, and notices the connection's end."""
        try:
            while not self._refused.done():
                self._on_message(receiver, await self._socket.next_message())
        except ConnectionClosed as error:
            raise _lost(error) from error

    def _on_message(self, receiver: Receiver, message: str | bytes) -> None:
        if self._refused.done():
            return
        self._heard = self._loop.time()
        try:
            if isinstance(message, bytes):
                self._on_frame(receiver, message)
            else:
                self._on_text(receiver, message)
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._refused.set_exception(error)

    def _on_frame(self, receiver: Receiver, message: bytes) -> None:
        header = self._connection.receive_frame(message)
        if isinstance(header, SkippedFrame):
            self.skipped_frames += 1
        else:
            receiver.on_frame(header, message)

    def _on_text(self, receiver: Receiver, text: str) -> None:
        message = self._connection.receive_text(text)
        if isinstance(message, messages.Goodbye):
            raise message.error.to_error()
        if not isinstance(message, Heartbeat):
            receiver.on_message(message)

    async def _heartbeat_loop(self, status: "StatusSource | None") -> None:
        interval = self.welcome.heartbeat_seconds
        while True:
            await asyncio.sleep(interval)
            if self._loop.time() - self._heard > MISSED_HEARTBEATS * interval:
                raise Unresponsive(f"the relay was silent for {MISSED_HEARTBEATS * interval:g} s")
            self.send_message(status() if status else Heartbeat())


class StatusSource(Protocol):
    """What a peer tells of itself with each heartbeat."""

    def __call__(self) -> Heartbeat: ...


async def dial(options: LinkOptions, *, moves: bool = False, after: str | None = None) -> RelayLink:
    """Connect to one of the addresses, say hello, and be welcomed.

    `moves`: to go on there with what another connection carries, if the welcome says that it may be done.
    `after`: the address to try last, since it was the last one.

    Raises:
        InvalidRequest: the address, the token or the proxy's address is not one.
        Unavailable: nobody answers there, or not as a relay does.
        Unauthorized and others: what the relay said.
    """
    addresses = options.relay_url.split(",")
    if after in addresses:
        place = addresses.index(after) + 1
        addresses = addresses[place:] + addresses[:place]
    for address in addresses[:-1]:
        try:
            return await _dial(address, options, moves)
        except (Unavailable, Unresponsive) as error:
            log.info("%s", error.message)
    return await _dial(addresses[-1], options, moves)


async def _dial(address: str, options: LinkOptions, moves: bool) -> RelayLink:
    url = peer_url(address)
    if not options.token.isascii() or not options.token.isprintable():
        raise InvalidRequest("the token holds characters that no token has: paste it whole, and nothing else")
    try:
        socket = await connect(
            url,
            additional_headers={"Authorization": f"Bearer {options.token}"},
            compression=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=64,
            ping_interval=None,
            create_connection=MessageConnection,
            open_timeout=HANDSHAKE_SECONDS,
            close_timeout=CLOSE_SECONDS,
            proxy=proxy_for(url),
            logger=_NoDetails(log),
        )
    except InvalidStatus as error:
        raise _refusal(error, address) from error
    except InvalidURI as error:
        raise InvalidRequest(f"{address!r} is not the address of a relay") from error
    except (InvalidProxy, ImportError) as error:
        raise InvalidRequest(
            f"the proxy that the environment names cannot be used ({error}): correct it, "
            "or list the relay's host in NO_PROXY"
        ) from error
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise Unavailable(
            f"no relay answers at {address} ({error}): check the address and that it runs",
            retry_after=2.0,
        ) from error
    try:
        return await _shake_hands(cast(MessageConnection, socket), options, address, moves)
    except BaseException:
        await socket.close()
        raise


async def _shake_hands(
    socket: MessageConnection, options: LinkOptions, address: str, moves: bool
) -> RelayLink:
    hello = Hello(
        protocol=PROTOCOL_VERSION,
        software=options.software,
        instance=options.instance,
        name=options.name,
        can_move=True if options.can_move else UNSET,
        moves=True if moves else UNSET,
        hears_operators=True if options.hears_operators else UNSET,
    )
    connection = PeerConnection()
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await socket.send(encode_message(hello))
            answer = connection.receive_text(await socket.next_message())
    except TimeoutError as error:
        raise Unresponsive("the relay did not answer the hello") from error
    except ConnectionClosed as error:
        raise _lost(error) from error
    if isinstance(answer, messages.Goodbye):
        raise answer.error.to_error()
    if not isinstance(answer, Welcome):
        raise UnexpectedMessage("the relay's first message is a welcome")
    return RelayLink(socket, connection, answer, address)


def _refusal(error: InvalidStatus, relay_url: str) -> CorollaError:
    """What the relay answered instead of upgrading, from its error body where there is one."""
    response = error.response
    try:
        detail = msgspec.json.decode(response.body or b"", type=ErrorBody).error
        return error_from_code(detail.code, detail.message, retry_after=_retry_after(error))
    except msgspec.DecodeError:
        # Not in a relay's words: a proxy or a portal on the way may say this for a while, so it is not final.
        return Unavailable(
            f"{relay_url} answered with HTTP status {response.status_code}: is this a Corolla relay?"
        )


def _retry_after(error: InvalidStatus) -> float | None:
    said = error.response.headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdecimal() else None


def _lost(error: ConnectionClosed) -> CorollaError:
    """What a connection's end means. The relay's own words came before, in a goodbye."""
    closed = error.rcvd
    if closed is None or closed.code in ORDINARY_CLOSES:
        return Unavailable("the connection to the relay was lost", retry_after=1.0)
    words = f"the relay closed the connection ({closed.code} {closed.reason}".rstrip() + ")"
    if closed.reason in all_errors():
        return error_from_code(closed.reason, words)
    return Unavailable(words, retry_after=1.0)


def is_final(error: CorollaError) -> bool:
    """Whether dialling again with the same token and settings cannot help."""
    return isinstance(error, Unauthorized | InvalidRequest | ProtocolViolation) or error.code in (
        "forbidden",
        "replaced",
        "join_refused",
    )
