"""`/api/join`: what whoever starts a volunteer is told.

GET /api/join           where the relay is, and what volunteers install; for everybody
GET /api/join/refusal   why a machine could not join, for whoever shows the token that it has shown
"""

import time

from starlette.requests import Request
from starlette.responses import Response

from relay.http import bearer_token, json_response
from relay.services import services_of
from schema.errors import Forbidden
from schema.join import JoinGuide, LastRefusal


async def guide(request: Request) -> Response:
    """`GET /api/join`."""
    settings = services_of(request.scope).settings
    return json_response(JoinGuide(relay=settings.public_url, repository=settings.repository))


async def refusal(request: Request) -> Response:
    """`GET /api/join/refusal`."""
    services = services_of(request.scope)
    token = await services.store.recognize(bearer_token(request.scope))
    if token.kind != "volunteer":
        raise Forbidden("machines join with a volunteer's token: send that one to see what was wrong")
    last = services.refusals.last(token.id, time.time())
    return json_response(LastRefusal(refusal=last), headers={"Cache-Control": "no-store"})
