"""Batches as their owner sees them: made, waited for, and their files taken apart."""

import asyncio
import json
from typing import Any

import openai
from openai.types import Batch

from tests.relay.core.peers import MODEL
from tests.relay.core.waiting import DEADLINE

ENDPOINT = "/v1/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


def line(name: str, prompt: str | None = None, **changes: Any) -> bytes:
    """A line of an input file; `changes` None leaves a field out."""
    body = {"model": MODEL, "prompt": name if prompt is None else prompt}
    fields = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body} | changes
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


def lines(count: int, first: int = 0) -> bytes:
    return b"\n".join(line(f"line {number}") for number in range(first, first + count)) + b"\n"


async def submit(client: openai.AsyncOpenAI, content: bytes, **options: Any) -> Batch:
    """A batch of a file with this content."""
    file = await client.files.create(file=("lines.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **options
    )


async def ended(client: openai.AsyncOpenAI, batch: Batch) -> Batch:
    """A batch when nothing happens with it any more."""
    async with asyncio.timeout(DEADLINE):
        while batch.status not in ENDED:
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def contents(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a file; none of no file."""
    if file_id is None:
        return []
    text = (await client.files.content(file_id)).text
    assert text.endswith("\n")
    return [json.loads(one) for one in text.splitlines()]


def texts_of(output: list[dict[str, Any]]) -> dict[str, str]:
    """What each line was answered, by its name; each must be there once."""
    names = [one["custom_id"] for one in output]
    assert len(set(names)) == len(names)
    return {one["custom_id"]: one["response"]["body"]["choices"][0]["text"] for one in output}
