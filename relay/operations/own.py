"""`/api/sessions`: what the token that asks has under way. The handler is in relay/own_api.py."""

from relay.openapi import Answer, Operation
from schema.overview import RunningReplies

_TAG = "One's own"

OWN: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/sessions",
        tag=_TAG,
        summary="The token's replies that are being written",
        access="holder",
        answers=(Answer(meaning="Those at this replica.", shape=RunningReplies),),
    ),
)
