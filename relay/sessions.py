"""Who sits at a page: sign-in by token, kept in a signed cookie that scripts cannot read.

    GET    /api/session   {"access": "open" | "signed_in" | "sign_in", ...}
    POST   /api/session   {"token": "..."} -> 204 and the cookie; 401, or 403 for a volunteer's token
    DELETE /api/session   204, the cookie is gone

The cookie holds the token's id and an expiry, signed with the relays' secret: any replica can read
it, and a revoked token's cookie stops working. Does not know chats.
"""

import hmac
import time
from hashlib import blake2b

from starlette.datastructures import Headers
from starlette.endpoints import HTTPEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from relay.http import json_response, parse_body
from relay.records import TokenRecord
from relay.services import Services, services_of
from schema.errors import Forbidden, Unauthorized
from schema.session import SessionAccess, SignIn

COOKIE = "corolla_session"
COOKIE_SECONDS = 30 * 24 * 3600
READING = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""


def _sign(secret: bytes, token_id: str, expires: int) -> str:
    body = f"{token_id}.{expires}"
    mac = blake2b(body.encode(), key=secret, digest_size=16, person=b"corolla-cookie-1").hexdigest()
    return f"{body}.{mac}"


def _token_id(secret: bytes, cookie: str, now: float) -> str | None:
    token_id, _, rest = cookie.partition(".")
    expires = rest.partition(".")[0]
    if not expires.isdecimal() or len(expires) > 12 or int(expires) < now:
        return None
    # As bytes, since a cookie may hold what is not ASCII.
    signed = _sign(secret, token_id, int(expires)).encode()
    return token_id if hmac.compare_digest(signed, cookie.encode()) else None


async def signed_in(connection: HTTPConnection, services: Services) -> TokenRecord | None:
    """The token that the cookie belongs to, if that is still good."""
    cookie, now = connection.cookies.get(COOKIE), time.time()
    token_id = _token_id(services.secret, cookie, now) if cookie else None
    return None if token_id is None else await services.store.good_token(token_id, now)


async def require_page_access(connection: HTTPConnection) -> str | None:
    """Let a page's connection in: the id of its token, or None where nobody has to sign in.

    Raises:
        Forbidden: it comes from a page of another site.
        Unauthorized: nobody is signed in, and this relay is not open.
    """
    services = services_of(connection.scope)
    check_origin(connection.headers)
    if services.settings.open_chat:
        return None
    token = await signed_in(connection, services)
    if token is None:
        raise Unauthorized("sign in with an access token first")
    return token.id


def check_origin(headers: Headers) -> None:
    """Refuse requests that a page of another site makes in its visitor's name."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise Forbidden("this page belongs to another site than the relay")


def check_change(request: Request) -> None:
    """Refuse to change something by a cookie alone, unless a page of the relay's own says that it asks.

    Browsers send the cookie without being asked, and say where any request but GET and HEAD comes from
    (Fetch, section 3.1): `check_origin` looks at that. One that does not say so is no page's.
    """
    if request.method not in READING and "origin" not in request.headers:
        raise Forbidden("a page's sign-in changes things for pages only: send the access token itself")


class SessionEndpoint(HTTPEndpoint):
    """`/api/session`."""

    async def get(self, request: Request) -> Response:
        services = services_of(request.scope)
        settings = services.settings
        token = await signed_in(request, services)
        if token is not None:
            joins = token.kind == "admin" or (settings.lets_join and token.parent is None)
            return json_response(SessionAccess("signed_in", token.kind, joins))
        if settings.open_chat:
            return json_response(SessionAccess("open", join=settings.lets_join))
        return json_response(SessionAccess("sign_in"))

    async def post(self, request: Request) -> Response:
        services = services_of(request.scope)
        check_origin(request.headers)
        shown = (await parse_body(request, SignIn)).token.strip()
        if not shown.isprintable():  # PostgreSQL takes no NUL, not even to look for it
            raise Unauthorized("the token is damaged: paste it whole")
        token = await services.store.authenticate(shown)
        if token.kind == "volunteer":
            raise Forbidden("this is a volunteer's token; chatting needs a client's token")
        cookie = _sign(services.secret, token.id, int(time.time()) + COOKIE_SECONDS)
        response = Response(status_code=204)
        secure = services.settings.public_url.startswith("https:")
        response.set_cookie(
            COOKIE, cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return response

    async def delete(self, request: Request) -> Response:
        check_origin(request.headers)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response
