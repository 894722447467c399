"""Batches under `/v1/batches`, in the shapes of OpenAI's API, and the lines of their files.

Knows shapes and limits. Does not know how lines are answered.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from schema.api import ErrorBody
from schema.api.common import Unsupported
from schema.api.response_events import OutputDetails

BatchEndpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
EndStatus = Literal["failed", "completed", "expired", "cancelled"]
"""In which nothing happens any more."""

MAX_BATCH_LINES = 50_000
"""Lines of one input file."""
MAX_CUSTOM_ID_CHARS = 512
MAX_LINE_ERRORS = 100
"""That a batch tells of its input file."""
MOST_BATCHES = 100
"""That one page of a list holds."""
WEBHOOK_KEY = "webhook_url"
"""In a batch's metadata: who is told when it has ended."""

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class BatchQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of `GET /v1/batches`, the newest first."""

    limit: Annotated[int, Meta(ge=1, le=MOST_BATCHES)] = 20
    """How many at most."""
    after: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    """Go on after this batch: `last_id` of the page before."""


class BatchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: BatchEndpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: Unsupported = UNSET


class BatchError(Struct, frozen=True, kw_only=True):
    """Why a line of the input file cannot be taken."""

    code: str
    message: str
    line: int | None = None
    """Counted from 1."""
    param: str | None = None


class BatchErrors(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(Struct, frozen=True, kw_only=True):
    """Of a batch's lines: all, those answered, and those that are in the error file."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchInputDetails(Struct, frozen=True, kw_only=True):
    """What became of prompts' tokens."""

    cached_tokens: int = 0
    """Those that were not computed again."""


class BatchUsage(Struct, frozen=True, kw_only=True):
    """Tokens that the answers of a batch took, so far; lines in the error file took none."""

    input_tokens: int = 0
    input_tokens_details: BatchInputDetails = BatchInputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int = 0


class Batch(Struct, frozen=True, kw_only=True):
    """A batch as its owner sees it."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str = "24h"
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    usage: BatchUsage | None = None
    """Null where a relay answered some of its lines that did not note what they took yet."""
    metadata: dict[str, str] | None = None


class BatchList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/batches`: one page, the newest first."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class InputLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of an input file. What may be missing is looked for by name (relay/batches/lines.py)."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=MAX_CUSTOM_ID_CHARS)] | UnsetType = UNSET
    method: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    body: msgspec.Raw = msgspec.Raw()


class LineResponse(Struct, frozen=True, kw_only=True):
    """What the endpoint would have answered over HTTP."""

    status_code: int
    request_id: str
    body: msgspec.Raw | ErrorBody


class LineError(Struct, frozen=True, kw_only=True):
    """Why a line was not answered at all."""

    code: str
    message: str


class OutputLine(Struct, frozen=True, kw_only=True):
    """A line of an output or error file."""

    id: str
    custom_id: str
    response: LineResponse | None = None
    error: LineError | None = None


class EventData(Struct, frozen=True, kw_only=True):
    id: str


class BatchEvent(Struct, frozen=True, kw_only=True):
    """What a webhook is told: `batch.completed` and the like."""

    id: str
    object: Literal["event"] = "event"
    type: str
    created_at: int
    data: EventData


class WebhookSecret(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/webhook-secret`."""

    secret: str
