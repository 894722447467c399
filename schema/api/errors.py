"""Errors in the shape of OpenAI's API, and the field that a body is refused for.

Does not know who refuses what.
"""

import re

import msgspec
from msgspec import Struct

from schema.errors import CorollaError, InvalidRequest

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_FIELD = re.compile(r"(?:`\$\.|field `)(\w+)")
"""Where msgspec says that a value is wrong: the path's first name, or that of a field which nobody knows."""


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What went wrong, in OpenAI's words and ours."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Every error's body, in OpenAI's shape."""

    error: ErrorDetail


def error_body(error: CorollaError) -> ErrorBody:
    """The body for an error; `type` follows the status as OpenAI's do."""
    fallback = "server_error" if error.http_status >= 500 else "invalid_request_error"
    return ErrorBody(
        error=ErrorDetail(
            message=error.message,
            type=_TYPES.get(error.http_status, fallback),
            param=getattr(error, "param", None),
            code=error.code,
        )
    )


def not_understood(error: msgspec.ValidationError) -> InvalidRequest:
    """The refusal of a body that is JSON and not what it should be; names the field where there is one."""
    places = _FIELD.findall(str(error))
    return InvalidRequest(f"the request is not understood: {error}", param=places[-1] if places else None)
