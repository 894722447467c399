"""Every error that crosses a boundary, as one tree.

    CorollaError
    ├── ProtocolViolation          the other side broke the contract; its connection may be closed
    │   ├── MalformedFrame         header, route or payload lengths do not add up
    │   ├── MalformedTensor        dtype, shape and bytes of a payload do not agree
    │   ├── MalformedMessage       a control message or id that is not what the schema says
    │   ├── UnsupportedVersion     a frame or hello of another protocol version
    │   ├── UnexpectedMessage      a valid message in a state, or from a side, that may not send it
    │   └── TooLarge               more bytes than the limit
    ├── FrameRefused               one frame is refused; the connection lives on
    │   ├── RouteForged            the MAC does not match
    │   ├── RouteExpired           the route's time is over
    │   ├── WrongHop               the sender is not the hop that the frame says it comes from
    │   ├── PeerGone               the next hop is not connected
    │   ├── QueueFull              the next hop does not read fast enough
    │   └── FrameLost              it was lost on the way between two replicas of the relay
    ├── StepFailed                 a volunteer could not compute a step
    │   ├── SessionUnknown         a step for a session whose KV cache is not here
    │   ├── PrefixUnknown          a fork of a session that is not kept here, or not up to there
    │   ├── ResumeRefused          a broken session that cannot be gone on with here
    │   ├── PositionMismatch       a step that does not continue where the KV cache ends
    │   ├── KVCacheFull            no memory for more tokens
    │   ├── ShapeMismatch          a tensor of another shape or dtype than the model's
    │   ├── NotFinite              NaN or infinity in the activations
    │   └── NotServing             blocks that this volunteer does not hold
    ├── Unauthorized               no token, a wrong one, or a revoked one
    ├── Forbidden                  a valid token without the right to this
    ├── InvalidRequest             a REST or page request that cannot be understood
    │   └── ContextTooLong         the prompt leaves no room in the model's positions
    ├── NotFound                   no such model, volunteer or path
    ├── ModelUnavailable           blocks without a volunteer, or no head
    ├── Conflict                   a request that does not fit to what there is already
    │   ├── IdempotencyKeyReused   an Idempotency-Key that came with another request before
    │   └── QuotaExceeded          more files or batches than one token may have
    ├── JoinRefused                an offer that the relay does not take
    ├── Replaced                   the same volunteer connected again
    ├── Moved                      the peer goes on over another connection, as it was asked to
    ├── Unresponsive               no heartbeat in time
    ├── GenerationFailed           a reply that could not be finished
    ├── Overloaded                 all heads are busy, and there is no room to wait
    │   └── TooManyRequests        one token asks for more at once than it may
    └── Unavailable                a part of the relay (its database) is away for a while

`code` is the stable name: in JSON bodies, FAILURE frames, counters and logs. `close_code` is the
WebSocket close code when the error ends a connection (RFC 6455 section 7.4; 4000-4999 are ours).
`http_status` is the status when it ends a request. This module knows nothing of transports.
"""

from typing import ClassVar


class CorollaError(Exception):
    """Base of all; `message` says the cause and the remedy in words for the person who sees it."""

    code: ClassVar[str] = "internal_error"
    close_code: ClassVar[int] = 1011
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        """Seconds after which trying again makes sense; None when it does not."""


class ProtocolViolation(CorollaError):
    code = "protocol_violation"
    close_code = 1002
    http_status = 400


class MalformedFrame(ProtocolViolation):
    code = "malformed_frame"


class MalformedTensor(ProtocolViolation):
    code = "malformed_tensor"


class MalformedMessage(ProtocolViolation):
    code = "malformed_message"


class UnsupportedVersion(ProtocolViolation):
    code = "unsupported_version"
    close_code = 4406


class UnexpectedMessage(ProtocolViolation):
    code = "unexpected_message"


class TooLarge(ProtocolViolation):
    code = "too_large"
    close_code = 1009
    http_status = 413


