"""`/v1/files` and `/v1/batches`: work that outlasts a connection. The handlers are in relay/batches/."""

from relay.openapi import Answer, Operation
from schema.batches import Batch, BatchList, BatchQuery, BatchRequest, WebhookSecret
from schema.errors import Conflict, IdempotencyKeyReused, NotFound, QuotaExceeded, TooManyRequests
from schema.files import FileDeleted, FileList, FileObject, FileQuery

_FILES, _BATCHES = "Files", "Batches"
_FILE_ID = (("id", "The file's id."),)
_BATCH_ID = (("id", "The batch's id."),)
_REPEATABLE = (
    ("Idempotency-Key", "A request that comes again with the same key, within a day, is answered as before."),
)

BATCHES: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/v1/files",
        tag=_FILES,
        summary="Upload a file",
        description="Lines for a batch: JSON, one request each.",
        access="holder",
        headers=_REPEATABLE,
        form={
            "type": "object",
            "required": ["purpose", "file"],
            "properties": {
                "purpose": {"const": "batch"},
                "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            },
            "additionalProperties": False,
        },
        answers=(Answer(meaning="The file.", shape=FileObject),),
        errors=(IdempotencyKeyReused, QuotaExceeded, TooManyRequests),
    ),
    Operation(
        method="GET",
        path="/v1/files",
        tag=_FILES,
        summary="The token's files",
        access="holder",
        query=FileQuery,
        answers=(Answer(meaning="One page.", shape=FileList),),
        errors=(NotFound,),
    ),
    Operation(
        method="GET",
        path="/v1/files/{id}",
        tag=_FILES,
        summary="A file, without its content",
        access="holder",
        in_path=_FILE_ID,
        answers=(Answer(meaning="The file.", shape=FileObject),),
        errors=(NotFound,),
    ),
    Operation(
        method="DELETE",
        path="/v1/files/{id}",
        tag=_FILES,
        summary="Delete a file",
        access="holder",
        in_path=_FILE_ID,
        answers=(Answer(meaning="It is gone.", shape=FileDeleted),),
        errors=(NotFound, Conflict),
    ),
    Operation(
        method="GET",
        path="/v1/files/{id}/content",
        tag=_FILES,
        summary="A file's content",
        access="holder",
        in_path=_FILE_ID,
        answers=(Answer(meaning="Its bytes.", media="application/octet-stream"),),
        errors=(NotFound,),
    ),
    Operation(
        method="POST",
        path="/v1/batches",
        tag=_BATCHES,
        summary="Have all lines of a file answered",
        access="holder",
        headers=_REPEATABLE,
        body=BatchRequest,
        example={
            "input_file_id": "file-0123456789ab",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
        answers=(Answer(meaning="The batch, which is about to be looked at.", shape=Batch),),
        errors=(Conflict, NotFound, IdempotencyKeyReused, QuotaExceeded),
    ),
    Operation(
        method="GET",
        path="/v1/batches",
        tag=_BATCHES,
        summary="The token's batches",
        access="holder",
        query=BatchQuery,
        answers=(Answer(meaning="One page, the newest first.", shape=BatchList),),
        errors=(NotFound,),
    ),
    Operation(
        method="GET",
        path="/v1/batches/{id}",
        tag=_BATCHES,
        summary="How far a batch is",
        access="holder",
        in_path=_BATCH_ID,
        answers=(Answer(meaning="The batch.", shape=Batch),),
        errors=(NotFound,),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{id}/cancel",
        tag=_BATCHES,
        summary="End a batch early",
        description="What was answered is kept.",
        access="holder",
        in_path=_BATCH_ID,
        answers=(Answer(meaning="The batch.", shape=Batch),),
        errors=(NotFound, Conflict),
    ),
    Operation(
        method="GET",
        path="/api/webhook-secret",
        tag=_BATCHES,
        summary="What the token's webhooks are signed with",
        access="holder",
        answers=(Answer(meaning="The secret, as Standard Webhooks write it.", shape=WebhookSecret),),
    ),
)
