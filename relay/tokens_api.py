"""`/api/tokens`: access tokens, for their holders and for operators.

    GET    /api/tokens              those that one's own token has made; for an admin all
    POST   /api/tokens              make one; its secret is in the answer, and only there
    GET    /api/tokens/{id}         one of them; PATCH changes name and limits, DELETE revokes it
    GET    /api/tokens/{id}/usage   what its replies took
    GET    /api/tokens/me           one's own, and /api/tokens/me/usage

By the Authorization header or a page's cookie. A token of somebody else's is not there. Handlers parse, call
and encode: who may have what is decided in relay/handing_out.py.
"""

import time
from dataclasses import asdict
from datetime import UTC, datetime

from msgspec import UNSET
from msgspec.structs import asdict as fields_of
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_holder
from relay.handing_out import check_end, check_limits_of
from relay.http import json_response, parse_body, parse_query
from relay.records import Page, TokenLimits, TokenRecord, UsageRecord
from relay.services import Services, services_of
from relay.sessions import check_origin
from relay.usage import DAY, day_of
from schema.errors import Unauthorized, Unavailable
from schema.tokens import (
    MadeToken,
    NewToken,
    TokenChange,
    TokenInfo,
    TokenList,
    TokenQuery,
    TokenUsage,
    UsageOfDay,
    UsageQuery,
)

SECRET_HEADERS = {"Cache-Control": "no-store"}


class TokensEndpoint(HTTPEndpoint):
    """`/api/tokens`."""

    async def get(self, request: Request) -> Response:
        asker, services = await require_holder(request), services_of(request.scope)
        query = parse_query(request, TokenQuery)
        found = await services.store.tokens(
            Page(query.limit, None if query.after is UNSET else query.after),
            parent=_whose(asker),
            kind=None if query.kind is UNSET else query.kind,
            good_at=time.time() if query.show == "good" else None,
        )
        shown = found[: query.limit]
        more = shown[-1].id if len(found) > query.limit else None
        return json_response(
            TokenList(tokens=[info(one) for one in shown], next=more), headers=SECRET_HEADERS
        )

    async def post(self, request: Request) -> Response:
        services = services_of(request.scope)
        asker = await _maker(request, services)
        asked = await parse_body(request, NewToken)
        now, store = time.time(), services.store
        address = request.client.host if request.client else ""
        grant = services.handing_out.grant(asker, address, asked, now)
        limits = TokenLimits(asked.expires_at, asked.replies_at_once, asked.tokens_a_day)
        try:
            made, secret = await store.make_token(
                asked.kind,
                asked.name,
                services.settings.public_url,
                limits,
                parent=grant.parent,
                most=grant.most,
            )
        except Unavailable:
            services.handing_out.not_made(asker, address, now)
            raise
        return json_response(MadeToken(**asdict(made), token=str(secret)), 201, SECRET_HEADERS)


class TokenEndpoint(HTTPEndpoint):
    """`/api/tokens/{id}`."""

    async def get(self, request: Request) -> Response:
        _, token = await _own(request)
        return json_response(info(token), headers=SECRET_HEADERS)

    async def patch(self, request: Request) -> Response:
        asker, token = await _own(request)
        services = services_of(request.scope)
        change = await parse_body(request, TokenChange)
        changes = {name: value for name, value in fields_of(change).items() if value is not UNSET}
        limits = changes.get("replies_at_once"), changes.get("tokens_a_day")
        check_limits_of(token.kind, is_limited=any(limit is not None for limit in limits))
        check_end(changes.get("expires_at"), time.time())
        changed = await services.store.change_token(token.id, changes, parent=_whose(asker))
        services.allowances.forget()
        return json_response(info(changed), headers=SECRET_HEADERS)

    async def delete(self, request: Request) -> Response:
        _, token = await _own(request)
        services = services_of(request.scope)
        return json_response(info(await services.store.revoke_token(token.id)), headers=SECRET_HEADERS)


class OwnTokenEndpoint(HTTPEndpoint):
    """`/api/tokens/me`."""

    async def get(self, request: Request) -> Response:
        return json_response(info(await require_holder(request)), headers=SECRET_HEADERS)


async def own_usage(request: Request) -> Response:
    """`GET /api/tokens/me/usage`."""
    return await _usage_of(request, await require_holder(request))


async def usage(request: Request) -> Response:
    """`GET /api/tokens/{id}/usage`."""
    _, token = await _own(request)
    return await _usage_of(request, token)


async def _usage_of(request: Request, token: TokenRecord) -> Response:
    services, query = services_of(request.scope), parse_query(request, UsageQuery)
    since = day_of(time.time()) - (query.days - 1) * DAY
    found = await services.usage.of(services.store, token.id, since)
    return json_response(
        TokenUsage(
            days=[_of_day(one) for one in found],
            replies=sum(one.replies for one in found),
            prompt_tokens=sum(one.prompt_tokens for one in found),
            cached_tokens=sum(one.cached_tokens for one in found),
            completion_tokens=sum(one.completion_tokens for one in found),
        )
    )


async def _maker(request: Request, services: Services) -> TokenRecord | None:
    """Who has a token made; None: nobody is signed in, and nobody has to be."""
    try:
        return await require_holder(request)
    except Unauthorized:
        is_open = services.settings.open_chat and services.settings.lets_join
        if "authorization" in request.headers or not is_open:
            raise
        check_origin(request.headers)
        return None


async def _own(request: Request) -> tuple[TokenRecord, TokenRecord]:
    """Who asks, and the token that is asked about. Raises NotFound: it is not there for this one."""
    asker = await require_holder(request)
    found = await services_of(request.scope).store.token(request.path_params["id"], _whose(asker))
    return asker, found


def _whose(asker: TokenRecord) -> str | None:
    """Whose tokens somebody sees: those that his own has made; None: all."""
    return None if asker.kind == "admin" else asker.id


def info(token: TokenRecord) -> TokenInfo:
    """A token as it is shown."""
    return TokenInfo(**asdict(token))


def _of_day(one: UsageRecord) -> UsageOfDay:
    return UsageOfDay(
        day=datetime.fromtimestamp(one.day, UTC).date().isoformat(),
        model=one.model,
        replies=one.replies,
        prompt_tokens=one.prompt_tokens,
        cached_tokens=one.cached_tokens,
        completion_tokens=one.completion_tokens,
    )
