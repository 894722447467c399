"""The endpoints that have heads make something: chats, completions, responses and embeddings.

Does not know what the answers look like (relay/rendering/) nor how they are sent (relay/rest/answers.py).
"""

from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_client
from relay.answering import read_question
from relay.embedding import embed
from relay.http import json_response, parse_body, queue_headers, read_body
from relay.rest.answers import AnswerResponse, WorkResponse
from relay.services import services_of
from schema.api.embeddings import EmbeddingRequest


async def ask(request: Request) -> Response:
    """`POST /v1/chat/completions`, `/v1/completions` and `/v1/responses`."""
    asker = await require_client(request)
    services = services_of(request.scope)
    question = read_question(services, request.url.path, await read_body(request))
    return AnswerResponse(services, question, asker)


async def embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`."""
    asker = await require_client(request)
    services = services_of(request.scope)
    body = await parse_body(request, EmbeddingRequest)

    async def answer() -> Response:
        vectors, verdict = await embed(services, body, asker)
        return json_response(vectors, headers=queue_headers(verdict))

    return WorkResponse(services, answer)
