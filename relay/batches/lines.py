"""The lines of an input file: taken apart as its bytes come, checked, and put together to chunks.

Every line is a request of its own: `{"custom_id": …, "method": "POST", "url": …, "body": {…}}`. What is in a
body is for its endpoint to say, when the line runs. Pure but for reading; does not know who answers.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from msgspec import UNSET

from relay.records import ChunkRecord
from schema.batches import MAX_BATCH_LINES, MAX_LINE_ERRORS, BatchError, InputLine
from schema.limits import MAX_HTTP_BODY_BYTES

CHUNK_LINES = 16
"""Few enough that replicas share a small batch; so many that a large one has not a lease for each line."""
MAX_LINE_BYTES = MAX_HTTP_BODY_BYTES
"""As of a request over HTTP."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is in the file."""

    number: int
    """From 0, blank ones included."""
    offset: int
    """In the file, in bytes."""
    raw: bytes


class Refused(Exception):
    """A line, or a file, that cannot be taken."""

    def __init__(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.error = BatchError(
            code=code, message=message, line=None if line is None else line + 1, param=param
        )


async def lines_of(parts: AsyncIterator[bytes], number: int = 0, offset: int = 0) -> AsyncIterator[Line]:
    """The lines of a file, or of the part of it that begins with this line at this offset; no blank ones.

    Raises:
        Refused: a line that is too long.
    """
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for raw in lines:
            if len(raw) > MAX_LINE_BYTES:
                raise _too_long(number)
            if raw.strip():
                yield Line(number, offset, raw)
            number, offset = number + 1, offset + len(raw) + 1
        if len(rest) > MAX_LINE_BYTES:
            raise _too_long(number)
    if rest.strip():
        yield Line(number, offset, rest)


def _too_long(number: int) -> Refused:
    return Refused("line_too_long", f"a line may have {MAX_LINE_BYTES} bytes", number)


def parse_line(line: Line, endpoint: str) -> InputLine:
    """A line's request. Raises Refused: it is not one for this endpoint."""
    try:
        found = msgspec.json.decode(line.raw, type=InputLine)
    except msgspec.ValidationError as error:
        raise Refused("invalid_line", f"the line is not understood: {error}", line.number) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused("invalid_json_line", f"the line is not JSON: {error}", line.number) from error
    for name in ("custom_id", "method", "url", "body"):
        if getattr(found, name) in (UNSET, msgspec.Raw()):
            raise Refused("missing_required_parameter", f"the line has no {name!r}", line.number, name)
    if found.method != "POST":
        raise Refused("invalid_method", "'method' is 'POST'", line.number, "method")
    if found.url != endpoint:
        raise Refused("invalid_url", f"'url' is the batch's endpoint, {endpoint!r}", line.number, "url")
    if not bytes(found.body).startswith(b"{"):
        raise Refused("invalid_line", "'body' is an object", line.number, "body")
    return found


class Check:
    """Looks at all lines of a file, and remembers its chunks and what is wrong."""

    def __init__(self, endpoint: str) -> None:
        self.total = 0
        self.chunks: list[ChunkRecord] = []
        self.errors: list[BatchError] = []
        self._endpoint = endpoint
        self._seen: set[bytes] = set()

    def take(self, line: Line) -> None:
        """Raises Refused: there is no sense in going on."""
        self.total += 1
        if self.total > MAX_BATCH_LINES:
            raise Refused("too_many_lines", f"a batch may have {MAX_BATCH_LINES} lines", line.number)
        try:
            self._take_name(parse_line(line, self._endpoint), line.number)
        except Refused as refused:
            self.errors.append(refused.error)
            if len(self.errors) == MAX_LINE_ERRORS:
                raise Refused("too_many_errors", "further lines were not looked at", line.number) from None
        self._put(line)

    def end(self) -> None:
        """Raises Refused: there was no line."""
        if not self.total:
            raise Refused("empty_file", "the file has no lines")

    def _take_name(self, found: InputLine, number: int) -> None:
        # As hashes: fifty thousand names may be long.
        name = blake2b(str(found.custom_id).encode(), digest_size=16).digest()
        if name in self._seen:
            raise Refused(
                "duplicate_custom_id", "an earlier line has the same 'custom_id'", number, "custom_id"
            )
        self._seen.add(name)

    def _put(self, line: Line) -> None:
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.lines == CHUNK_LINES:
            chunk = ChunkRecord(len(self.chunks), line.number, 1, line.offset, len(line.raw))
            self.chunks.append(chunk)
            return
        size = line.offset + len(line.raw) - last.offset
        self.chunks[-1] = last._replace(lines=last.lines + 1, size=size)
