"""`/api/v1/generate`: for scripts of Petals' chat server. The handler is in relay/petals_api.py."""

from relay.openapi import Answer, Operation
from relay.operations.completions import REPLY_ERRORS
from schema.petals import PetalsFailure, PetalsOutputs, PetalsRequest

_PATH = "/api/v1/generate"
_TAG = "For scripts of Petals' chat"
_SUMMARY = "Go on with a text"
_ANSWERS = (Answer(meaning="What comes after the inputs.", shape=PetalsOutputs),)
_ABOUT = (
    "An adapter: new programs take `/v1`. The operator can let scripts in that send no token "
    "(`PETALS_TOKEN`). Over a WebSocket: `/api/v2/generate`."
)

PETALS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path=_PATH,
        tag=_TAG,
        summary=_SUMMARY,
        description=_ABOUT,
        access="client",
        query=PetalsRequest,
        answers=_ANSWERS,
        errors=REPLY_ERRORS,
        failure=PetalsFailure,
    ),
    Operation(
        method="POST",
        path=_PATH,
        tag=_TAG,
        summary=_SUMMARY,
        description=f"{_ABOUT} The same fields also as a form or in the query.",
        access="client",
        body=PetalsRequest,
        example={"model": "corolla-demo", "inputs": "In the garden", "max_new_tokens": 8},
        answers=_ANSWERS,
        errors=REPLY_ERRORS,
        failure=PetalsFailure,
    ),
)
