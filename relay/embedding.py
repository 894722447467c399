"""Vectors of texts, in the shape of OpenAI's API.

A request of many texts is shared among heads, so many of them at a time as one message may hold. Its answer
may have millions of numbers: it is refused where it would be too long, and written vector by vector, so that
frames go on meanwhile.
Does not know HTTP, nor how a vector is made.
"""

import asyncio
import base64
import struct
from typing import Literal

import msgspec

from relay.admission import Place, Verdict
from relay.services import Services
from relay.turns import in_turns
from schema.api.embeddings import EmbeddingEntry, EmbeddingRequest, EmbeddingUsage
from schema.errors import CorollaError, TooLarge
from schema.limits import MAX_EMBEDDING_BYTES, MAX_EMBEDDING_INPUTS
from schema.messages import Embedded

ENTRY_BYTES, NUMBER_BYTES = 64, 22
"""Of an answer's JSON: what is around a vector, and a number with its comma, as long as they commonly are."""


class WrittenEmbeddings(msgspec.Struct, frozen=True, kw_only=True):
    """An `EmbeddingList` whose vectors are JSON already."""

    object: Literal["list"] = "list"
    data: msgspec.Raw
    model: str
    usage: EmbeddingUsage


async def embed(
    services: Services, request: EmbeddingRequest, asker: str
) -> tuple[WrittenEmbeddings, Verdict]:
    """The answer to a request for embeddings, and how it stood in line. `asker`: the token's id.

    Raises:
        CorollaError: it asks for what is not served, or could not be answered.
        TooLarge: the answer would have more than `MAX_EMBEDDING_BYTES`.
    """
    inputs = request.to_inputs()
    services.swarm.require_heads(request.model)
    as_text = request.encoding_format == "base64"
    facts = services.swarm.facts(request.model)
    _require_short(len(inputs), 0 if facts is None else facts.hidden_size, as_text)
    shares = [
        inputs[start : start + MAX_EMBEDDING_INPUTS] for start in range(0, len(inputs), MAX_EMBEDDING_INPUTS)
    ]
    allowance = await services.allowances.of(asker)
    places = services.admission.enter(request.model, asker, len(shares), allowance)
    tasks = [
        asyncio.create_task(_vectors(services, place, share))
        for place, share in zip(places, shares, strict=True)
    ]
    try:
        vectors = [vector for share in await asyncio.gather(*tasks) for vector in share]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for place in places:
            services.admission.leave(place)
    tokens = sum(vector.tokens for vector in vectors)
    answer = WrittenEmbeddings(
        data=await _written(vectors, as_text),
        model=request.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
    return answer, places[0].verdict


def _require_short(count: int, width: int, as_text: bool) -> None:
    """Raises TooLarge: so many vectors of so many numbers have no room in an answer."""
    size = ENTRY_BYTES + (4 * (4 * width // 3 + 1) if as_text else NUMBER_BYTES * width)
    most = max(1, MAX_EMBEDDING_BYTES // size)
    if count > most:
        remedy = "" if as_text else ", or set 'encoding_format' to 'base64', which is shorter"
        raise TooLarge(
            f"{count} vectors of {width} numbers are too many for one answer: send {most} texts or fewer "
            f"at once{remedy}"
        )


async def _written(vectors: list[Embedded], as_text: bool) -> msgspec.Raw:
    """JSON: the list of all entries."""
    entries: list[bytes] = []
    async for index, vector in in_turns(enumerate(vectors)):
        numbers = _base64(vector.vector) if as_text else _numbers(vector.vector)
        entries.append(msgspec.json.encode(EmbeddingEntry(index=index, embedding=numbers)))
    return msgspec.Raw(b"[" + b",".join(entries) + b"]")


async def _vectors(services: Services, place: Place, inputs: list[str | list[int]]) -> list[Embedded]:
    async with place, services.replies.embed(place.model, inputs, place.asker) as reply:
        events = [event async for event in reply.events(services.settings.request_seconds)]
    vectors = [event for event in events if isinstance(event, Embedded)]
    if len(vectors) != len(inputs):
        raise CorollaError("an embedding has ended without its end")
    return vectors


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _numbers(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))
