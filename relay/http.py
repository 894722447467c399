"""Small things that every HTTP handler needs: tokens in, errors out, limited bodies.

Does not know what the handlers do.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from relay.admission import Verdict
from relay.garbage import without_origin
from relay.metrics import Metrics
from relay.peer import Send
from schema.api.errors import error_body, not_understood
from schema.errors import (
    CorollaError,
    InvalidRequest,
    MalformedMessage,
    NotFound,
    Overloaded,
    ProtocolViolation,
    TooLarge,
    Unauthorized,
)
from schema.limits import MAX_HTTP_BODY_BYTES

_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()

RETRY_SECONDS = 5.0
"""When to try again, where who refuses a request for the time being does not say."""
MOST_QUERY_FIELDS = 64
"""Each is compared with all others, while frames wait."""
QUEUE_POSITION, QUEUE_SECONDS = "X-Queue-Position", "X-Queue-Seconds"
"""Headers: the place among those who wait for a head (0: need not), and how long that takes, as estimated."""
_SERVER_REFUSALS = {1002: ProtocolViolation.code, 1007: MalformedMessage.code, 1009: TooLarge.code}
"""Close codes (RFC 6455 section 7.4) with which the server's WebSocket layer ends a connection by itself."""


def bearer_token(scope: Scope) -> str:
    """The token of the Authorization header.

    Raises:
        Unauthorized: there is none.
    """
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("send the access token in the header 'Authorization: Bearer TOKEN'")
    return token.strip()


def json_response(
    body: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(_encoder.encode(body), status, headers, media_type="application/json")


def error_response(error: CorollaError) -> Response:
    """An error in the API's shape, with Retry-After where trying again makes sense."""
    return json_response(error_body(error), error.http_status, error_headers(error))


def named_error(error: HTTPException, path: str) -> CorollaError:
    """What Starlette refuses by itself, as one of ours: no such path, not this method, and the like."""
    if error.status_code == 404:
        return NotFound(f"there is nothing at {path}")
    return InvalidRequest(f"{path} cannot be asked for like this: {error.detail}")


def queue_headers(verdict: Verdict) -> dict[str, str]:
    """How somebody stood among those who wait for a head, when asking."""
    return {QUEUE_POSITION: str(verdict.position), QUEUE_SECONDS: f"{verdict.seconds:.1f}"}


def error_headers(error: CorollaError) -> dict[str, str]:
    headers: dict[str, str] = {}
    seconds = error.retry_after
    if seconds is None and error.http_status in (429, 503):
        seconds = RETRY_SECONDS
    if seconds is not None:
        headers["Retry-After"] = str(math.ceil(seconds))
    if isinstance(error, Overloaded):
        headers |= queue_headers(Verdict(error.position, error.retry_after or 0.0))
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


async def read_body(request: Request) -> bytes:
    """The request's body, at most `MAX_HTTP_BODY_BYTES` of it.

    Raises:
        TooLarge: it is longer.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_HTTP_BODY_BYTES:
            raise TooLarge(f"a request body may have {MAX_HTTP_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


async def parse_body(request: Request, kind: type[_T]) -> _T:
    """The request's JSON body.

    Raises:
        InvalidRequest: it is not JSON, or not what it should be; names the field. TooLarge: as `read_body`.
    """
    return decode_body(await read_body(request), kind)


def decode_body(body: bytes, kind: type[_T]) -> _T:
    """A JSON body. Raises InvalidRequest as `parse_body`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise not_understood(error) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


def parse_query(request: Request, kind: type[_T]) -> _T:
    """The query's fields.

    Raises:
        InvalidRequest: they are not what they should be; names the field.
    """
    fields = request.query_params.multi_items()
    if len(fields) > MOST_QUERY_FIELDS:
        raise InvalidRequest(
            f"the query has {len(fields)} fields, and may have {MOST_QUERY_FIELDS}: leave some out"
        )
    names = [name for name, _ in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"the query says {twice!r} twice: say it once", param=twice)
    try:
        return msgspec.convert(dict(fields), kind, strict=False)
    except msgspec.ValidationError as error:
        raise not_understood(error) from error


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone. Its request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def deny_upgrade(receive: Receive, send: Send, error: CorollaError) -> None:
    """Answer a WebSocket upgrade with an HTTP error (ASGI's Websocket Denial Response extension)."""
    await receive()  # websocket.connect
    response = error_response(without_origin(error))
    headers = list(response.raw_headers)
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})


def count_server_refusal(disconnect: Mapping[str, Any], metrics: Metrics) -> bool:
    """Count a WebSocket that the server ended for what it was sent, before any of our code saw it.

    Whether it is one.
    """
    code = _SERVER_REFUSALS.get(disconnect.get("code", 0))
    if code is not None:
        metrics.refuse(code)
    return code is not None