class FrameRefused(CorollaError):
    code = "frame_refused"
    close_code = 1008


class RouteForged(FrameRefused):
    code = "route_forged"


class RouteExpired(FrameRefused):
    code = "route_expired"


class WrongHop(FrameRefused):
    code = "wrong_hop"


class PeerGone(FrameRefused):
    code = "peer_gone"
    http_status = 503


class QueueFull(FrameRefused):
    code = "queue_full"
    http_status = 503


class FrameLost(FrameRefused):
    code = "frame_lost"
    http_status = 503


class StepFailed(CorollaError):
    code = "step_failed"
    http_status = 502


class SessionUnknown(StepFailed):
    code = "session_unknown"


class PrefixUnknown(StepFailed):
    code = "prefix_unknown"


class ResumeRefused(StepFailed):
    code = "resume_refused"


class PositionMismatch(StepFailed):
    code = "position_mismatch"


class KVCacheFull(StepFailed):
    code = "kv_cache_full"
    http_status = 503


class ShapeMismatch(StepFailed):
    code = "shape_mismatch"


class NotFinite(StepFailed):
    code = "not_finite"


class NotServing(StepFailed):
    code = "not_serving"


class Unauthorized(CorollaError):
    code = "unauthorized"
    close_code = 4401
    http_status = 401


class Forbidden(CorollaError):
    code = "forbidden"
    close_code = 4403
    http_status = 403


class InvalidRequest(CorollaError):
    code = "invalid_request"
    close_code = 4400
    http_status = 400

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """The field at fault, where one can be named."""


class NotFound(CorollaError):
    code = "not_found"
    close_code = 4404
    http_status = 404


class ModelUnavailable(CorollaError):
    code = "model_unavailable"
    http_status = 503


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class Conflict(CorollaError):
    code = "conflict"
    close_code = 4412
    http_status = 409


class IdempotencyKeyReused(Conflict):
    code = "idempotency_key_reused"


class QuotaExceeded(Conflict):
    code = "quota_exceeded"


class JoinRefused(CorollaError):
    code = "join_refused"
    close_code = 4409
    http_status = 409


class Replaced(CorollaError):
    code = "replaced"
    close_code = 4410
    http_status = 409


class Moved(CorollaError):
    code = "moved"
    close_code = 4411
    http_status = 409


class Unresponsive(CorollaError):
    code = "unresponsive"
    close_code = 4408
    http_status = 408


class GenerationFailed(CorollaError):
    code = "generation_failed"
    http_status = 502


class Overloaded(CorollaError):
    code = "overloaded"
    close_code = 1013
    http_status = 503

    def __init__(self, message: str, *, retry_after: float | None = None, position: int = 0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.position = position
        """Among those who wait; 0: need not have waited."""


class TooManyRequests(Overloaded):
    code = "rate_limit_exceeded"
    http_status = 429


class Unavailable(CorollaError):
    code = "unavailable"
    close_code = 1013
    http_status = 503


def all_errors() -> dict[str, type[CorollaError]]:
    """Every class of the tree by its code."""
    return {error.code: error for error in _below(CorollaError)}


def kinds_of(*errors: type[CorollaError]) -> list[type[CorollaError]]:
    """These classes and all below them, but for those that programs add for themselves."""
    return [kind for kind in _below(*errors) if kind.__module__ == __name__]


def _below(*errors: type[CorollaError]) -> list[type[CorollaError]]:
    found: list[type[CorollaError]] = []
    waiting = list(errors)
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting.extend(error.__subclasses__())
    return found


def error_from_code(
    code: str, message: str, *, retry_after: float | None = None, param: str | None = None
) -> CorollaError:
    """The error that the other side named; an unknown name becomes the base class, its code kept in words."""
    error_class = all_errors().get(code)
    if error_class is None:
        return CorollaError(f"{code}: {message}", retry_after=retry_after)
    error = error_class(message)
    error.retry_after = retry_after
    if isinstance(error, InvalidRequest):
        error.param = param
    return error
