"""Health and figures, for platforms and operators. The handlers are in relay/rest/."""

from relay.openapi import Answer, Operation
from schema.errors import Unavailable

_TAG = "Operation"
_TEXT = "text/plain"

HEALTH: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/healthz",
        tag=_TAG,
        summary="Whether the process answers",
        access="everyone",
        answers=(Answer(meaning="It does.", media=_TEXT),),
    ),
    Operation(
        method="GET",
        path="/readyz",
        tag=_TAG,
        summary="Whether its database answers too",
        access="everyone",
        answers=(Answer(meaning="It does.", media=_TEXT),),
        errors=(Unavailable,),
    ),
    Operation(
        method="GET",
        path="/metrics",
        tag=_TAG,
        summary="Figures for Prometheus",
        access="everyone",
        answers=(Answer(meaning="In Prometheus' text format.", media=_TEXT),),
    ),
)
