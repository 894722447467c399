"""What a line of an input file asks for, as far as it matters before it runs: of which model, and how much.

A line that waits is not kept: many wait, and they may be long. It is read again when it runs.
Does not know whether there is room for it (relay/batches/gate.py).
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from relay.batches.lines import Line, lines_of, parse_line
from relay.batches.storage import Storage
from relay.records import HeldChunk
from schema.errors import NotFound
from schema.limits import MAX_EMBEDDING_INPUTS, MAX_MODEL_NAME_CHARS


@dataclass(frozen=True, slots=True)
class Asked:
    """A line that waits."""

    number: int
    offset: int
    """In the input file; bytes, as `size`."""
    size: int
    custom_id: str
    model: str
    """Empty where its body names none, or none that can be: it is refused in no time."""
    weight: int
    """Replies that it asks for."""


class _Body(msgspec.Struct):
    """Whatever is wrong here is for the endpoint to say."""

    model: Annotated[str, msgspec.Meta(max_length=MAX_MODEL_NAME_CHARS)] = ""
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


def asked_by(line: Line, endpoint: str) -> Asked:
    """What a line asks for. Raises Refused: it is not a line."""
    request = parse_line(line, endpoint)
    try:
        body = msgspec.json.decode(request.body, type=_Body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        body = _Body()
    shares = -(-_count(body.input) // MAX_EMBEDDING_INPUTS)
    weight = (body.n or 1) * max(_count(body.prompt), shares)
    return Asked(line.number, line.offset, len(line.raw), str(request.custom_id), body.model, weight)


def _count(raw: msgspec.Raw) -> int:
    """How many texts, or lists of tokens, these are: one of them may stand by itself."""
    if not bytes(raw).lstrip().startswith(b"["):
        return 1
    entries = msgspec.json.decode(raw, type=list[msgspec.Raw])
    return sum(bytes(entry)[:1] in (b'"', b"[") for entry in entries) or 1


async def body_of(storage: Storage, held: HeldChunk, asked: Asked) -> bytes:
    """A line's request, as its endpoint takes it.

    Raises:
        NotFound: it is not there any more. Unavailable: the storage is away.
    """
    parts = storage.read(held.input_file_id, asked.offset, asked.size)
    async for line in lines_of(parts, asked.number, asked.offset):
        return bytes(parse_line(line, held.endpoint).body)
    raise NotFound("the line is not in its file any more")
