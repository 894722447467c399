"""Control messages between a peer (volunteer or client) and the relay: JSON text frames.

One tagged, typed struct each (`"type"` is the tag). The life of a volunteer, in order:

    peer  -> hello                     relay -> welcome        connected, token accepted
    peer  -> offer                     relay -> assignment     what it can hold; what it shall hold
    peer  -> progress ...                                      fetching and loading
    peer  -> loaded                    relay -> probe          the span is in memory; a route to itself
    peer  -> ready                     relay -> serving        a probe frame came back through the relay
    peer  -> heartbeat ...             relay -> heartbeat      as long as it lives, both ways
    peer  -> draining                  relay -> goodbye        before it leaves
                                       relay -> quarantined    an operator keeps it out of routes, and why
                                       relay -> restored       and no longer

How a peer goes from one replica of the relay to another without a gap:

    old   -> go_elsewhere              peer  -> hello (moves)  over a second connection, after a while
    new   -> welcome (moves)           peer  -> moving         the last that it says over the first one
    old   -> goodbye (moved)           peer  -> arrived        all that was on its way has come

The life of a request at the head that drives it:

    relay -> generate | embed          peer  -> route_request  a route for its session
    relay -> route | refused           peer  -> delta ...      text as it appears; embedded ... of an embed
    relay -> cancel                    peer  -> finished | failed

Knows shapes and ranges. Does not know states (schema/protocol.py) or sockets.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from schema.errors import CorollaError, InvalidRequest, MalformedMessage, TooLarge, error_from_code
from schema.generation import (
    MAX_INT32,
    FinishReason,
    GenerationRequest,
    ScoredToken,
    Timing,
    TokenId,
    Usage,
)
from schema.ids import PeerId
from schema.limits import (
    MAX_BLOCKS,
    MAX_CONTROL_BYTES,
    MAX_EMBEDDING_INPUTS,
    MAX_HOPS,
    MAX_MODEL_NAME_CHARS,
    MAX_NAME_CHARS,
    MAX_QUARANTINE_CHARS,
)

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
ModelName = Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_CHARS)]
RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
SessionHex = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
PeerHex = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
# The lengths are there because `$` alone would let a final newline pass.
Block = Annotated[int, Meta(ge=0, le=MAX_BLOCKS)]
Bytes = Annotated[int, Meta(ge=0, le=2**53)]
"""A number of bytes; at most what JSON readers hold exactly."""
Count = Annotated[int, Meta(ge=0, le=2**53)]
ShortText = Annotated[str, Meta(max_length=2000)]


class ErrorInfo(Struct, frozen=True, kw_only=True):
    """An error on the wire."""

    code: str
    message: str
    retry_after: Annotated[float, Meta(ge=0.0)] | None = None
    param: str | UnsetType = UNSET
    """The request's field at fault, of an `InvalidRequest` that can name one."""

    @classmethod
    def of(cls, error: CorollaError) -> "ErrorInfo":
        param = error.param if isinstance(error, InvalidRequest) else None
        return cls(
            code=error.code, message=error.message, retry_after=error.retry_after, param=param or UNSET
        )

    def to_error(self) -> CorollaError:
        param = None if self.param is UNSET else self.param
        return error_from_code(self.code, self.message, retry_after=self.retry_after, param=param)


