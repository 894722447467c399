"""The connection's state machine, without I/O: received messages in, checked events out.

Both ends use it: the relay's end accepts what a peer may send, the dialling end what the relay may
send. One instance belongs to one connection and to the task that reads it.

    HANDSHAKE --hello (at the relay) / welcome (at the peer)--> OPEN --close()--> CLOSED

It knows versions, states and who may say what. It does not know tokens, sockets or time.
"""

from dataclasses import dataclass
from enum import Enum

from msgspec import Struct

from schema import messages
from schema.errors import MalformedMessage, TooLarge, UnexpectedMessage, UnsupportedVersion
from schema.frames import HEADER_BYTES, KNOWN_TYPES, PROTOCOL_VERSION, Header, parse_header
from schema.limits import MAX_PAYLOAD_BYTES

MAX_FRAME_BYTES = HEADER_BYTES + 0xFFFF + MAX_PAYLOAD_BYTES
"""What the sockets of both ends are told to accept at most, in bytes."""


class State(Enum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class SkippedFrame:
    """A frame of a type that this version does not know: to be counted and otherwise ignored."""

    type: int


class Connection:
    """What both ends have in common: the state, and frames."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.HANDSHAKE

    def close(self) -> None:
        self.state = State.CLOSED

    def receive_frame(self, message: bytes) -> Header | SkippedFrame:
        """A binary message's header.

        Raises:
            UnexpectedMessage: before the handshake, or after the close.
            MalformedFrame, UnsupportedVersion, TooLarge: as `parse_header`.
        """
        if self.state is not State.OPEN:
            raise UnexpectedMessage(f"a frame is not allowed in state {self.state.value}")
        if len(message) > MAX_FRAME_BYTES:
            raise TooLarge(f"a frame of {len(message)} bytes; the limit is {MAX_FRAME_BYTES}")
        header = parse_header(message)
        return header if header.type in KNOWN_TYPES else SkippedFrame(header.type)

    def _refuse(self, message: Struct) -> UnexpectedMessage:
        return UnexpectedMessage(
            f"{message.__struct_config__.tag!r} is not allowed in state {self.state.value}"
        )


class RelayConnection(Connection):
    """The relay's end of one peer's connection."""

    __slots__ = ()

    def receive_text(self, text: str | bytes) -> messages.FromPeer:
        """A control message from the peer.

        Raises:
            MalformedMessage, TooLarge: not a message of this protocol.
            UnsupportedVersion: a hello of another version.
            UnexpectedMessage: not allowed in this state.
        """
        message = self._decode(text)
        is_hello = isinstance(message, messages.Hello)
        if self.state is State.CLOSED or is_hello is (self.state is State.OPEN):
            raise self._refuse(message)
        if is_hello:
            _check_version(message.protocol)
            self.state = State.OPEN
        return message

    def _decode(self, text: str | bytes) -> messages.FromPeer:
        try:
            return messages.decode_from_peer(text)
        except MalformedMessage:
            # A hello of another version may have other fields: its version is the better reason.
            version = messages.hello_version(text) if self.state is State.HANDSHAKE else None
            if version is not None:
                _check_version(version)
            raise


class PeerConnection(Connection):
    """The dialling end: a volunteer's or a client's."""

    __slots__ = ()

    def receive_text(self, text: str | bytes) -> messages.FromRelay:
        """A control message from the relay. Errors as `RelayConnection.receive_text`.

        A goodbye is allowed in every open state: a refused handshake ends with one.
        """
        message = messages.decode_from_relay(text)
        if isinstance(message, messages.Goodbye) and self.state is not State.CLOSED:
            self.state = State.CLOSED
            return message
        is_welcome = isinstance(message, messages.Welcome)
        if self.state is State.CLOSED or is_welcome is (self.state is State.OPEN):
            raise self._refuse(message)
        if is_welcome:
            self.state = State.OPEN
        return message


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise UnsupportedVersion(
            f"this relay speaks protocol version {PROTOCOL_VERSION}, the peer {version}: update the older one"
        )
