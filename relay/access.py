"""Who may ask what over HTTP. Does not know what is asked."""

from starlette.requests import Request

from relay.http import bearer_token
from relay.records import TokenRecord
from relay.services import Services, services_of
from relay.sessions import check_change, check_origin, require_page_access, signed_in
from schema.errors import Forbidden, Unauthorized


async def require_token(request: Request) -> TokenRecord:
    """The client's or admin's token that a request comes with.

    Raises:
        Unauthorized: there is none that is good. Forbidden: it is a volunteer's.
    """
    return await client_token(services_of(request.scope), bearer_token(request.scope))


async def client_token(services: Services, shown: str) -> TokenRecord:
    """The token that somebody shows. Errors as `require_token`."""
    token = await services.store.authenticate(shown)
    if token.kind == "volunteer":
        raise Forbidden("this is a volunteer's token; the API needs a client's token")
    return token


async def require_client(request: Request) -> str:
    """Its id. Errors as `require_token`."""
    return (await require_token(request)).id


async def require_holder(request: Request) -> TokenRecord:
    """Whose things a request is about: the token that it comes with, or that its page is signed in with.

    What computes for somebody needs the token itself (`require_client`); this is for what belongs to it.

    Raises:
        Unauthorized: neither is good. Forbidden: a volunteer's token, or a page of another site.
    """
    if "authorization" in request.headers:
        return await require_token(request)
    check_origin(request.headers)
    token = await signed_in(request, services_of(request.scope))
    if token is None:
        raise Unauthorized("sign in, or send the access token in the header 'Authorization: Bearer TOKEN'")
    check_change(request)
    return token


async def require_admin(request: Request) -> TokenRecord:
    """As `require_holder`. Raises Forbidden too where it is no admin's."""
    token = await require_holder(request)
    if token.kind != "admin":
        raise Forbidden(
            "this is for operators: it needs an admin's token (`python -m relay token create --kind admin`)"
        )
    return token


async def require_holder_id(request: Request) -> str:
    """Its id. Errors as `require_holder`."""
    return (await require_holder(request)).id


async def require_viewer(request: Request) -> str | None:
    """For everyone who may chat, by token or page: the token's id, None where nobody has to sign in.

    Raises:
        Unauthorized: neither is good. Forbidden: a volunteer's token, or a page of another site.
    """
    try:
        return await require_client(request)
    except Unauthorized:
        return await require_page_access(request)
