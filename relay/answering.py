"""What a request of the API asks for, and its answer as a whole: for REST, and for durable jobs.

Knows endpoints and their bodies. Does not know HTTP, nor how a reply is made.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from relay.choices import Choices
from relay.embedding import embed
from relay.http import decode_body
from relay.rendering import ChatRendering, Heading, Rendering, ResponseRendering, TextRendering
from relay.rendering.base import STREAM_HAS_NO_LIMIT, new_id
from relay.rendering.scores import ScoreCount
from relay.services import Services
from relay.turns import Turn
from schema.api import ChatCompletionRequest, CompletionRequest, EmbeddingRequest, ResponsesRequest
from schema.errors import InvalidRequest, NotFound, TooLarge
from schema.generation import MAX_INT32, GenerationRequest
from schema.limits import MAX_COPIES_BYTES

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
NAMES_OF_RESPONSES: Mapping[str, str] = {"messages": "input", "response_format": "text"}
"""Heads call what they are asked for as chats do."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request that was understood: the replies that it asks for, and how they look."""

    bodies: list[GenerationRequest]
    rendering: Rendering
    stream: bool
    names: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    """How this endpoint calls fields that heads know by other names."""


async def answer(services: Services, endpoint: str, body: bytes, asker: str) -> msgspec.Struct:
    """The answer to a request that is not streamed.

    `endpoint`: its path, such as `/v1/chat/completions`. `body`: JSON. `asker`: the token's id.

    Raises:
        CorollaError: as the endpoint answers.
    """
    if endpoint == EMBEDDINGS:
        vectors, _ = await embed(services, decode_body(body, EmbeddingRequest), asker)
        return vectors
    question = read_question(services, endpoint, body)
    if question.stream:
        raise InvalidRequest("'stream' is not supported here: leave it out", param="stream")
    return await whole(services, question, asker)


def read_question(services: Services, endpoint: str, body: bytes) -> Question:
    """What a request body asks for.

    Raises:
        InvalidRequest: it is not understood, or asks for what is not served. NotFound: no such model.
        TooLarge: it asks for too many replies to so much, or for too many scores.
    """
    reader = _READERS.get(endpoint)
    if reader is None:
        raise NotFound(f"there is nothing to be asked at {endpoint}")
    return reader(services, body)


async def whole(services: Services, question: Question, asker: str) -> msgspec.Struct:
    """All replies of a request, put together. Raises CorollaError when one of them cannot be finished."""
    async with asking(services, question, asker) as choices:
        return await put_together(choices, question.rendering)


@asynccontextmanager
async def asking(services: Services, question: Question, asker: str) -> AsyncGenerator[Choices]:
    """The replies that a question asks for. What a head refuses is refused with the endpoint's own field."""
    try:
        async with Choices(services, question.bodies, asker) as choices:
            yield choices
    except InvalidRequest as error:
        error.param = question.names.get(error.param or "", error.param)
        raise


async def put_together(choices: Choices, rendering: Rendering) -> msgspec.Struct:
    """The answer that replies make. Errors as `whole`."""
    turn = Turn()
    async for index, event in choices.events():
        rendering.add(index, event)
        await turn.go_on()
    return rendering.whole()


def _read_chat(services: Services, body: bytes) -> Question:
    asked = decode_body(body, ChatCompletionRequest)
    _require_few_copies(body, asked.n or 1)
    bodies = asked.to_generations()
    if not asked.stream:
        _require_few_scores(services, bodies, STREAM_HAS_NO_LIMIT)
    heading = _heading(services, "chatcmpl-", asked.model)
    rendering = ChatRendering(heading, len(bodies), asked.n or 1, asked.include_usage)
    return Question(bodies, rendering, bool(asked.stream))


def _read_completion(services: Services, body: bytes) -> Question:
    asked = decode_body(body, CompletionRequest)
    _require_few_copies(body, asked.n or 1)
    bodies = asked.to_generations()
    if not asked.stream:
        _require_few_scores(services, bodies, STREAM_HAS_NO_LIMIT)
    heading = _heading(services, "cmpl-", asked.model)
    rendering = TextRendering(heading, len(bodies), asked.n or 1, asked.include_usage)
    return Question(bodies, rendering, bool(asked.stream))


def _read_response(services: Services, body: bytes) -> Question:
    asked = decode_body(body, ResponsesRequest)
    bodies = [asked.to_generation()]
    _require_few_scores(services, bodies)
    rendering = ResponseRendering(_heading(services, "resp_", asked.model), asked)
    return Question(bodies, rendering, bool(asked.stream), NAMES_OF_RESPONSES)


_READERS: Mapping[str, Callable[[Services, bytes], Question]] = {
    CHAT: _read_chat,
    COMPLETIONS: _read_completion,
    RESPONSES: _read_response,
}


def _require_few_copies(body: bytes, copies: int) -> None:
    """Raises TooLarge: heads would be sent too much."""
    if len(body) * copies > MAX_COPIES_BYTES:
        most = max(1, MAX_COPIES_BYTES // len(body))
        raise TooLarge(
            f"{copies} replies to a body of {len(body)} bytes are too many: set 'n' to {most} or less, "
            "or send less text"
        )


def _require_few_scores(services: Services, bodies: list[GenerationRequest], remedy: str = "") -> None:
    """Raises TooLarge: an answer of the length that is asked for would have too many scores."""
    facts = services.swarm.facts(bodies[0].model)
    longest = MAX_INT32 if facts is None else facts.context
    count = ScoreCount(remedy)
    for body in bodies:
        if body.logprobs is not None and body.stopping.max_tokens is not None:
            count.expect(min(body.stopping.max_tokens, longest) * (1 + body.logprobs))


def _heading(services: Services, kind: str, model: str) -> Heading:
    facts = services.swarm.facts(model)
    return Heading(new_id(kind), model, None if facts is None else f"fp_{facts.digest[:12]}")
