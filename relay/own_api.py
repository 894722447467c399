"""`GET /api/sessions`: the replies under way of the token that asks. Tokens are in relay/tokens_api.py."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_holder
from relay.http import json_response
from relay.replies import AnyReply
from relay.services import services_of
from schema.overview import RunningReplies, RunningReply


async def sessions(request: Request) -> Response:
    """`GET /api/sessions`: the replies that the token waits for at this replica."""
    asker, services = await require_holder(request), services_of(request.scope)
    return json_response(RunningReplies(replies=[_running(one) for one in services.replies.of(asker.id)]))


def _running(reply: AnyReply) -> RunningReply:
    return RunningReply(
        id=reply.request,
        model=reply.model,
        head=reply.head,
        seconds=round(asyncio.get_running_loop().time() - reply.started, 3),
        tokens=reply.made.total_tokens,
    )
