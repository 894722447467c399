"""A scripted head that makes vectors."""

import struct

from schema.generation import Timing, Usage
from schema.messages import Embed, Embedded, Finished
from tests.relay.core.peers import ScriptedPeer

EMBEDDINGS = "/v1/embeddings"


def vector(number: float) -> list[float]:
    return [number, 0.5, -0.5, 0.0]


def packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


async def say_vectors(head: ScriptedPeer, asked: Embed, *numbers: float) -> None:
    for index, number in enumerate(numbers):
        vectors = packed(vector(number))
        await head.say(Embedded(request=asked.request, index=index, tokens=3, vector=vectors))


async def end(head: ScriptedPeer, asked: Embed) -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=0, total_tokens=9)
    timing = Timing(first_token=0, total=0)
    await head.say(Finished(request=asked.request, reason="stop", usage=usage, timing=timing))


async def embed(head: ScriptedPeer, *numbers: float) -> Embed:
    asked = await head.hear(Embed)
    await say_vectors(head, asked, *numbers)
    await end(head, asked)
    return asked
