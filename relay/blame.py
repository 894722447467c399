"""Whose fault it is, when something went wrong that the relay has seen: pure functions.

What the relay sees itself (a connection that ended, bytes that break the protocol) is one thing; what one
party says of another is a different one, and a party may lie. So a hop that refuses what it was sent
accuses itself and the hop before it alike, and nobody for what a driver sent.
"""

from dataclasses import dataclass

from schema.errors import (
    CorollaError,
    FrameRefused,
    KVCacheFull,
    MalformedTensor,
    NotFinite,
    NotServing,
    PositionMismatch,
    PrefixUnknown,
    ProtocolViolation,
    QueueFull,
    Replaced,
    ResumeRefused,
    RouteForged,
    SessionUnknown,
    ShapeMismatch,
    Unresponsive,
    UnsupportedVersion,
    WrongHop,
)
from schema.messages import Delta, Embedded, Failed, Finished
from schema.swarm import EvidenceKind

_NO_ROOM = frozenset(
    error.code
    for error in (KVCacheFull, QueueFull, SessionUnknown, PrefixUnknown, ResumeRefused, PositionMismatch)
)
"""A hop that says so is full, or was asked for what it need not have."""
_BAD_INPUT = frozenset(error.code for error in (ShapeMismatch, MalformedTensor, NotFinite))
"""Either what a hop was sent is wrong, or what it says of it. `not_finite` may be its own output too."""


@dataclass(frozen=True, slots=True)
class Departure:
    """How a volunteer's connection ended."""

    ending: CorollaError | None
    """Why the relay ended it; None when the relay did not."""
    broken: int
    """Sessions and replies of others that went through it."""
    was_probing: bool = False
    was_draining: bool = False
    """Whether it had said that it would leave."""
    relay_stops: bool = False
    broke_websocket: bool = False
    """Whether the server ended it for bytes that are no WebSocket message."""


def of_departure(departure: Departure) -> EvidenceKind | None:
    """What a departure is evidence of; None: of nothing, as when it was idle, or the relay's own doing."""
    ending = departure.ending
    if departure.relay_stops or isinstance(ending, UnsupportedVersion):
        return None
    if departure.broke_websocket or isinstance(ending, ProtocolViolation):
        return "malformed"
    if ending is not None and not isinstance(ending, Unresponsive | Replaced):
        return "probe_failed" if departure.was_probing else None
    if departure.broken and not departure.was_draining:
        return "vanished"
    return "silent" if isinstance(ending, Unresponsive) else None


def of_failure(code: str, hop: int) -> tuple[EvidenceKind, bool]:
    """What the FAILURE of hop number `hop` is evidence of, and whether of the hop before as well."""
    if code in _NO_ROOM:
        return "refused", False
    if code in _BAD_INPUT:
        return ("disputed", True) if hop > 0 else ("refused", False)
    return "failed", False


def of_reply(event: Delta | Embedded | Finished | Failed, *, was_begun: bool) -> EvidenceKind | None:
    """What something that a head says of a reply is evidence of.

    None: the reply goes on, or it may have failed for the tokens that another head had begun it with
    (`was_begun`), which may be none of the model's.
    """
    match event:
        case Finished():
            return "replied"
        case Failed() if event.error.code != NotServing.code:
            return None if was_begun else "reply_failed"
        case _:
            return None


def of_refusal(refusal: FrameRefused) -> EvidenceKind | None:
    """What a refused frame is evidence of, against its sender; None where others or time are to blame."""
    return "forged" if isinstance(refusal, WrongHop | RouteForged) else None
