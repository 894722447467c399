"""What replicas of the relay say to each other over the bus: the parcel, and the notices in it.

A parcel is a header of 40 bytes and a body, little endian:

    version u8 | kind u8 | flags u8 | urgency u8 | lane u64 | number u64 | from 8 | peer 8 | part u32

    HERE    nothing; to all, unnumbered: this replica lives
    TEXT    a control message for a peer of the receiver, as it will be sent
    FRAME   a frame for a peer of the receiver, as it will be sent
    TOLD    a control message that a peer of the sender has sent, about a reply that the receiver runs
    NOTICE  JSON, one of the structs below: from one replica to the other

What is too long for the bus goes in several parcels, numbered by `part`, all but the last with the flag MORE.
`lane` and `number` are relay/lanes.py's. Replicas of one relay trust each other. They are of the same version
or of neighbouring ones: a parcel of another version is counted and dropped.

Knows bytes and shapes. Does not know the bus, nor who is connected.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct

from relay.bus import NOBODY, ReplicaKey
from schema.errors import MalformedMessage
from schema.ids import PeerId, Span, peer_id_from_bytes, peer_id_to_bytes
from schema.join import Refusal
from schema.outbox import Urgency
from schema.swarm import VolunteerState

PARCEL_VERSION = 1
MORE = 1
"""Flag: the next parcel of this urgency goes on with the body."""
_HEADER = struct.Struct("<BBBBQQ8s8sI")
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    HERE = 0
    TEXT = 1
    FRAME = 2
    TOLD = 3
    NOTICE = 4


class Parcel(NamedTuple):
    """A parcel that has come."""

    kind: int
    has_more: bool
    part: int
    urgency: Urgency
    lane: int
    number: int
    sender: ReplicaKey
    peer: PeerId
    body: bytes


# ---- notices ----------------------------------------------------------------------------------


class PeerNews(Struct, frozen=True, array_like=True):
    """A peer that is connected to the sender."""

    peer: PeerId
    name: str
    since: float
    """Unix time from which on it is there: of two replicas that say they have a peer, the later is right.

    Later than where it was before, as far as that is known, whatever the clocks of the two machines say.
    """
    moved: bool
    """Whether it came with all that was on its way to it; otherwise whatever it held is lost."""


class Opened(Struct, frozen=True, tag="opened"):
    """The sender has begun to know the receiver, and wants to be told all."""

    replica: str
    """The sender's name."""
    answers: int = 0
    """The receiver's lane that the sender has heard before it opened its own; 0 for none."""


class Present(Struct, frozen=True, tag="present"):
    """These peers are here now. `is_all`: and no others."""

    peers: list[PeerNews]
    is_all: bool = False


class Left(Struct, frozen=True, tag="left"):
    """A peer has gone."""

    peer: PeerId


class VolunteerNews(Struct, frozen=True, kw_only=True):
    """A volunteer of the sender as its swarm has it."""

    peer: PeerId
    device: str
    memory: int
    joined_at: float
    blocks_per_second: float
    model: str
    start: int
    end: int
    head: bool
    state: VolunteerState
    dtype: str
    quantization: str
    done: int
    total: int
    sessions: int
    granted: int
    is_paused: bool
    is_in_doubt: bool
    score: float
    rtt: float | None
    room: int | None
    cached: list[Span]
    settled_at: float


class Serves(Struct, frozen=True, tag="serves"):
    """Volunteers that are new, or not what they were; and peers that are none any more."""

    volunteers: list[VolunteerNews]
    no_more: list[PeerId]


class Received(Struct, frozen=True, tag="received"):
    """All parcels of the receiver's lane have come that have lower numbers than this."""

    lane: int
    below: int


class Missed(Struct, frozen=True, tag="missed"):
    """Parcels of the receiver's lane, from one number to below another, will not come."""

    lane: int
    first: int
    below: int


class Leaving(Struct, frozen=True, tag="leaving"):
    """The sender stops: its peers have moved, or are gone with it."""


class Refused(Struct, frozen=True, tag="refused"):
    """A machine of a token could not join. `refusal` None: what the receiver knows of that is mended."""

    token: str
    """Its id."""
    refusal: Refusal | None


Notice = Opened | Present | Left | Serves | Received | Missed | Leaving | Refused

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Notice] = msgspec.json.Decoder(Notice)


def encode_notice(notice: Notice) -> bytes:
    return _encoder.encode(notice)


def decode_notice(body: bytes) -> Notice:
    """Raises MalformedMessage."""
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise MalformedMessage(f"not a notice of this version's replicas: {error}") from error


def encode_parcel(parcel: Parcel) -> bytes:
    head = _HEADER.pack(
        PARCEL_VERSION,
        parcel.kind,
        MORE if parcel.has_more else 0,
        parcel.urgency,
        parcel.lane,
        parcel.number,
        bytes.fromhex(parcel.sender),
        peer_id_to_bytes(parcel.peer),
        parcel.part,
    )
    return head + parcel.body


def here(sender: ReplicaKey) -> bytes:
    """The parcel that says that a replica lives."""
    return encode_parcel(Parcel(Kind.HERE, False, 0, Urgency.CONTROL, 0, 0, sender, NOBODY, b""))


def decode_parcel(message: bytes) -> Parcel:
    """Raises MalformedMessage for what is no parcel of this version."""
    if len(message) < HEADER_BYTES or message[0] != PARCEL_VERSION or message[3] >= len(Urgency):
        raise MalformedMessage("not a parcel of this version's replicas")
    _, kind, flags, urgency, lane, number, sender, peer, part = _HEADER.unpack_from(message)
    return Parcel(
        kind,
        bool(flags & MORE),
        part,
        Urgency(urgency),
        lane,
        number,
        ReplicaKey(sender.hex()),
        peer_id_from_bytes(peer),
        message[HEADER_BYTES:],
    )
