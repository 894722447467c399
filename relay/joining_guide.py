"""`GET /api/join`: where the relay is, and what volunteers install. Knows the settings; everybody may ask."""

from starlette.requests import Request
from starlette.responses import Response

from relay.http import json_response
from relay.services import services_of
from schema.join import JoinGuide


async def guide(request: Request) -> Response:
    """`GET /api/join`."""
    settings = services_of(request.scope).settings
    return json_response(JoinGuide(relay=settings.public_url, repository=settings.repository))