class Failure(ErrorInfo, frozen=True, kw_only=True):
    """Payload of a FAILURE frame: why a step did not come back."""

    hop: Annotated[int, Meta(ge=0, le=MAX_HOPS)]
    """The hop of the route at which it failed."""


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What the relay must know of a model, read by a volunteer from its config and tensor index."""

    name: ModelName
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    """SHA-256 of config and tensor index: equal on all machines that hold the same checkpoint."""
    family: Annotated[str, Meta(max_length=64)]
    """The transformers `model_type`."""
    blocks: Annotated[int, Meta(ge=1, le=MAX_BLOCKS)]
    hidden_size: Annotated[int, Meta(ge=1, le=2**20)]
    parameters: Count
    context: Annotated[int, Meta(ge=1, le=MAX_INT32)]
    """Positions: prompt and reply together."""


class BlockRun(Struct, frozen=True, kw_only=True):
    """Blocks `[start, end)`."""

    start: Block
    end: Block


class ModelOffer(Struct, frozen=True, kw_only=True):
    """How much of one model a volunteer can hold."""

    facts: ModelFacts
    max_blocks: Annotated[int, Meta(ge=0, le=MAX_BLOCKS)]
    can_hold_head: bool
    """Whether the head fits beside `max_blocks` blocks."""
    dtype: Annotated[str, Meta(max_length=16)]
    wanted_start: Block | None = None
    wanted_end: Block | None = None
    """A span its owner insists on; both or neither."""
    room: Block | UnsetType = UNSET
    """How many blocks fit if the relay moves it to another span later on. Left out: it is not to be moved."""
    cached: Annotated[list[BlockRun], Meta(max_length=MAX_BLOCKS)] | UnsetType = UNSET
    """Blocks that it need not download, as runs `[start, end)` in their order."""


# ---- peer -> relay ----------------------------------------------------------------------------


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """First message of every connection."""

    protocol: int
    software: Annotated[str, Meta(max_length=64)]
    instance: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
    """The process's own random key: with the token, its identity across reconnects."""
    name: Name
    """Shown to everyone."""
    can_move: bool | UnsetType = UNSET
    """Whether it knows `go_elsewhere`."""
    moves: bool | UnsetType = UNSET
    """Whether it goes on with what another connection of it carries, until it says `arrived` here."""
    hears_operators: bool | UnsetType = UNSET
    """Whether it knows `quarantined` and `restored`."""


class Offer(Struct, frozen=True, kw_only=True, tag="offer"):
    """What a volunteer can hold, so that the relay can give it a span."""

    device: Annotated[str, Meta(max_length=100)]
    memory: Bytes
    models: Annotated[list[ModelOffer], Meta(min_length=1, max_length=64)]
    blocks_per_second: Annotated[float, Meta(ge=0.0)] = 0.0
    """Measured decode throughput, one block one token; 0 when it was not measured."""


class Progress(Struct, frozen=True, kw_only=True, tag="progress"):
    """How far a volunteer is on its way to serving."""

    phase: Literal["fetching", "loading", "probing"]
    done: Count
    total: Count


class Loaded(Struct, frozen=True, kw_only=True, tag="loaded"):
    """The assigned span (and head) is in memory."""

    model: ModelName
    start: Block
    end: Block
    head: bool
    dtype: Annotated[str, Meta(max_length=16)]
    quantization: Annotated[str, Meta(max_length=16)] = "none"
    kv_bytes: Bytes = 0
    """Memory set aside for KV caches."""


class Ready(Struct, frozen=True, kw_only=True, tag="ready"):
    """The probe came back, of the right shape and finite."""

    session: SessionHex


