"""An uploaded form with one file in it: taken apart as it comes, kept on disk until all of it is there.

The fields that say what the file is for may come after it, and a form may break off: so its bytes go to the
storage only when the form is whole. Does not know what becomes of it.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha256

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from relay.batches.storage import PART_BYTES
from schema.errors import InvalidRequest, TooLarge, TooManyRequests
from schema.files import MAX_FILE_NAME_CHARS

MOST_FIELDS = 8
FIELD_BYTES = 1024
FORM_BYTES = 64 * 1024
"""Of a form, beside its file."""


MOST_AT_ONCE = 8
"""Of one token and those that it has made: each may take `FILE_BYTES` of this machine's disk meanwhile."""
RETRY_SECONDS = 10.0
"""When asking again makes sense where there are that many."""


class Uploading:
    """How many uploads are under way here. Owned by the event loop's thread."""

    def __init__(self) -> None:
        self._owners: Counter[str] = Counter()

    @contextmanager
    def one(self, owner: str) -> Generator[None]:
        """One more, while the block runs. `owner`: whose it is. Raises TooManyRequests: there are many."""
        if self._owners[owner] >= MOST_AT_ONCE:
            raise TooManyRequests(
                f"{MOST_AT_ONCE} files of this token are being uploaded already: wait for one of them",
                retry_after=RETRY_SECONDS,
            )
        self._owners[owner] += 1
        try:
            yield
        finally:
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]


@dataclass(frozen=True, slots=True)
class Upload:
    """A form that has come whole."""

    fields: dict[str, str]
    filename: str
    _file: UploadFile

    async def parts(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        await self._file.seek(0)
        while part := await self._file.read(PART_BYTES):
            yield part

    async def digest(self) -> str:
        """SHA-256 of the file's bytes, hex."""
        seen = sha256()
        async for part in self.parts():
            seen.update(part)
        return seen.hexdigest()


@asynccontextmanager
async def uploaded(request: Request, max_bytes: int) -> AsyncGenerator[Upload]:
    """The form of a request; its file is gone afterwards.

    Raises:
        InvalidRequest: it is no such form. TooLarge: the file has more than `max_bytes`.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest("send a form (multipart/form-data) with the fields 'purpose' and 'file'")
    parser = MultiPartParser(
        request.headers,
        _limited(request, max_bytes),
        max_files=1,
        max_fields=MOST_FIELDS,
        max_part_size=FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"the form is not understood: {error.message}") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest(
                "the form has no whole file: send it in the field 'file', and the form to its end",
                param="file",
            )
        if (file.size or 0) > max_bytes:
            raise _too_large(max_bytes)
        name = (file.filename or "file").replace("\0", "")[-MAX_FILE_NAME_CHARS:]
        fields = {key: value for key, value in form.multi_items() if isinstance(value, str)}
        yield Upload(fields, name or "file", file)
    finally:
        await form.close()


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes + FORM_BYTES:
            raise _too_large(max_bytes)
        yield part


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"a file may have {max_bytes} bytes: make several of it, or ask for a higher FILE_BYTES")
