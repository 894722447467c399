"""`/v1/batches`: what OpenAI's clients ask of batches.

    POST /v1/batches              {"input_file_id", "endpoint", "completion_window": "24h", "metadata"}
    GET  /v1/batches              a page: `after`, `limit`
    GET  /v1/batches/{id}
    POST /v1/batches/{id}/cancel
    GET  /api/webhook-secret      what this token's events are signed with

A batch belongs to the token that made it; to all others it is not there. Handlers parse, call and encode.
"""

import secrets
import time

import msgspec
from msgspec import UNSET
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_holder_id
from relay.batches.posting import read_url
from relay.batches.requests import repeatable
from relay.batches.webhooks import secret_of
from relay.http import json_response, parse_body, parse_query
from relay.records import BatchRecord, Page
from relay.services import services_of
from schema.batches import (
    WEBHOOK_KEY,
    Batch,
    BatchError,
    BatchErrors,
    BatchInputDetails,
    BatchList,
    BatchQuery,
    BatchRequest,
    BatchUsage,
    RequestCounts,
    WebhookSecret,
)
from schema.errors import InvalidRequest

BATCHES = "/v1/batches"
BATCH = "/v1/batches/{id}"
CANCEL = "/v1/batches/{id}/cancel"
SECRET = "/api/webhook-secret"
WINDOW_SECONDS = 24 * 3600.0


class BatchesEndpoint(HTTPEndpoint):
    """`/v1/batches`."""

    async def get(self, request: Request) -> Response:
        asker = await require_holder_id(request)
        asked = parse_query(request, BatchQuery)
        page = Page(asked.limit, asked.after or None)
        found = await services_of(request.scope).store.batches(asker, page)
        batches = [shown(record) for record in found[: page.limit]]
        return json_response(
            BatchList(
                data=batches,
                first_id=batches[0].id if batches else None,
                last_id=batches[-1].id if batches else None,
                has_more=len(found) > page.limit,
            )
        )

    async def post(self, request: Request) -> Response:
        asker = await require_holder_id(request)
        services = services_of(request.scope)
        body = await parse_body(request, BatchRequest)
        if body.output_expires_after not in (UNSET, None):
            raise InvalidRequest(
                "'output_expires_after' is not supported here: files stay until they are deleted",
                param="output_expires_after",
            )
        if body.metadata is not None and WEBHOOK_KEY in body.metadata:
            read_url(body.metadata[WEBHOOK_KEY])
        record = _new_batch(body, asker)
        again = repeatable(request, msgspec.json.encode(body, order="sorted").decode())
        answer = msgspec.json.encode(shown(record))
        earlier = await services.store.add_batch(record, answer, again, services.settings.token_batches)
        services.batches.look()
        return Response(earlier or answer, media_type="application/json")


async def batch(request: Request) -> Response:
    """`GET /v1/batches/{id}`."""
    asker = await require_holder_id(request)
    return json_response(
        shown(await services_of(request.scope).store.batch(request.path_params["id"], asker))
    )


async def cancel(request: Request) -> Response:
    """`POST /v1/batches/{id}/cancel`: lines that are under way are given up, and count as not answered."""
    asker = await require_holder_id(request)
    services = services_of(request.scope)
    record = await services.store.cancel_batch(request.path_params["id"], asker, time.time())
    services.batches.look()
    return json_response(shown(record))


async def webhook_secret(request: Request) -> Response:
    """`GET /api/webhook-secret`."""
    asker = await require_holder_id(request)
    return json_response(WebhookSecret(secret=secret_of(services_of(request.scope).secret, asker)))


def _new_batch(body: BatchRequest, asker: str) -> BatchRecord:
    now = time.time()
    return BatchRecord(
        id=f"batch_{secrets.token_hex(12)}",
        token_id=asker,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        status="validating",
        created_at=now,
        expires_at=now + WINDOW_SECONDS,
        labels=None if body.metadata is None else msgspec.json.encode(body.metadata).decode(),
    )


def shown(record: BatchRecord) -> Batch:
    """A batch in the API's shape."""
    errors = None
    if record.errors is not None:
        errors = BatchErrors(data=msgspec.json.decode(record.errors, type=list[BatchError]))
    return Batch(
        id=record.id,
        endpoint=record.endpoint,
        errors=errors,
        input_file_id=record.input_file_id,
        status=record.status,
        output_file_id=record.output_file_id,
        error_file_id=record.error_file_id,
        created_at=int(record.created_at),
        in_progress_at=_seconds(record.in_progress_at),
        expires_at=int(record.expires_at),
        finalizing_at=_seconds(record.finalizing_at),
        completed_at=_seconds(record.completed_at),
        failed_at=_seconds(record.failed_at),
        expired_at=_seconds(record.expired_at) if record.status == "expired" else None,
        cancelling_at=_seconds(record.cancelling_at),
        cancelled_at=_seconds(record.cancelled_at),
        request_counts=RequestCounts(total=record.total, completed=record.completed, failed=record.failed),
        usage=_usage(record),
        metadata=None if record.labels is None else msgspec.json.decode(record.labels),
    )


def _usage(record: BatchRecord) -> BatchUsage | None:
    prompt, cached, completion = record.prompt_tokens, record.cached_tokens, record.completion_tokens
    if prompt is None or cached is None or completion is None:
        return None
    return BatchUsage(
        input_tokens=prompt,
        input_tokens_details=BatchInputDetails(cached_tokens=cached),
        output_tokens=completion,
        total_tokens=prompt + completion,
    )


def _seconds(time_: float | None) -> int | None:
    return None if time_ is None else int(time_)