class Heartbeat(Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent by peers at the interval of `welcome`, and answered by the relay. Who misses three is gone."""

    sessions: Count = 0
    queued: Count = 0
    kv_used: Bytes = 0
    paused: bool | UnsetType = UNSET
    """Whether its owner needs the machine: no new routes through it, but those that exist are served. Left
    out when it is not."""
    blocks_per_second: Annotated[float, Meta(ge=0.0)] | UnsetType = UNSET
    """As in `offer`, once it was measured: a newer figure in place of the one before."""


class RouteRequest(Struct, frozen=True, kw_only=True, tag="route_request"):
    """A driver asks for a route over all blocks of a model (or of `[start, end)`)."""

    request: RequestId
    model: ModelName
    session: SessionHex
    start: Block | None = None
    end: Block | None = None
    exclude: Annotated[list[PeerHex], Meta(max_length=1000)] = field(default_factory=lambda: list[str]())
    """Peers that this session must not use."""
    prefer: Annotated[list[PeerHex], Meta(max_length=MAX_HOPS)] | UnsetType = UNSET
    """Peers that still hold what the session may begin with."""
    repairs: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    """The error code with which a hop broke the session that this one replaces, if there was one."""


class PromptPart(Struct, frozen=True, kw_only=True):
    """The next piece of a prompt that is told back."""

    text: str
    scored: list[ScoredToken]


class CallMade(Struct, frozen=True, kw_only=True):
    """A function that the model calls."""

    index: Count
    """Among the reply's calls."""
    name: str
    arguments: str
    """JSON."""


class Delta(Struct, frozen=True, kw_only=True, tag="delta"):
    """More of a reply's text."""

    request: RequestId
    text: str
    tokens: Count
    """Tokens generated so far."""
    ids: list[TokenId] | UnsetType = UNSET
    """Those since the last delta. Another head can go on with them when this one is gone."""
    scored: list[ScoredToken] | UnsetType = UNSET
    """One for each of `ids`, where the request asks for log-probabilities."""
    prompt: PromptPart | UnsetType = UNSET
    """More of the prompt, where the request asks for it; before the first token."""
    call: CallMade | UnsetType = UNSET
    """A function that the model calls, once its arguments are complete."""
    is_repairing: bool | UnsetType = UNSET
    """Instead of text: a hop has broken the reply's session, and nothing more comes until another one goes on
    with it."""


class Embedded(Struct, frozen=True, kw_only=True, tag="embedded"):
    """What a head has made of one input of an `embed`."""

    request: RequestId
    index: Count
    """Of the input."""
    tokens: Count
    vector: bytes
    """float32, little-endian: the mean of the last block's hidden states over all tokens, after the model's
    final norm, scaled to length 1."""


class Finished(Struct, frozen=True, kw_only=True, tag="finished"):
    """The reply is complete."""

    request: RequestId
    reason: FinishReason
    usage: Usage
    timing: Timing


class Failed(Struct, frozen=True, kw_only=True, tag="failed"):
    """A request cannot be finished (`request` given), or the volunteer cannot go on joining (not given)."""

    error: ErrorInfo
    request: RequestId | None = None


class Draining(Struct, frozen=True, kw_only=True, tag="draining"):
    """The volunteer wants to leave: no new routes through it, please."""


class Moving(Struct, frozen=True, kw_only=True, tag="moving"):
    """Last message over a connection: the peer goes on over another one, which has been welcomed."""


class Arrived(Struct, frozen=True, kw_only=True, tag="arrived"):
    """The connection that this one takes the place of has ended, and nothing is under way there."""


# ---- relay -> peer ----------------------------------------------------------------------------


class Welcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """The token is good; this is who the peer is, and what the swarm serves."""

    peer: PeerHex
    heartbeat_seconds: Annotated[float, Meta(gt=0.0)]
    models: list[ModelName]
    """Models that this swarm serves, the one that needs volunteers most first."""
    software: str
    moves: bool | UnsetType = UNSET
    """Whether the peer may go on here as it is, after `moving` there and `arrived` here."""


class Assignment(Struct, frozen=True, kw_only=True, tag="assignment"):
    """The span that a volunteer shall load."""

    model: ModelName
    start: Block
    end: Block
    head: bool


class Probe(Struct, frozen=True, kw_only=True, tag="probe"):
    """A route from the volunteer through the relay back to itself, to prove that it serves."""

    session: SessionHex
    route: bytes


class Serving(Struct, frozen=True, kw_only=True, tag="serving"):
    """The volunteer is in routes from now on."""


Reason = Annotated[str, Meta(max_length=MAX_QUARANTINE_CHARS)]


class Quarantined(Struct, frozen=True, kw_only=True, tag="quarantined"):
    """An operator keeps the volunteer out of new routes; its connection stays, and what it serves goes on."""

    reason: Reason
    """For its owner."""


class Restored(Struct, frozen=True, kw_only=True, tag="restored"):
    """An operator lets the volunteer be in routes again."""

    reason: Reason
    """For its owner."""


class GrantedHop(Struct, frozen=True, kw_only=True):
    """A hop as shown to the driver."""

    peer: PeerHex
    name: str
    start: Block
    end: Block


class RouteGrant(Struct, frozen=True, kw_only=True, tag="route"):
    """A signed route."""

    request: RequestId
    route: bytes
    hops: list[GrantedHop]
    expires: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """A route request that cannot be granted."""

    request: RequestId
    error: ErrorInfo


class Generate(Struct, frozen=True, kw_only=True, tag="generate"):
    """A reply for this head to drive."""

    request: RequestId
    body: GenerationRequest
    asker: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    """A name that the relay made up for whoever asks, for this head and for a while. What was computed for
    one of them is used again for nobody else."""
    generated: list[TokenId] | UnsetType = UNSET
    """The first tokens of the reply, when another head has begun it: its text is told from the beginning."""


class Embed(Struct, frozen=True, kw_only=True, tag="embed"):
    """Texts for this head to make vectors of: an `embedded` for each, in order, then `finished`."""

    request: RequestId
    model: ModelName
    inputs: Annotated[list[str | list[TokenId]], Meta(min_length=1, max_length=MAX_EMBEDDING_INPUTS)]


class Cancel(Struct, frozen=True, kw_only=True, tag="cancel"):
    """Nobody waits for this reply any more."""

    request: RequestId


class HopLost(Struct, frozen=True, kw_only=True, tag="hop_lost"):
    """A volunteer on this session's route is gone; sent to the driver at once."""

    session: SessionHex
    peer: PeerHex


class GoElsewhere(Struct, frozen=True, kw_only=True, tag="go_elsewhere"):
    """This replica of the relay is about to stop: go on over a connection to another one."""

    within_seconds: Annotated[float, Meta(ge=0.0)]
    """Dial at a random moment in this time, so that not all come at once."""


class Goodbye(Struct, frozen=True, kw_only=True, tag="goodbye"):
    """Last message before the relay closes, saying why."""

    error: ErrorInfo


FromPeer = (
    Hello
    | Offer
    | Progress
    | Loaded
    | Ready
    | Heartbeat
    | RouteRequest
    | Delta
    | Embedded
    | Finished
    | Failed
    | Draining
    | Moving
    | Arrived
)
FromRelay = (
    Welcome
    | Assignment
    | Probe
    | Serving
    | Quarantined
    | Restored
    | Heartbeat
    | RouteGrant
    | Refused
    | Generate
    | Embed
    | Cancel
    | HopLost
    | GoElsewhere
    | Goodbye
)


class _AnyHello(Struct, frozen=True, tag="hello"):
    """What the hello of every version has."""

    protocol: int


_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_from_peer: msgspec.json.Decoder[FromPeer] = msgspec.json.Decoder(FromPeer)
_from_relay: msgspec.json.Decoder[FromRelay] = msgspec.json.Decoder(FromRelay)
_failure = msgspec.json.Decoder(Failure)
_any_hello = msgspec.json.Decoder(_AnyHello)


def encode_message(message: FromPeer | FromRelay) -> str:
    """The JSON text of a control message.

    Raises:
        TooLarge: longer than a control message may be.
    """
    raw = _encoder.encode(message)
    if len(raw) > MAX_CONTROL_BYTES:
        raise TooLarge(f"a control message of {len(raw)} bytes; the limit is {MAX_CONTROL_BYTES}")
    return raw.decode()


def decode_from_peer(text: str | bytes) -> FromPeer:
    """A message that a peer sent. Raises MalformedMessage or TooLarge."""
    return _decode(_from_peer, text)


def hello_version(text: str | bytes) -> int | None:
    """The protocol version of a hello whose other fields are not this version's; None when it is no hello."""
    try:
        return _any_hello.decode(text).protocol
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def decode_from_relay(text: str | bytes) -> FromRelay:
    """A message that the relay sent. Raises MalformedMessage or TooLarge."""
    return _decode(_from_relay, text)


def encode_failure(failure: Failure) -> bytes:
    return _encoder.encode(failure)


def decode_failure(payload: bytes | memoryview) -> Failure:
    """The payload of a FAILURE frame. Raises MalformedMessage or TooLarge."""
    return _decode(_failure, bytes(payload[: MAX_CONTROL_BYTES + 1]))


def _decode(decoder: "msgspec.json.Decoder[_T]", text: str | bytes) -> _T:
    if len(text) > MAX_CONTROL_BYTES:
        raise TooLarge(f"a control message of {len(text)} characters; the limit is {MAX_CONTROL_BYTES}")
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedMessage(f"not a control message of this protocol: {error}") from error


def peer_ids(raw: list[str]) -> frozenset[PeerId]:
    """Checked hex strings of a message as peer ids."""
    return frozenset(PeerId(peer) for peer in raw)
