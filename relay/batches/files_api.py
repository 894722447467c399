"""`/v1/files`: what OpenAI's clients upload, look at, read and delete.

    POST   /v1/files               a form with `purpose` ("batch") and `file`
    GET    /v1/files               a page: `after`, `limit`, `order`, `purpose`
    GET    /v1/files/{id}          without its content
    GET    /v1/files/{id}/content  its bytes
    DELETE /v1/files/{id}

A file belongs to the token that made it; to all others it is not there. Handlers parse, call and encode.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from relay.access import require_holder_id
from relay.batches.requests import repeatable
from relay.batches.uploads import Upload, uploaded
from relay.http import json_response, parse_query
from relay.metrics import Metrics
from relay.records import FileRecord, Page
from relay.services import services_of
from schema.errors import CorollaError, InvalidRequest, Unavailable
from schema.files import FileDeleted, FileList, FileObject, FileQuery

FILES = "/v1/files"
FILE = "/v1/files/{id}"
CONTENT = "/v1/files/{id}/content"
CONTENT_KIND = "application/octet-stream"

log = logging.getLogger(__name__)


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def file_object(record: FileRecord) -> FileObject:
    """A file in the API's shape."""
    return FileObject(
        id=record.id,
        bytes=record.bytes,
        created_at=int(record.created_at),
        filename=record.filename,
        purpose=record.purpose,
    )


class FilesEndpoint(HTTPEndpoint):
    """`/v1/files`."""

    async def get(self, request: Request) -> Response:
        asker = await require_holder_id(request)
        asked = parse_query(request, FileQuery)
        page = Page(asked.limit, asked.after or None, asked.order == "asc")
        found = await services_of(request.scope).store.files(asker, page, asked.purpose or None)
        files = [file_object(record) for record in found[: page.limit]]
        return json_response(
            FileList(
                data=files,
                first_id=files[0].id if files else None,
                last_id=files[-1].id if files else None,
                has_more=len(found) > page.limit,
            )
        )

    async def post(self, request: Request) -> Response:
        asker, services = await require_holder_id(request), services_of(request.scope)
        owner = (await services.allowances.of(asker)).owner or asker
        with services.uploading.one(owner):
            async with uploaded(request, services.settings.file_bytes) as upload:
                return await _keep(request, upload, asker)


async def _keep(request: Request, upload: Upload, asker: str) -> Response:
    """Put a file into the storage, and then into the list; neither if it came before."""
    services = services_of(request.scope)
    _check_fields(upload.fields)
    again = None
    if "idempotency-key" in request.headers:
        again = repeatable(request, upload.filename, await upload.digest())
    file_id = new_file_id()
    size = await services.storage.write(file_id, upload.parts())
    record = FileRecord(file_id, asker, upload.filename, "batch", size, time.time())
    answer = msgspec.json.encode(file_object(record))
    try:
        earlier = await services.store.add_file(record, answer, again, services.settings.token_file_bytes)
    except Unavailable:
        raise  # it may be committed all the same: the bytes stay
    except CorollaError:
        await services.storage.remove(file_id)
        raise
    if earlier is not None:
        await services.storage.remove(file_id)
    return Response(earlier or answer, media_type="application/json")


def _check_fields(fields: dict[str, str]) -> None:
    purpose = fields.get("purpose")
    if purpose != "batch":
        raise InvalidRequest(
            f"'purpose' is 'batch' here, not {purpose!r}: files serve batches only", param="purpose"
        )
    for name in fields:
        if name != "purpose":
            raise InvalidRequest(f"{name!r} is not supported here: leave it out", param=name)


class FileEndpoint(HTTPEndpoint):
    """`/v1/files/{id}`."""

    async def get(self, request: Request) -> Response:
        asker = await require_holder_id(request)
        record = await services_of(request.scope).store.file(request.path_params["id"], asker)
        return json_response(file_object(record))

    async def delete(self, request: Request) -> Response:
        asker = await require_holder_id(request)
        services = services_of(request.scope)
        file_id: str = request.path_params["id"]
        record = await services.store.file(file_id, asker)
        await services.store.remove_file(file_id, asker)
        try:
            await services.storage.remove(file_id)
        except CorollaError:
            await services.store.add_file(record)  # so that it can be asked for again
            raise
        return json_response(FileDeleted(id=file_id))


async def file_content(request: Request) -> Response:
    """`GET /v1/files/{id}/content`; whoever asks for the headers alone has one part of it read."""
    asker = await require_holder_id(request)
    services = services_of(request.scope)
    record = await services.store.file(request.path_params["id"], asker)
    parts = services.storage.read(record.id)
    first = await anext(parts, b"")  # so that a storage that is away is a status, and no broken answer
    headers = {
        "Content-Length": str(record.bytes),
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(record.filename)}",
    }
    if request.method == "HEAD":
        await parts.aclose()
        return Response(headers=headers, media_type=CONTENT_KIND)
    return _Content(services.metrics, _after(first, parts), headers)


class _Content(StreamingResponse):
    """A file on its way. Where the rest cannot be read the answer ends short of its Content-Length."""

    def __init__(self, metrics: Metrics, parts: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(parts, headers=headers, media_type=CONTENT_KIND)
        self._metrics = metrics

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except CorollaError as error:  # a status has been sent already: nothing more can be said
            self._metrics.refuse(error.code)
            log.warning("a file is not sent to its end: %s", error.message)


async def _after(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part
