"""Whether a request for a file or a batch came before."""

from hashlib import sha256

from starlette.requests import Request

from relay.queries.keys import Repeatable
from relay.tables import MAX_IDEMPOTENCY_KEY_CHARS
from schema.errors import InvalidRequest


def repeatable(request: Request, *parts: str) -> Repeatable | None:
    """What makes a request one that may be sent again: its key, and all that it asks for.

    Raises:
        InvalidRequest: a key that is too long or cannot be read.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARS or not key.isprintable():
        raise InvalidRequest(f"an Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable characters")
    asked = "\0".join([request.url.path, *parts])
    return Repeatable(key, sha256(asked.encode()).hexdigest())
