"""The page's WebSocket: typed JSON both ways.

    page  -> chat, resume, stop
    relay -> welcome, swarm, delta, repairing, done, error, go_elsewhere

One connection carries any number of replies at once; `id`, chosen by the page, tells them apart. A reply
whose id nobody can guess outlives its connection: it can be resumed over another one.
Knows shapes. Does not know sockets, nor who may open one.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from schema.errors import MalformedMessage, TooLarge
from schema.generation import MAX_INT32, FinishReason, Message, Sampling, Stopping, Timing, Usage
from schema.limits import MAX_CONTROL_BYTES
from schema.messages import ErrorInfo, ModelName
from schema.swarm import SwarmStatus

ReplyId = Annotated[str, Meta(min_length=1, max_length=64)]
RESUMABLE_ID_CHARS = 16
"""Ids of at least so many characters are taken for random; a reply with a shorter one ends with its page."""


class Chat(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="chat"):
    """Ask for a reply to a conversation."""

    id: ReplyId
    model: ModelName
    messages: Annotated[list[Message], Meta(min_length=1)]
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping = field(default_factory=Stopping)
    continues: bool = False
    """As in `GenerationRequest`."""


class Resume(Struct, frozen=True, kw_only=True, tag="resume"):
    """Go on with a reply that was asked for over another connection, or listen to one beside another page."""

    id: ReplyId
    received: Annotated[int, Meta(ge=0, le=MAX_INT32)] = 0
    """How much of its text is there already, in UTF-16 code units (JavaScript's `length`)."""


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """End a reply; what has appeared so far stays."""

    id: ReplyId


class PageWelcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """First message to a page."""

    software: str
    swarm: SwarmStatus
    heartbeat_seconds: Annotated[float, Meta(gt=0.0)] | UnsetType = UNSET
    """The relay says something at least this often; left out: it does not promise to."""


class PageHeartbeat(Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """The relay is there. Browsers do not tell a page when its connection is dead but not closed."""


class SwarmChanged(Struct, frozen=True, kw_only=True, tag="swarm"):
    """The swarm as it is now; sent when it changes."""

    swarm: SwarmStatus


class ReplyDelta(Struct, frozen=True, kw_only=True, tag="delta"):
    """More text of a reply."""

    id: ReplyId
    text: str


class ReplyRepairing(Struct, frozen=True, kw_only=True, tag="repairing"):
    """A volunteer that served a reply has dropped out: more of it comes when another has taken over."""

    id: ReplyId


class ReplyDone(Struct, frozen=True, kw_only=True, tag="done"):
    """A reply is complete, or was stopped by the page (`reason` is then null)."""

    id: ReplyId
    reason: FinishReason | None
    usage: Usage | None = None
    timing: Timing | None = None


class PageError(Struct, frozen=True, kw_only=True, tag="error"):
    """A reply, or (without `id`) a message of the page, that failed."""

    error: ErrorInfo
    id: ReplyId | None = None


class GoElsewhere(Struct, frozen=True, kw_only=True, tag="go_elsewhere"):
    """This replica of the relay is about to stop: connect again when no reply is awaited any more."""

    within_seconds: float
    """At a random moment in this time, so that not all pages come at once."""


FromPage = Chat | Resume | Stop
ToPage = (
    PageWelcome
    | PageHeartbeat
    | SwarmChanged
    | ReplyDelta
    | ReplyRepairing
    | ReplyDone
    | PageError
    | GoElsewhere
)

_encoder = msgspec.json.Encoder()
_from_page: msgspec.json.Decoder[FromPage] = msgspec.json.Decoder(FromPage)


def encode_to_page(message: ToPage) -> str:
    return _encoder.encode(message).decode()


def decode_from_page(text: str | bytes) -> FromPage:
    """A page's message. Raises MalformedMessage or TooLarge."""
    if len(text) > MAX_CONTROL_BYTES:
        raise TooLarge(f"a message of {len(text)} characters; the limit is {MAX_CONTROL_BYTES}")
    try:
        return _from_page.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedMessage(f"not a message that a page may send: {error}") from error
